//! Map files: one bit for each grain or region, on disk, in sectors that check themselves.
//!
//! Layers, the region map, missing grains and the sets of sessions are all kept in this one format.

mod file;
mod format;
mod layout;

pub use file::{DAMAGE_REACH_BITS, MapContent, MapFile, MapSpec};
pub use format::MapKind;
pub use layout::Layout;
