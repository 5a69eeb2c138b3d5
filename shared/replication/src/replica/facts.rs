//! What the replica tells of itself at an attach.

use grain::attach::{CopyFacts, Facts, MissingGrains, PartialFacts, Role};
use grain::lineage::Count;
use grain::{GrainSet, Layer};

use super::Replica;
use crate::state::ClosedLayer;

impl Replica {
    /// The facts of this replica.
    pub fn facts(&self) -> Facts {
        let partial = self.pull.borrow().as_ref().and_then(|pull| {
            let newest = pull.sessions().last().copied()?;
            Some(PartialFacts {
                session: newest.session,
                cut: newest.cut,
                remaining: pull.remaining().len(),
                direct: pull.is_direct(),
            })
        });
        let open_grains = self.open_grains().len();
        let sequence = self.position().map_or(0, |at| at.sequence);
        let missing =
            MissingGrains { damaged: self.damaged.len(), not_loaded: self.unloaded.len() };
        let consistent = self.is_consistent();
        self.store.with(|s| {
            let layer = |c: &ClosedLayer| Layer { name: c.name.clone(), grains: Count(c.grains) };
            Facts {
                relationship: s.relationship,
                geometry: s.geometry.clone(),
                role: Role::Replica,
                suspect: false,
                relinquished: s.replica.as_ref().is_some_and(|r| r.relinquished),
                promoted: None,
                alone: None,
                lineage: s.lineage.clone(),
                sequence,
                layers: s.layers.closed.iter().map(layer).collect(),
                open_grains,
                copy: CopyFacts {
                    consistent,
                    missing,
                    partial,
                    fuzzy_end: s.replica.as_ref().and_then(|r| r.fuzzy_end),
                },
                open_within: None,
            }
        })
    }

    /// Grains of the epoch after its cut of which it may hold a part: from a direct catch-up, or from a
    /// stream.
    pub(super) fn open_grains(&self) -> GrainSet {
        let mut open = self.direct_mask();
        open.union_with(&self.streamed_grains());
        open
    }

    /// What the base may hold of a direct catch-up that was not committed (rule 10).
    pub(super) fn direct_mask(&self) -> GrainSet {
        let pull = self.pull.borrow();
        match pull.as_ref().filter(|pull| pull.is_direct()) {
            Some(pull) => pull.union(),
            None => GrainSet::new(),
        }
    }
}
