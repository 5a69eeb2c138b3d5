//! The operations that move data or roles: catch-up, promotion, drop and merge of layers.

use std::collections::BTreeSet;

use grain::CutId;
use grain::lineage::{
    CutReason, HeldCuts, commit, drop_floor, droppable, merge_neighbours, newest_common_cut,
    supplying_layers,
};

use super::site::{Mask, Partial, Peers, Role, mix};
use super::world::{Off, World};

impl World {
    pub fn drop_layers(&mut self, source: usize) {
        let s = &self.sites[source];
        let anchors = s.peers.acknowledged.values().copied().chain([s.past.synced]);
        let floor = match self.off {
            Off::DropFloor => s.head(),
            _ => drop_floor(&s.past.lineage, anchors),
        };
        let Some(floor) = floor else { return };
        let followers: Vec<usize> = s.peers.streams.keys().copied().collect();
        for site in followers.into_iter().chain([source]) {
            let past = &mut self.sites[site].past;
            let lineage = &past.lineage;
            past.layers.retain(|layer| !droppable(&layer.name, lineage, floor));
        }
        self.note(format!("{} drops layers", self.sites[source].name));
    }

    pub fn merge(&mut self, site: usize) {
        let s = &self.sites[site];
        let mut held = HeldCuts::new(&s.past.lineage);
        for cut in s.peers.acknowledged.values().flatten() {
            held.peer_position(*cut);
        }
        for (start, end) in self.media_cuts() {
            held.media_set(start, end);
        }
        for cut in s.peers.published.values().flatten() {
            if self.off != Off::PublishedHeld {
                held.published(*cut);
            }
        }
        if let Some(partial) = s.partial {
            held.session(partial.cut);
        }
        if let Some(cut) = s.fuzzy_end {
            held.fuzzy_end(cut);
        }
        if let Some(cut) = s.past.synced {
            held.last_synced(cut);
        }
        // And some more by chance, so that merges vary.
        for layer in &self.sites[site].past.layers {
            if self.rng.chance(30) {
                held.bookmark(layer.name.to);
            }
        }
        let past = &mut self.sites[site].past;
        let merged: BTreeSet<CutId> =
            merge_neighbours(&mut past.layers, held.cuts()).into_iter().collect();
        past.lineage.prune(|cut| !merged.contains(&cut));
        if !merged.is_empty() {
            self.note(format!("{} merges {} layers", self.sites[site].name, merged.len()));
        }
    }

    pub fn promote(&mut self, replica: usize) {
        self.tame = false;
        self.unlink(replica);
        if !self.sites[replica].is_whole() {
            return;
        }
        self.become_source(replica);
        self.cut(replica, CutReason::Promote, true, false);
        self.note(format!("{} promoted", self.sites[replica].name));
    }

    fn become_source(&mut self, replica: usize) {
        let peers = Peers::strangers(self.sites.len(), replica);
        let r = &mut self.sites[replica];
        (r.role, r.live, r.partial, r.peers) = (Role::Source, r.durable, None, peers);
    }

    /// Goes back to a cut that the layers still reach: a write of everything that changed since.
    pub fn promote_at_earlier_point(&mut self, replica: usize) -> Result<(), String> {
        self.tame = false;
        let r = &self.sites[replica];
        if !r.is_whole() || r.partial.is_some() {
            return Ok(());
        }
        let points: Vec<(CutId, Mask)> = r
            .past
            .lineage
            .cuts()
            .iter()
            .filter_map(|cut| Some((cut.id, self.written_since(replica, cut.id)?)))
            .filter(|(cut, _)| self.contents.contains_key(&(*cut, 0)))
            .collect();
        let Some((point, written)) = self.rng.pick(&points) else { return Ok(()) };
        let Some((want, _)) = self.contents.get(&(point, 0)).copied() else { return Ok(()) };
        self.unlink(replica);
        self.become_source(replica);
        if want != self.sites[replica].live {
            self.sites[replica].node = self.child_state(self.sites[replica].node);
        }
        let cut = self.cut(replica, CutReason::Promote, true, false);
        let r = &mut self.sites[replica];
        r.past.open.0 |= written.0;
        r.live = mix(r.live, want, written);
        r.durable = r.live;
        r.past.sequence += 1;
        self.contents.insert((cut, r.past.sequence), (r.live, r.node));
        let reached = r.live == want;
        self.note(format!("{} promoted at {point:?}", self.sites[replica].name));
        if reached { Ok(()) } else { Err("the promotion does not reach its point".into()) }
    }

    fn written_since(&self, site: usize, cut: CutId) -> Option<Mask> {
        let past = &self.sites[site].past;
        let names = past.layers.iter().map(|layer| &layer.name);
        let used = supplying_layers(&past.lineage, cut, names).ok()?;
        let closed = used.into_iter().map(|index| past.layers[index].grains);
        Some(closed.fold(past.open, |all, layer| Mask(all.0 | layer.0)))
    }

    pub fn catch_up(&mut self, source: usize, replica: usize) {
        let by_itself = self.sites[replica].role == Role::Replica && self.in_past(source, replica);
        if !by_itself && self.rng.chance(50) {
            return;
        }
        let s = &self.sites[source];
        if self.need(source, replica).is_err() || !s.is_whole() || s.partial.is_some() {
            return;
        }
        self.tame &= by_itself;
        self.follow(source, replica);
        let cut = self.cut(source, CutReason::Cycle, true, false);
        self.sites[source].peers.published.entry(replica).or_default().push(cut);
        self.copy(source, replica, cut);
    }

    /// The replica ends what it did before; a source that lost becomes a replica.
    fn follow(&mut self, source: usize, replica: usize) {
        let forced = if self.sites[replica].role == Role::Source { " by force" } else { "" };
        self.stop_streams_to(replica);
        self.sites[replica].received.clear();
        if self.sites[replica].role == Role::Source {
            self.unlink(replica);
            let r = &mut self.sites[replica];
            if self.off != Off::LoserSyncs {
                r.durable = r.live;
            }
            (r.role, r.live) = (Role::Replica, r.durable);
        }
        let names = (self.sites[source].name, self.sites[replica].name);
        self.note(format!("{} follows {}{forced}", names.1, names.0));
    }

    /// A copy session of `cut`: whole with its commit, or broken on the way; into the journal, or
    /// directly into the base.
    fn copy(&mut self, source: usize, replica: usize, cut: CutId) {
        let Ok(delta) = self.need(source, replica) else { return };
        let whole = self.rng.chance(65);
        let take = if whole { delta.pull } else { Mask(delta.pull.0 & self.rng.mask().0) };
        let values = self.sites[source].live;
        let known = |p: &Partial| self.sites[source].past.lineage.contains(p.cut);
        let carried = self.sites[replica].partial.filter(known);
        let was_direct = self.sites[replica].partial.is_some_and(|partial| partial.direct);
        let direct = self.rng.chance(30) || was_direct;
        let r = &mut self.sites[replica];
        let (before, had) = carried.map_or((r.durable, Mask(0)), |p| (p.values, p.got));
        let got = Mask(had.0 | take.0);
        let arrived = mix(before, values, take);
        if direct {
            if self.off != Off::DirectRecorded {
                r.past.direct.0 |= delta.record.0 | got.0;
            }
            r.durable = mix(r.durable, arrived, got);
            r.live = r.durable;
        }
        if !whole {
            let remaining = Mask(delta.pull.0 & !take.0);
            r.partial = Some(Partial { cut, remaining, got, values: arrived, direct });
            let taken = take.0;
            return self.note(format!("  broken after {taken:03b}, direct {direct}"));
        }
        r.durable = if direct { r.durable } else { arrived };
        r.live = r.durable;
        let record = if self.off == Off::UnionInCommit { take } else { delta.record };
        self.commit(source, replica, cut, delta.since, record);
        self.note(format!("  commit of {cut:?}: {:03b}, direct {direct}", take.0));
        self.after_commit(source, replica);
    }

    fn commit(&mut self, source: usize, replica: usize, cut: CutId, since: CutId, record: Mask) {
        let s = self.sites[source].clone();
        let adopted = commit(&s.past.lineage, since, cut, record).expect("the source made the cut");
        let r = &mut self.sites[replica];
        r.past.lineage = adopted.lineage;
        r.past.layers.extend(adopted.layer);
        (r.past.open, r.past.direct, r.past.sequence) = (Mask(0), Mask(0), 0);
        (r.partial, r.missing, r.fuzzy_end) = (None, Mask(0), None);
        (r.node, r.peers) = (s.node, Peers::default());
        let common = newest_common_cut(&s.past.lineage, &r.past.lineage);
        debug_assert_eq!(common, Some(cut));
    }

    /// The acknowledgement may be lost; if not, a stream may begin.
    fn after_commit(&mut self, source: usize, replica: usize) {
        self.sites[source].peers.ever.insert(replica);
        if self.rng.chance(15) {
            return self.note("  acknowledgement lost".into());
        }
        self.acknowledge(source, replica);
        if self.rng.chance(60) {
            self.sites[source].peers.streams.insert(replica, Vec::new());
            self.note("  stream".into());
        }
    }
}
