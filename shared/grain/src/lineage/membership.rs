//! Whether a replica's position lies in a source's past (rule 8).

use super::{Grains, Layer, Lineage, Position, supplying_layers};
use crate::CutId;

/// Where a position stands to a source's lineage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Membership {
    /// In its past: what the source has since can be pulled.
    Member,
    /// The source does not know the cut.
    UnknownCut,
    /// The source knows the cut, but its epoch ended at `end`, before this position.
    SequenceBeyond {
        /// The last sequence number of the epoch at the source.
        end: u64,
    },
    /// The source does not know how far the epoch went (an unclean stop). It is a member only if
    /// [`open_layer_within`] says so; until then it is to be taken for a fork.
    EndUnknown,
}

/// Rule 8 as far as names and numbers go. `source_sequence` is the source's own sequence number in its
/// open epoch.
pub fn membership(position: Position, source: &Lineage, source_sequence: u64) -> Membership {
    let Some(index) = source.index_of(position.cut) else {
        return Membership::UnknownCut;
    };
    if position.sequence == 0 {
        return Membership::Member;
    }
    let end = match index + 1 == source.cuts().len() {
        true => Some(source_sequence),
        false => source.end_of(position.cut),
    };
    match end {
        None => Membership::EndUnknown,
        Some(end) if position.sequence <= end => Membership::Member,
        Some(end) => Membership::SequenceBeyond { end },
    }
}

/// Rule 8 where the end of the epoch opened by `cut` is not known: whether all that the replica wrote in
/// it stands in the source's own layers of that epoch.
pub fn open_layer_within<S: Grains>(
    cut: CutId,
    replica_open: &S,
    source: &Lineage,
    source_layers: &[Layer<S>],
) -> bool {
    // The chain up to the end of that epoch, so that later gaps do not matter.
    let next = source.index_of(cut).and_then(|index| source.cuts().get(index + 1));
    let Some(chain) = next.and_then(|next| source.up_to(next.id)) else { return false };
    let names = source_layers.iter().map(|layer| &layer.name);
    let Ok(used) = supplying_layers(&chain, cut, names) else { return false };
    let mut known = S::default();
    for layer in used.into_iter().filter_map(|index| source_layers.get(index)) {
        known.union_with(&layer.grains);
    }
    replica_open.is_subset(&known)
}
