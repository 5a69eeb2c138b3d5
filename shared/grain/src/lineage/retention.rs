//! What is kept: what a commit records (rule 3), what may be dropped (rule 4), which cuts hold layers
//! apart (rule 5), and what an unclean start takes up again (rule 6).

use std::collections::BTreeSet;

use super::{Layer, LayerName, Lineage, Union};
use crate::CutId;

/// What the commit of a catch-up leaves at the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit<S> {
    /// Its chain from now on: the source's, up to the committed cut.
    pub lineage: Lineage,
    /// The layer that it adds; `None` when the committed cut is the common one.
    pub layer: Option<Layer<S>>,
}

/// Rule 3: a commit of `cut` records the whole union that was agreed since the common cut (`record` of
/// [`Delta`](super::Delta)), not only what was pulled, and adopts the source's lineage. The replica's
/// own layers stay, its open layer and its record of a direct catch-up begin anew: they are part of
/// the union. `None` when the source's chain does not lead from `since` to `cut`.
pub fn commit<S>(source: &Lineage, since: CutId, cut: CutId, record: S) -> Option<Commit<S>> {
    let lineage = source.up_to(cut)?;
    let first = lineage.index_of(since)?;
    let name = LayerName::along(lineage.cuts().iter().skip(first).map(|cut| cut.id));
    let layer = name.map(|name| Layer { name, grains: record });
    Some(Commit { lineage, layer })
}

/// Rule 4: the cut up to which a source may drop layers, the oldest of what anyone needs. `anchors` are
/// each peer's acknowledged cut (`None`: it never acknowledged one), the cut of every set under way,
/// and the last cut before which the base was synced. `None`, and so nothing to drop, when one of them
/// is not known in the chain.
pub fn drop_floor(
    lineage: &Lineage,
    anchors: impl IntoIterator<Item = Option<CutId>>,
) -> Option<CutId> {
    let mut floor = None;
    for anchor in anchors {
        let place = lineage.index_of(anchor?)?;
        floor = Some(floor.map_or(place, |floor: usize| floor.min(place)));
    }
    lineage.cuts().get(floor?).map(|cut| cut.id)
}

/// Rule 4: whether a layer ends at or before the floor. A replica asks with the floor that its source
/// told it. A layer of another branch has no place in the chain and is not dropped by this rule.
pub fn droppable(name: &LayerName, lineage: &Lineage, floor: CutId) -> bool {
    match (lineage.index_of(name.to), lineage.index_of(floor)) {
        (Some(to), Some(floor)) => to <= floor,
        _ => false,
    }
}

/// Everyone who names a cut, so that it may be neither merged away nor pruned (rule 5).
#[derive(Clone, Debug, Default)]
pub struct HeldCuts {
    held: BTreeSet<CutId>,
}

impl HeldCuts {
    /// Nobody yet; the head of `lineage` is held.
    pub fn new(lineage: &Lineage) -> HeldCuts {
        HeldCuts { held: lineage.head().map(|cut| cut.id).into_iter().collect() }
    }

    /// The position of a peer, as it last acknowledged it.
    pub fn peer_position(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// The start or the end of a media set.
    pub fn media_set(&mut self, start: CutId, end: Option<CutId>) -> &mut Self {
        self.held.extend(end);
        self.hold(start)
    }

    /// A bookmark.
    pub fn bookmark(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// Published to a peer, which has not acknowledged it or a later one.
    pub fn published(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// A copy session that runs or broke off.
    pub fn session(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// An alone mark: since when, and what the peer had last acknowledged.
    pub fn alone_mark(&mut self, since: CutId, acknowledged: Option<CutId>) -> &mut Self {
        self.held.extend(acknowledged);
        self.hold(since)
    }

    /// The last cut before which the base was synced.
    pub fn last_synced(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// The cut of a promotion, as long as a peer may not know it.
    pub fn promotion(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// The end cut of a fuzzy seed that no catch-up has passed yet.
    pub fn fuzzy_end(&mut self, cut: CutId) -> &mut Self {
        self.hold(cut)
    }

    /// The cuts at which layers begin and end: these stay in the lineage, but may be merged away.
    pub fn layer_ends<'a>(&mut self, names: impl IntoIterator<Item = &'a LayerName>) -> &mut Self {
        self.held.extend(names.into_iter().flat_map(|name| [name.from, name.to]));
        self
    }

    /// All of them, for [`merge_neighbours`](super::merge_neighbours) and [`Lineage::prune`].
    pub fn cuts(&self) -> &BTreeSet<CutId> {
        &self.held
    }

    fn hold(&mut self, cut: CutId) -> &mut Self {
        self.held.insert(cut);
        self
    }
}

/// Rule 6: what a source that starts after an unclean stop, or whose base sync failed, ORs into its new
/// open layer: every layer that ends after the last cut before which its base was synced, all of its
/// chain's when there is none. `lineage` already ends with the cut of this start.
pub fn unclean_start_union<S: Union>(
    lineage: &Lineage,
    layers: &[Layer<S>],
    last_synced: Option<CutId>,
) -> S {
    let places = lineage.places();
    let synced = last_synced.and_then(|cut| places.get(&cut));
    let mut union = S::default();
    for layer in layers {
        if let Some(to) = places.get(&layer.name.to)
            && synced.is_none_or(|synced| to > synced)
        {
            union.union_with(&layer.grains);
        }
    }
    union
}
