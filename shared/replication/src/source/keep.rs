//! What the source keeps for its peers, and what an acknowledgement lets go.

use std::collections::BTreeSet;
use std::rc::Rc;

use grain::lineage::{HeldCuts, drop_floor, droppable};
use grain::{CutId, GrainSet};

use super::Source;
use crate::map::MapKind;
use crate::state::{ClosedLayer, SetStage, State, StateStore};
use crate::track::{LayerKeeper, MapPool};
use crate::{Error, Result};

impl Source {
    /// The closed layers of this source.
    pub(crate) fn keeper(&self) -> LayerKeeper<'_> {
        LayerKeeper {
            pool: self.tracker.pool(),
            store: &self.store,
            history_bytes: self.settings.layer_history_bytes,
        }
    }

    /// Recomputes what some peer still needs.
    pub(super) async fn recount_owed(&self) -> Result<()> {
        let owed = Owed::count(self.tracker.pool(), &self.store).await?;
        *self.owed.borrow_mut() = owed;
        Ok(())
    }

    /// A peer has committed `cut` durably. Idempotent.
    pub async fn acknowledged(self: &Rc<Self>, identity: &str, cut: CutId) -> Result<()> {
        if !self.store.with(|s| s.lineage.contains(cut)) {
            return Err(Error::UnknownCut(cut));
        }
        self.store.change(|s| {
            let place = |cut: CutId| s.lineage.index_of(cut);
            let (to, peers) = (place(cut), &mut s.peers);
            for peer in peers.iter_mut().filter(|p| p.identity == identity) {
                // One that comes late moves nothing back.
                if to < peer.acked.and_then(place) {
                    return;
                }
                peer.acked = Some(cut);
                if let Some(at) = peer.published.iter().position(|c| *c == cut) {
                    peer.published.drain(..=at);
                }
            }
            self.renew_mark(s, identity, cut);
            forget_promotion(s);
        });
        self.store.save().await?;
        self.suspected.borrow_mut().clear();
        self.housekeep().await?;
        // A cut adds what it closes to what is owed: not while that is counted.
        let _one = self.cutting.lock().await;
        self.recount_owed().await
    }

    /// Merges layers, drops the oldest beyond the bound, prunes the lineage. Not while a cut is made.
    pub async fn housekeep(self: &Rc<Self>) -> Result<()> {
        let _one = self.cutting.lock().await;
        if !self.tracker.is_settled() {
            self.tracker.settle().await?;
        }
        let of_sessions: BTreeSet<CutId> = self
            .sessions
            .borrow()
            .iter()
            .filter(|s| s.ended().is_none())
            .map(|s| s.cut())
            .collect();
        let held = |s: &State| &held(s) | &of_sessions;
        self.keeper().tidy(held, floor).await
    }
}

/// A promotion that every peer has passed needs no telling any more.
pub(super) fn forget_promotion(s: &mut State) {
    let Some(at) = s.promoted.and_then(|cut| s.lineage.index_of(cut)) else { return };
    let past = |cut: Option<CutId>| cut.and_then(|cut| s.lineage.index_of(cut)) >= Some(at);
    if s.peers.iter().all(|peer| past(peer.acked)) {
        s.promoted = None;
    }
}

/// What is in the closed layers that peers still need.
#[derive(Default)]
pub(crate) struct Owed {
    /// What some peer needs.
    all: GrainSet,
    /// What each needs, by identity, where there is more than one.
    each: Vec<(String, GrainSet)>,
}

impl Owed {
    /// Reads the layers.
    pub async fn count(pool: &MapPool, store: &StateStore) -> Result<Owed> {
        let (needed, who) = store.with(|s| {
            let needs = |c: &ClosedLayer, acked: Vec<Option<CutId>>| {
                let floor = drop_floor(&s.lineage, acked);
                floor.is_none_or(|floor| !droppable(&c.name, &s.lineage, floor))
            };
            let by = |c: &ClosedLayer| -> Vec<usize> {
                let peers = s.peers.iter().enumerate();
                peers.filter(|(_, p)| needs(c, vec![p.acked])).map(|(i, _)| i).collect()
            };
            let some = |c: &&ClosedLayer| needs(c, s.peers.iter().map(|p| p.acked).collect());
            let needed: Vec<_> =
                s.layers.closed.iter().filter(some).map(|c| (c.at, by(c))).collect();
            let who = s.peers.iter().map(|p| p.identity.clone());
            (needed, who.filter(|_| s.peers.len() > 1).collect::<Vec<_>>())
        });
        let each = who.into_iter().map(|identity| (identity, GrainSet::new())).collect();
        let mut owed = Owed { all: GrainSet::new(), each };
        for (at, by) in needed {
            let layer = pool.read_map(at, MapKind::Layer).await?.set;
            for i in by {
                if let Some((_, set)) = owed.each.get_mut(i) {
                    set.union_with(&layer);
                }
            }
            owed.all.union_with(&layer);
        }
        Ok(owed)
    }

    /// A layer was closed: everybody needs it.
    pub fn union_with(&mut self, layer: &GrainSet) {
        self.all.union_with(layer);
        self.each.iter_mut().for_each(|(_, set)| set.union_with(layer));
    }

    /// What some peer needs.
    pub fn all(&self) -> &GrainSet {
        &self.all
    }

    /// What one peer needs.
    pub fn of(&self, identity: &str) -> &GrainSet {
        self.each.iter().find(|(of, _)| of == identity).map_or(&self.all, |(_, set)| set)
    }
}

/// Everyone who names a cut of this source.
fn held(s: &State) -> BTreeSet<CutId> {
    let mut held = HeldCuts::new(&s.lineage);
    for peer in &s.peers {
        if let Some(cut) = peer.acked {
            held.peer_position(cut);
        }
        for cut in &peer.published {
            held.published(*cut);
        }
        if let Some(mark) = &peer.alone {
            held.alone_mark(mark.since, mark.acked);
        }
    }
    for bookmark in &s.bookmarks {
        held.bookmark(bookmark.cut);
    }
    for set in s.sets.iter().filter(|set| set.stage != SetStage::Cancelled) {
        held.media_set(set.cut, set.end);
    }
    if let Some(cut) = s.synced {
        held.last_synced(cut);
    }
    for cut in s.promoted.into_iter().chain(s.layers.anchor) {
        held.promotion(cut);
    }
    held.cuts().clone()
}

/// Rule 4: the oldest cut that a peer stands at, a set copies that is under way or that no peer has
/// caught up with yet, or the base is synced at.
fn floor(s: &State) -> Option<CutId> {
    let place = |cut| s.lineage.index_of(cut);
    let caught_up = s.peers.iter().filter_map(|p| p.acked).filter_map(place).max();
    let sets = s.sets.iter().filter(|set| match set.stage {
        SetStage::Writing => true,
        SetStage::Finished => place(set.cut) > caught_up,
        SetStage::Cancelled => false,
    });
    let peers = s.peers.iter().map(|p| p.acked);
    drop_floor(&s.lineage, peers.chain(sets.map(|set| Some(set.cut))).chain([s.synced]))
}
