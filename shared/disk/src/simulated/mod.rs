//! A simulated machine: its disk, its clock, its random numbers, all from one seed.
//!
//! It implements the traits of this crate on plain memory and tokio's (paused) time, so that the same
//! role code runs in the simulator and in unit tests. It promises to allow everything that a real
//! disk may do under the contract of [`crate::File`] and [`crate::Storage`], and nothing else: every
//! fault made here is one that must be survived.
//!
//! | what | how it may fail |
//! |---|---|
//! | a write that was not synced | after a power cut each 512-byte sector holds what it held at the last sync or at some instant since; other sectors need not agree |
//! | a length that was not synced | after a power cut any of the lengths since the last sync; what was written beyond it is gone |
//! | a name, rename, removal without `sync_dir` | after a power cut there or not, in any order, except that a later change of a name implies the earlier ones of the same name |
//! | an operation under way at a crash | done, not done, or (a write) torn between sectors |
//! | a killed process | everything written stays; open files and locks are gone |
//! | a write that failed with EIO | done, not done or torn |
//! | a sync that failed | what it should have synced still reads, but no later sync makes it durable unless it is written again; a crash of either kind may take it back |
//! | `read_now`, `write_now` | answer at once or not, by the seed |
//!
//! [`SimMachine`] is the handle to all of it. Without a latency and without [`Fault::Slow`] every
//! operation ends at its first poll; with them tokio's clock is needed.

mod clock;
mod disk_state;
mod faults;
mod file;
mod flight;
mod hands;
mod image;
mod inode;
mod machine;
mod names;
mod random;
mod ranges;
mod recording;
mod storage;
mod unsynced;

pub use clock::{InlineOffload, SimClock, SimEntropy};
pub use disk_state::Step;
pub use faults::{Crash, Fault, Op, OpKind};
pub use file::SimFile;
pub use hands::FileContent;
pub use machine::{SimMachine, Snapshot};
pub use random::SplitMix64;
pub use recording::Recording;
pub use storage::SimStorage;
pub use unsynced::Keep;

#[cfg(test)]
mod tests;
