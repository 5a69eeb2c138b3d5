//! Tracking: the gate, range locks, the open layer, regions, and what a start finds of them.

mod gate;
mod keep;
mod pool;
mod ranges;
pub(crate) mod recover;
mod regions;
mod tracker;

pub use gate::{Closed, Gate, Ticket};
pub use keep::LayerKeeper;
pub use pool::MapPool;
pub use ranges::{RangeLock, RangeLocks};
pub use recover::{Recovered, recover};
pub use regions::{Need, Regions, grains_of_regions, region_layout, region_shift};
pub use tracker::{Marked, Tracker};
