//! Lineage arithmetic: cuts, epochs and layers, and the rules of what two sites still owe each other.
//!
//! Everything here is pure and knows nothing of disks or links. The rules are those of the design's
//! section 3, by their numbers: which layer supplies which epoch (1), the delta (2), what a commit
//! records (3), what may be dropped (4) and merged (5), what an unclean start adds (6), whether a
//! position lies in a source's past (8), carrying over a broken session (9). They are generic over
//! the set type, so that the same code decides over names and counts at attach, over real grain sets
//! when the delta is made, and over tiny masks in the random histories that test it.
//!
//! What this module does not do: keep anything durable, or choose when to cut, merge or drop.

mod coverage;
mod delta;
mod layer;
mod membership;
mod retention;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{CutId, Error};

pub use coverage::{EpochGap, newest_common_cut, supplying_layers};
pub use delta::{Delta, Holding, LayersUsed, NoDelta, PartialSession, delta, layers_used};
pub use layer::{Count, Grains, Layer, LayerName, MAX_NAMES_PER_LAYER, Union, merge_neighbours};
pub use membership::{Membership, membership, open_layer_within};
pub use retention::{Commit, HeldCuts, commit, drop_floor, droppable, unclean_start_union};

/// Why a cut was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CutReason {
    /// A site started as source.
    Start,
    /// A media set was begun or ended.
    Dump,
    /// A catch-up or a cycle was begun.
    Cycle,
    /// A stream closed an epoch.
    Stream,
    /// An operator asked for a named point.
    Bookmark,
    /// A replica became the source.
    Promote,
    /// A source gave up its role.
    Handover,
}

/// An instant in the write order of a relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Its name; also that of the epoch which it opens.
    pub id: CutId,
    /// The cut before it when it was made. Stays as it was when that one is pruned.
    pub parent: Option<CutId>,
    /// When, in Unix milliseconds; for people, never for decisions.
    pub unix_ms: u64,
    /// Why.
    pub reason: CutReason,
}

/// What a site holds: everything up to a cut, and the stream of the epoch after it up to a sequence
/// number (0: nothing of it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The newest cut held.
    pub cut: CutId,
    /// The last sequence number after it.
    pub sequence: u64,
}

/// A site's chain of cuts, and how far each closed epoch went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// Oldest first; each id once.
    cuts: Vec<Cut>,
    /// The last sequence number of the epoch opened by a cut, for closed epochs; absent where it is
    /// not known, after an unclean stop.
    ends: BTreeMap<CutId, u64>,
}

impl Lineage {
    /// No cuts: the lineage of an empty site.
    pub fn new() -> Lineage {
        Lineage::default()
    }

    /// The cuts, oldest first.
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// The newest cut.
    pub fn head(&self) -> Option<&Cut> {
        self.cuts.last()
    }

    /// Whether the cut is in the chain.
    pub fn contains(&self, cut: CutId) -> bool {
        self.index_of(cut).is_some()
    }

    /// The place of a cut in the chain, 0 for the oldest. Looks from the newest on.
    pub fn index_of(&self, cut: CutId) -> Option<usize> {
        self.cuts.iter().rposition(|c| c.id == cut)
    }

    /// The cut with this id.
    pub fn get(&self, cut: CutId) -> Option<&Cut> {
        self.index_of(cut).and_then(|index| self.cuts.get(index))
    }

    /// The last sequence number of the epoch that `cut` opened; `None` while it is open and where it
    /// is not known.
    pub fn end_of(&self, cut: CutId) -> Option<u64> {
        self.ends.get(&cut).copied()
    }

    /// All recorded ends.
    pub fn ends(&self) -> &BTreeMap<CutId, u64> {
        &self.ends
    }

    /// Adds a cut on top. `end_of_previous` is the last sequence number of the epoch that it closes,
    /// `None` when that is not known (rule 8). Refuses a cut that is already there or whose parent is
    /// not the head.
    pub fn push(&mut self, cut: Cut, end_of_previous: Option<u64>) -> Result<(), Error> {
        let head = self.head().map(|head| head.id);
        if cut.parent != head {
            return Err(Error::Lineage { cut: cut.id, problem: "does not follow the head" });
        }
        if self.contains(cut.id) {
            return Err(Error::Lineage { cut: cut.id, problem: "is in the chain twice" });
        }
        if let (Some(head), Some(end)) = (head, end_of_previous) {
            self.ends.insert(head, end);
        }
        self.cuts.push(cut);
        Ok(())
    }

    /// Forgets the cuts for which `keep` says no; the head always stays. How many went.
    ///
    /// Only cuts that no layer begins or ends with may go ([`merge_neighbours`] makes more of them),
    /// else a delta that is known becomes unknown; never wrong.
    pub fn prune(&mut self, keep: impl Fn(CutId) -> bool) -> usize {
        let before = self.cuts.len();
        let head = self.head().map(|head| head.id);
        self.cuts.retain(|cut| Some(cut.id) == head || keep(cut.id));
        let left: BTreeSet<CutId> = self.cuts.iter().map(|cut| cut.id).collect();
        self.ends.retain(|cut, _| left.contains(cut));
        before - self.cuts.len()
    }

    /// The chain as it was when `cut` had just been made: what a media set carries and a commit adopts
    /// (rules 3, 7). `None` when the cut is not in the chain.
    pub fn up_to(&self, cut: CutId) -> Option<Lineage> {
        let index = self.index_of(cut)?;
        let cuts = self.cuts.get(..=index)?.to_vec();
        let closed = cuts.iter().rev().skip(1);
        let ends = closed.filter_map(|c| Some((c.id, self.end_of(c.id)?))).collect();
        Some(Lineage { cuts, ends })
    }

    /// Checks a lineage that came from elsewhere: at most `max_cuts` cuts, each id once, ends only of
    /// closed epochs.
    pub fn validate(&self, max_cuts: usize) -> Result<(), Error> {
        if self.cuts.len() > max_cuts {
            return Err(Error::Facts { field: "lineage", problem: "has too many cuts" });
        }
        let mut seen = BTreeSet::new();
        for cut in &self.cuts {
            if !seen.insert(cut.id) {
                return Err(Error::Lineage { cut: cut.id, problem: "is in the chain twice" });
            }
        }
        let head = self.head().map(|head| head.id);
        match self.ends.keys().find(|cut| !seen.contains(cut) || Some(**cut) == head) {
            Some(cut) => Err(Error::Lineage { cut: *cut, problem: "has an end but is not closed" }),
            None => Ok(()),
        }
    }

    /// Where each cut stands, for walks that ask often.
    fn places(&self) -> BTreeMap<CutId, usize> {
        self.cuts.iter().enumerate().map(|(index, cut)| (cut.id, index)).collect()
    }
}
