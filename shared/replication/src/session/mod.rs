//! Copy sessions: the grains of a set, read as they were at one cut, each delivered once, in any
//! order, to one sink.
//!
//! Each grain goes pending → busy (being read or preserved) → done. A write to a busy grain waits for
//! that one read; a write to a pending grain preserves it first ([`OnWrite::Preserve`]) or drops it
//! from the session ([`OnWrite::Skip`], for verify and compare, which pass over what was written).
//! This is the only way by which anything is read "as of the cut".

mod copy;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use copy::PIECE_BYTES;
pub use copy::{CopySession, Counters, Ended, OnWrite, Options, Overflow};
pub use store::SideFile;
