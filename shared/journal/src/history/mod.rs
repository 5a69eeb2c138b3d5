//! The replica's undo log: what the base held before it was overwritten, and the points to which one can
//! go back.
//!
//! The replica applies its redo journal to the base volumes in the background. Before bytes of the base
//! are overwritten, [`History::capture`] keeps what they held. The replica at an earlier [`Moment`] is the
//! base with the records since then laid over it ([`History::lookup`]).
//!
//! What it promises:
//! * what was captured survives any crash; nothing shows before it is on stable storage;
//! * of two captures of the same bytes of one epoch the first counts, also over a crash;
//! * a point that is listed can be had, byte for byte, or reading it fails: where a record may be lost, the
//!   points that it may have belonged to are withdrawn, durably, before anybody sees the history;
//! * a point that was withdrawn does not come back;
//! * bytes are checked against their digest whenever they are read.
//!
//! What it does not do: it never reads or writes the base, it does not decide what is kept for how long,
//! and it does not know which cut a commit is beyond what a [`Point`] says. The format:
//! `docs/formats/history.md`.

mod cache;
mod capture;
mod chain;
mod control;
mod error;
mod files;
mod index;
mod layout;
mod look;
mod open;
mod record;
mod replay;
mod saved;
mod scan;
mod seal;
mod segment;
mod spans;
mod state;
mod window;

use std::path::PathBuf;

use grain::CutId;

use crate::layout::RECORDS_START;

pub use error::Error;
pub use saved::Saved;
pub use state::{History, Stats};

/// The most bytes of a volume that stand in one record with a payload.
pub const MAX_RECORD_BYTES: u64 = 1 << 20;
/// The same of a record of zeros, which has no payload: a device that is discarded whole takes few of them.
pub const MAX_ZERO_BYTES: u64 = 1 << 30;
/// The longest label of a point, in bytes.
pub const MAX_LABEL_BYTES: usize = 255;
/// What [`History::oldest`] is while nothing says how far the loss of records reaches; see
/// [`Opened::unbounded`]. No commit has this number.
pub const UNKNOWN: u64 = (1 << 62) - 1;

/// A place in the order of what is applied: after commit `commit`, and after the `split`-th look (view)
/// that was taken inside of that epoch.
///
/// A split means something only to the process that took the look: at an opening all records of an epoch
/// become records of split 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment {
    /// Number of the last commit that is wholly in the base.
    pub commit: u64,
    /// Looks taken since.
    pub split: u32,
}

impl Moment {
    /// Right after a commit, before any look.
    pub fn after(commit: u64) -> Moment {
        Moment { commit, split: 0 }
    }
}

/// A point one can go back to: the replica at a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The commit after which the replica stood there.
    pub commit: u64,
    /// The cut.
    pub cut: CutId,
    /// When it was, in milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// A bookmark: at most [`MAX_LABEL_BYTES`] of UTF-8.
    pub label: Option<String>,
}

/// Where a history lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory of the segments; made when it is not there. Nothing else may live in it.
    pub dir: PathBuf,
    /// A segment is sealed when its records would grow over this, in bytes. What it holds after that is
    /// its index, at most 40 bytes for each record and a little.
    pub segment_bytes: u64,
}

impl Config {
    /// Segments of 64 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config { dir: dir.into(), segment_bytes: 64 << 20 }
    }

    fn validate(&self) -> Result<(), Error> {
        if self.segment_bytes < 2 * RECORDS_START {
            let least = 2 * RECORDS_START;
            let what = format!("a segment of {} bytes is less than {least}", self.segment_bytes);
            return Err(Error::Config(what));
        }
        Ok(())
    }
}

/// What an opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Nothing of this history was there and it began. Who knows that there was one has lost all of it,
    /// and goes on as with [`Opened::unbounded`].
    pub began: bool,
    /// Files of another history, which were removed.
    pub foreign: Vec<PathBuf>,
    /// What is damaged, each with its place; empty after a mere crash. It is named at every opening for as
    /// long as its segment is kept.
    pub damage: Vec<String>,
    /// The points that this opening withdrew because of it.
    pub withdrawn: Vec<Point>,
    /// Records are lost, and nothing says up to which commit: everything is withdrawn, nothing is kept and
    /// no point taken until the owner, who knows the newest commit that was ever applied, calls
    /// [`History::withdraw_below`] with one more than that. The same is told until then.
    pub unbounded: bool,
}
