//! What a verification found, as both sites keep it.

use std::path::PathBuf;

use grain::{CutId, Run};
use serde::{Deserialize, Serialize};

/// Places that are kept of what differs, at most.
pub const MOST_PLACES: usize = 16;

/// What came of the newest verification (DESIGN.md section 11). Travels over the link, too: no field may
/// be left out when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The cut that was compared.
    pub cut: Option<CutId>,
    /// When it ended, by the replica's clock.
    pub unix_ms: u64,
    /// Grains of all volumes.
    pub total_grains: u64,
    /// Grains whose digests were compared.
    pub compared_grains: u64,
    /// Grains not compared because they were written meanwhile.
    pub written_grains: u64,
    /// Grains not compared because the replica lacks them.
    pub missing_grains: u64,
    /// Grains not compared because the source's disk does not give them.
    pub unreadable_at_source_grains: u64,
    /// Grains that differed twice, those included that the replica's disk does not give.
    pub different_grains: u64,
    /// Of them, those that the replica's disk does not give.
    pub unreadable_grains: u64,
    /// The first places of what differs.
    pub places: Vec<Run>,
    /// Grains that were pulled again and are right, or were written anew, since.
    pub repaired_grains: u64,
    /// The index of the file at the replica that keeps what the repair overwrote.
    pub kept: Option<PathBuf>,
}

impl Verified {
    /// Grains that still differ.
    pub fn wrong_grains(&self) -> u64 {
        self.different_grains.saturating_sub(self.repaired_grains)
    }

    /// The share of all grains that was found equal, 0 to 1.
    pub fn share(&self) -> f64 {
        let equal = self.compared_grains.saturating_sub(self.wrong_grains());
        equal.min(self.total_grains) as f64 / self.total_grains.max(1) as f64
    }
}
