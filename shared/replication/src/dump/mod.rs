//! Dumps: a copy session over every grain, into a media set, while applications write.

mod job;
mod plan;

pub use job::{DumpEnd, DumpJob, DumpProgress};
pub use plan::{DumpOptions, DumpRequest, Preserve, SavedOptions};
