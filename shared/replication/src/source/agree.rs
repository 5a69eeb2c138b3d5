//! What a catch-up moves: the union that both sides' layers, missing grains and broken sessions ask for.

use grain::attach::Facts;
use grain::lineage::{Holding, PartialSession, delta, layers_used};
use grain::{CutId, GrainSet, Layer, SessionId};

use super::Source;
use crate::protocol::{SetInbox, SetName};
use crate::{Error, Result};

/// The sets that a replica sent before it asked to begin.
pub(super) struct Claims {
    sets: SetInbox,
    direct: GrainSet,
    missing: GrainSet,
    remaining: Option<GrainSet>,
}

impl Claims {
    pub(super) fn new(mut sets: SetInbox) -> Claims {
        let direct = sets.remove(SetName::Direct).unwrap_or_default();
        let missing = sets.remove(SetName::Missing).unwrap_or_default();
        let remaining = sets.remove(SetName::Remaining);
        Claims { sets, direct, missing, remaining }
    }

    /// True when the replica lacks nothing of the cut at which it stands.
    pub(super) fn is_whole(&self) -> bool {
        self.direct.is_empty() && self.missing.is_empty() && self.remaining.is_none()
    }
}

/// What both sides agree on: what is pulled, and what the commit records.
pub(super) struct Agreed {
    pub(super) since: Option<CutId>,
    pub(super) pull: GrainSet,
    pub(super) record: GrainSet,
    pub(super) carries: Option<SessionId>,
}

impl Agreed {
    pub(super) fn everything(source: &Source, theirs: &Facts) -> Agreed {
        let full = GrainSet::full(source.volumes().geometry());
        let since =
            source.store().with(|s| grain::lineage::newest_common_cut(&s.lineage, &theirs.lineage));
        Agreed { since, pull: full.clone(), record: full, carries: None }
    }

    /// The delta of DESIGN.md section 3 from both sides' layers. No cut is made meanwhile.
    pub(super) async fn from_delta(
        source: &Source,
        theirs: &Facts,
        mut claims: Claims,
    ) -> Result<Agreed> {
        let lineage = source.store().with(|s| s.lineage.clone());
        let names: Vec<_> =
            source.store().with(|s| s.layers.closed.iter().map(|c| c.name.clone()).collect());
        let empty = GrainSet::new();
        let named = |names: &[grain::LayerName]| -> Vec<Layer<GrainSet>> {
            names.iter().map(|n| Layer { name: n.clone(), grains: GrainSet::new() }).collect()
        };
        let my_names = named(&names);
        let their_names: Vec<_> = theirs.layers.iter().map(|l| l.name.clone()).collect();
        let mut their_layers = named(&their_names);
        let remaining = claims.remaining.take().unwrap_or_default();
        let partial = || {
            theirs.copy.partial.map(|p| PartialSession {
                session: p.session,
                cut: p.cut,
                remaining: &remaining,
            })
        };
        let unknown = |e: grain::lineage::NoDelta| Error::Refused {
            rule: "delta".to_owned(),
            detail: format!("the delta cannot be known: {e:?}"),
        };
        let used = {
            let mine = Holding { layers: &my_names, ..plain(&lineage, &empty) };
            let other = Holding {
                layers: &their_layers,
                partial: partial(),
                fuzzy_end: theirs.copy.fuzzy_end,
                ..plain(&theirs.lineage, &empty)
            };
            layers_used(&mine, &other).map_err(unknown)?
        };
        for index in used.replica {
            let set = claims.sets.remove(SetName::Layer(index as u32)).ok_or_else(|| {
                Error::Peer(format!("its layer {index} is needed and was not sent"))
            })?;
            if let Some(layer) = their_layers.get_mut(index) {
                layer.grains = set;
            }
        }
        // Carrying over may need layers beyond those of the common cut; all of ours are at hand.
        let my_layers = source.keeper().load(&names).await?;
        let open = source.open_layer();
        let (direct, missing) = (claims.direct, claims.missing);
        let mine = Holding { layers: &my_layers, open: &open, ..plain(&lineage, &empty) };
        let other = Holding {
            layers: &their_layers,
            direct: &direct,
            missing: &missing,
            partial: partial(),
            fuzzy_end: theirs.copy.fuzzy_end,
            ..plain(&theirs.lineage, &empty)
        };
        let delta = delta(&mine, &other).map_err(unknown)?;
        let (since, carries) = (Some(delta.since), delta.carries);
        Ok(Agreed { since, pull: delta.pull, record: delta.record, carries })
    }
}

/// A side that brings nothing but its lineage.
pub(crate) fn plain<'a>(lineage: &'a grain::Lineage, empty: &'a GrainSet) -> Holding<'a, GrainSet> {
    Holding {
        lineage,
        layers: &[],
        open: empty,
        direct: empty,
        missing: empty,
        partial: None,
        fuzzy_end: None,
    }
}
