//! What the source tells of itself at an attach.

use grain::attach::{AloneMark, CopyFacts, Facts, Role};
use grain::lineage::Count;
use grain::{CutId, GrainSet, Layer, Position};

use super::Source;
use crate::Result;

impl Source {
    /// The facts for the peer with `identity`.
    pub fn facts(&self, identity: &str) -> Facts {
        let open_grains = self.tracker.with_open(grain::GrainSet::len);
        self.store.with(|s| {
            let peer = s.peers.iter().find(|p| p.identity == identity);
            let alone = peer.and_then(|p| p.alone.as_ref()).map(|mark| AloneMark {
                since: mark.since,
                acknowledged: mark.acked.map(|cut| Position { cut, sequence: 0 }),
                unix_ms: mark.unix_ms,
            });
            let layer = |c: &crate::state::ClosedLayer| Layer {
                name: c.name.clone(),
                grains: Count(c.grains),
            };
            Facts {
                relationship: s.relationship,
                geometry: s.geometry.clone(),
                role: Role::Source,
                suspect: s.suspect.is_some(),
                relinquished: false,
                promoted: s.promoted,
                alone,
                lineage: s.lineage.clone(),
                sequence: self.streams.sequence(),
                layers: s.layers.closed.iter().map(layer).collect(),
                open_grains,
                copy: CopyFacts { consistent: true, ..CopyFacts::default() },
                open_within: None,
            }
        })
    }

    /// Everything that was written after `cut`: what a replica that stands there does not hold.
    pub(super) async fn written_since(&self, cut: CutId) -> Result<GrainSet> {
        let mut written = self.keeper().written_since(cut).await?;
        self.tracker.with_open(|open| written.union_with(open));
        Ok(written)
    }

    /// Rule 8, where it is not known how far an epoch went: whether all that a replica wrote in it stands
    /// in this side's layers of that epoch.
    pub(super) async fn knows_epoch(&self, cut: CutId, streamed: &GrainSet) -> Result<bool> {
        let names: Vec<_> =
            self.store.with(|s| s.layers.closed.iter().map(|c| c.name.clone()).collect());
        let layers = self.keeper().load(&names).await?;
        let lineage = self.store.with(|s| s.lineage.clone());
        Ok(grain::lineage::open_layer_within(cut, streamed, &lineage, &layers))
    }
}
