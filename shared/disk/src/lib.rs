//! Storage as the rest of the code sees it: the traits [`File`] and [`Storage`], the [`Context`]
//! through which role code reaches clock, randomness, pool and disk, their real form, and a simulated
//! one.
//!
//! Everything runs on one thread (`Rc`, no `Send`); what may block goes to a pool behind these
//! traits. The simulator implements the same traits over a virtual clock, which is why nothing else
//! in the product may open a file, read a clock, draw a random number or start a thread.

mod context;
mod file;
pub mod real;
pub mod simulated;
mod storage;

pub use context::{Clock, Context, Entropy, Local, Offload};
pub use file::{Extent, File, FileKind};
pub use storage::{DirEntry, OpenMode, Storage};
