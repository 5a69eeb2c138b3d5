//! What travels in a verification: a conversation of its own beside the catch-ups of a session.
//!
//! Its messages may come at any time, so that a comparison that takes hours holds up nothing: whoever reads
//! the inbox never sees them ([`super::Inbox::divert`]). `docs/formats/protocol.md` has the exchange.

use grain::{CutId, GrainSet, Run};
use serde::{Deserialize, Serialize};

use super::{MAX_DIGESTS, Refusal};
use crate::state::Verified;
use crate::volumes::Volumes;
use crate::{Error, Result};

/// Runs of digests that may be unanswered at a time.
pub const VERIFY_WINDOW: usize = 8;
/// Messages of a verification that wait to be read: more is none's honest need.
pub(crate) const VERIFY_WAITING: usize = VERIFY_WINDOW + 8;
/// Grains of one run that the replica has as zeros, at most.
pub const MAX_ZERO_GRAINS: u64 = 1 << 16;
/// Runs in one [`Compared`] at most, of either kind: every second grain of the longest run.
const MAX_RUNS: usize = (MAX_ZERO_GRAINS / 2) as usize;

/// A message of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerifyMessage {
    /// Replica: a comparison is to begin.
    Begin {
        /// Counts up; what belongs to this comparison names it.
        pass: u32,
        /// How many grains it will ask about, for those who watch.
        grains: u64,
    },
    /// Source: ready; whatever was written since this cut is left out from here on.
    Ready {
        /// Which comparison.
        pass: u32,
        /// The newest cut that this replica has acknowledged.
        cut: CutId,
    },
    /// Replica: the digests of what it has of this run are the payload (32 bytes a grain); with no payload
    /// it has zeros there.
    Mine {
        /// Which comparison.
        pass: u32,
        /// At most [`MAX_DIGESTS`] grains, of zeros [`MAX_ZERO_GRAINS`].
        run: Run,
    },
    /// Source: what came of that run, a [`Compared`] in the payload.
    Compared {
        /// Which comparison.
        pass: u32,
        /// Which run.
        run: Run,
    },
    /// Source: this comparison cannot go on.
    Failed {
        /// Which comparison.
        pass: u32,
        /// Why.
        text: String,
    },
    /// Replica: enough of this comparison.
    Done {
        /// Which comparison.
        pass: u32,
    },
    /// Source: its operator wants a verification.
    Asked {
        /// The answer names it.
        number: u32,
        /// Bytes a second at most; 0 for no limit.
        rate_bytes: u64,
        /// What differs is to be pulled.
        repair: bool,
    },
    /// Source: its operator wants no more of the verification under way.
    Stop,
    /// Replica: what came of a verification, a [`Report`] in the payload.
    Report {
        /// The source's number, if its operator asked for it.
        asked: Option<u32>,
    },
}

/// What came of a verification, or why there was none.
pub type Report = std::result::Result<Verified, Refusal>;

/// What came of comparing one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Grains that were compared. The others of the run were written since the cut, or cannot be read.
    pub compared: u64,
    /// Of them, those that differ.
    pub different: Vec<Run>,
    /// Grains that the source's disk does not give.
    pub unreadable: Vec<Run>,
    /// Bytes that the source read for it.
    pub read_bytes: u64,
}

impl Compared {
    /// The grains that differ and those that cannot be read, after a look whether they can be of `run`.
    pub fn sets(&self, run: Run) -> Result<(GrainSet, GrainSet)> {
        let inside =
            |r: &Run| r.volume == run.volume && r.first >= run.first && r.end() <= run.end();
        let fits = |runs: &[Run]| runs.len() <= MAX_RUNS && runs.iter().all(inside);
        let (different, unreadable): (GrainSet, GrainSet) =
            match fits(&self.different) && fits(&self.unreadable) {
                true => (
                    self.different.iter().copied().collect(),
                    self.unreadable.iter().copied().collect(),
                ),
                false => return Err(wrong(run)),
            };
        let sums = different.len() <= self.compared
            && self.compared.saturating_add(unreadable.len()) <= run.count;
        if sums { Ok((different, unreadable)) } else { Err(wrong(run)) }
    }
}

fn wrong(run: Run) -> Error {
    Error::Peer(format!("what it compared does not fit {run:?}"))
}

/// Whether a replica may ask about this run with so many bytes of digests.
pub(crate) fn may_ask(volumes: &Volumes, run: Run, digest_bytes: usize) -> bool {
    let fits = match digest_bytes {
        0 => run.count <= MAX_ZERO_GRAINS,
        bytes => run.count <= MAX_DIGESTS && bytes as u64 == run.count * 32,
    };
    fits && volumes.holds(run)
}
