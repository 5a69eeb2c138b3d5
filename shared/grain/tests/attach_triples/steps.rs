//! What a site does by itself, and what two do together.

use std::borrow::Cow;

use grain::Lineage;
use grain::attach::{Facts, Means, OpenWithin, Overwrite, Question, Side, Verdict, decide};
use grain::lineage::{
    Cut, CutReason, HeldCuts, Layer, LayerName, commit, delta, drop_floor, droppable,
    merge_neighbours, open_layer_within, supplying_layers, unclean_start_union,
};

use super::site::{Point, Set, Site, Written, bit, grains, members};
use super::space::{Keep, Off, Space};

impl Site {
    /// A replica becomes a source. As agents do, it takes the one that it followed to hold its newest cut: that
    /// one made it (but not where this site gave way and has taken nothing since; see
    /// [`Outcome::NameForgottenAway`](super::oracle::Outcome)).
    pub fn promote(&mut self, off: Off) {
        let end = self.sequence;
        if let Some(source) = self.follows.take() {
            let head = self.head();
            let peer = &mut self.peers[source];
            (peer.known, peer.acknowledged, peer.published, peer.alone) = (true, head, 0, None);
        }
        (self.serves, self.gave_way) = (true, false);
        self.promoted = Some(self.cut(CutReason::Promote, Some(end)));
        if off == Off::Anchor {
            self.anchor = None;
        }
        self.sync();
    }

    /// The points to which it can go back: their places in the chain, and all that was written since.
    pub fn earlier_points(&self) -> Vec<(usize, Set)> {
        let cuts = self.lineage.cuts().iter().enumerate();
        let since = cuts.filter_map(|(place, cut)| Some((place, self.written_since(cut.id)?)));
        since.filter(|(_, written)| *written != 0).collect()
    }

    fn written_since(&self, cut: grain::CutId) -> Option<Set> {
        let names = self.layers.iter().map(|layer| &layer.name);
        let used = supplying_layers(&self.lineage, cut, names).ok()?;
        let closed = used.into_iter().map(|index| self.layers[index].grains.grains);
        Some(closed.fold(self.open, |all, layer| all | layer))
    }

    /// A promotion at an earlier point: going back is a write of all that changed since.
    pub fn promote_at(&mut self, place: usize, off: Off) -> Result<(), String> {
        let cut = self.lineage.cuts()[place].id;
        let (Some(written), Some(point)) = (self.written_since(cut), self.point(cut)) else {
            return Err(format!("no way back to {cut:?}"));
        };
        let want = point.truth.content;
        let left = self.truth.content & !written | want & written;
        if left != want {
            return Err(format!("the layers do not lead back to {cut:?}"));
        }
        self.promote(off);
        let number = self.number_of_write();
        self.put(number, want, written);
        Ok(())
    }

    /// A source becomes a replica; its layers say what has to be pulled.
    pub fn give_way(&mut self, to: usize) {
        self.sync();
        self.left |= self.truth.knows;
        self.unlink();
        self.cut(CutReason::Handover, Some(self.sequence));
        (self.serves, self.gave_way, self.promoted, self.anchor) = (false, true, None, None);
        (self.follows, self.told) = (Some(to), None);
        for peer in &mut self.peers {
            (peer.published, peer.alone) = (0, None);
        }
    }

    /// It comes up after an unclean stop, which took what was not synced from its base, or nothing.
    pub fn restart(&mut self, loses: bool, off: Off) {
        if !self.serves {
            return;
        }
        if let (true, Some((_, then))) = (loses, self.synced) {
            self.lost |= self.truth.seen & !then.seen;
            (self.truth.content, self.truth.seen) = (then.content, then.seen);
        }
        self.unlink();
        if off == Off::StartCut {
            return;
        }
        self.cut(CutReason::Start, None);
        if off != Off::UncleanUnion {
            let synced = self.synced.map(|(cut, _)| cut);
            self.open |= unclean_start_union(&self.lineage, &self.layers, synced).grains;
        }
    }

    /// It streams to nobody any more.
    fn unlink(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.streams = false);
    }

    /// Merges and drops layers, and prunes the chain: what an agent does after every acknowledgement.
    fn tidy(&mut self, keep: Keep) {
        if keep == Keep::AllApart {
            return;
        }
        let mut held = HeldCuts::new(&self.lineage);
        for peer in self.peers.iter().filter(|_| self.serves) {
            peer.acknowledged.map(|cut| held.peer_position(cut));
            for cut in members(peer.published) {
                held.published(cut);
            }
            peer.alone.map(|(since, acknowledged)| held.alone_mark(since, acknowledged));
        }
        self.synced.filter(|_| self.serves).map(|(cut, _)| held.last_synced(cut));
        self.promoted.map(|cut| held.promotion(cut));
        self.anchor.map(|cut| held.peer_position(cut));
        merge_neighbours(&mut self.layers, held.cuts());
        let floor = match self.serves {
            true => {
                let synced = self.synced.map(|(cut, _)| cut);
                self.floor().and_then(|floor| drop_floor(&self.lineage, [Some(floor), synced]))
            }
            false => self.anchor,
        };
        if let (Keep::WhatIsNeeded, Some(floor)) = (keep, floor) {
            let lineage = &self.lineage;
            self.layers.retain(|layer| !droppable(&layer.name, lineage, floor));
        }
        held.layer_ends(self.layers.iter().map(|layer| &layer.name));
        self.lineage.prune(|cut| held.cuts().contains(&cut));
        let left = self.names();
        self.points.retain(|point| bit(point.cut) & left != 0);
    }

    /// How far its peers need layers.
    fn floor(&self) -> Option<grain::CutId> {
        let peers = self.peers.iter().filter(|peer| peer.known);
        drop_floor(&self.lineage, peers.map(|peer| peer.acknowledged))
    }
}

/// The verdict of two sites, with the answer to its question where it has one.
pub fn verdict(mine: &Site, theirs: &Site, off: Off) -> Verdict {
    let (mut a, mut b) = (told(mine, theirs, off), told(theirs, mine, off));
    let verdict = decide(&a, &b);
    let Some(Question::OpenLayer { replica, position }) = verdict.question else {
        return verdict;
    };
    let (source, asks, facts) = match replica {
        Side::Theirs => (mine, theirs, &mut a),
        Side::Mine => (theirs, mine, &mut b),
    };
    let open = grains(asks.open);
    let within = open_layer_within(position.cut, &open, &source.lineage, &source.layers);
    facts.open_within = Some(OpenWithin { position, within: within || off == Off::Sequences });
    decide(&a, &b)
}

/// What a site tells another one. A rule that is off is off here, too.
fn told(site: &Site, to: &Site, off: Off) -> Facts {
    let mut facts = site.facts(to.me, &layers(site, to, off));
    if off == Off::Sequences && site.serves {
        facts.lineage = Lineage::new();
        for cut in site.lineage.cuts() {
            let parent = facts.lineage.head().map(|head| head.id);
            facts.lineage.push(Cut { parent, ..*cut }, None).expect("a chain");
        }
        facts.sequence = facts.sequence.max(to.sequence);
    }
    facts
}

/// What the loser pulls, and what its commit records.
pub fn pull(source: &Site, replica: &Site, off: Off) -> Result<(Set, Written), String> {
    let layers = [layers(source, replica, off), layers(replica, source, off)];
    let (nothing, opens) = (Written::default(), [source, replica].map(|site| grains(site.open)));
    let from = source.holding(&layers[0], &opens[0], &nothing);
    let to = replica.holding(&layers[1], &opens[1], &nothing);
    let delta = delta(&from, &to).map_err(|why| format!("{why:?}"))?;
    Ok((delta.pull.grains, delta.record))
}

/// The layers of a site as an attach with `other` sees them.
fn layers<'a>(site: &'a Site, other: &Site, off: Off) -> Cow<'a, [Layer<Written>]> {
    if off != Off::BothEnds {
        return Cow::Borrowed(&site.layers);
    }
    let mut layers = site.layers.clone();
    for pair in [site, other].iter().flat_map(|s| s.lineage.cuts().windows(2)) {
        for layer in site.layers.iter().filter(|layer| layer.name.from == pair[0].id) {
            let name = LayerName::new(pair[0].id, pair[1].id);
            layers.push(Layer { name, grains: layer.grains });
        }
    }
    Cow::Owned(layers)
}

/// An attach with everything that follows from it: the operator names the replica as the loser where one has
/// to be named. `heard` says whether the source hears of the commit. `None` where nothing may move.
pub fn attach(
    source: &Site,
    replica: &Site,
    heard: bool,
    space: &Space,
) -> Option<Result<(Site, Site), String>> {
    if !source.serves || replica.serves {
        return None;
    }
    let verdict = verdict(source, replica, space.off);
    let may = match verdict.overwrite {
        Overwrite::Nobody => false,
        Overwrite::ByItself { loser } => loser == Side::Theirs,
        Overwrite::Named { losers, .. } => losers.includes(Side::Theirs),
    };
    may.then(|| carry_out(&verdict, source, replica, heard, space))
}

fn carry_out(
    verdict: &Verdict,
    source: &Site,
    replica: &Site,
    heard: bool,
    space: &Space,
) -> Result<(Site, Site), String> {
    let (mut s, mut r) = (source.clone(), replica.clone());
    if s.sequence > 0 || s.open != 0 {
        s.cut(CutReason::Cycle, Some(source.sequence));
    }
    s.sync();
    let cut = s.head().ok_or("a source without a cut")?;
    let (pulled, mut record) = match verdict.means {
        Means::Delta { .. } => pull(&s, &r, space.off)?,
        Means::Compare | Means::FullCopyOnRequest => (Set::MAX, grains(Set::MAX)),
        Means::Nothing | Means::Refuse => return Err(format!("nothing to carry out: {verdict:?}")),
    };
    if space.off == Off::UnionInCommit {
        record.grains = s.truth.content ^ r.truth.content;
    }
    let content = r.truth.content & !pulled | s.truth.content & pulled;
    if content != s.truth.content {
        return Err(format!("{:b} is left", content ^ s.truth.content));
    }
    let common = verdict.common;
    if let Some(common) = common {
        let since = s.point(common).map_or(0, |point| point.truth.knows);
        record.covers = s.truth.knows & !since;
        let adopted = commit(&s.lineage, common, cut, record).ok_or("no way to the cut")?;
        let gone = |layer: &Layer<Written>| {
            r.lineage.index_of(layer.name.to) > r.lineage.index_of(common)
                && !s.lineage.contains(layer.name.to)
        };
        let kept = r.layers.iter().filter(|layer| !r.gave_way || !gone(layer)).cloned();
        let mut layers: Vec<_> = kept.collect();
        layers.extend(adopted.layer.filter(|layer| !r.layers.contains(layer)));
        (r.layers, r.lineage) = (layers, adopted.lineage);
    } else {
        r.layers.clear();
        r.lineage = s.lineage.up_to(cut).ok_or("no such cut")?;
    }
    (r.open, r.sequence, r.gave_way) = (0, 0, false);
    r.left |= s.left;
    r.put_back = s.put_back;
    (r.follows, r.truth, r.lost, r.points) = (Some(s.me), s.truth, s.lost, s.points.clone());
    let peer = &mut s.peers[r.me];
    (peer.known, peer.streams) = (true, false);
    peer.published |= bit(cut);
    if heard {
        peer.streams = space.streams;
        (peer.acknowledged, peer.published, peer.alone) = (Some(cut), 0, None);
        s.tidy(space.keep);
        r.anchor = s.floor();
        r.told = r.anchor;
        r.tidy(space.keep);
    }
    Ok((s, r))
}

/// The replica takes the next record of the stream: a write, or the cut that ends the epoch. `None` where it
/// has everything.
pub fn receive(source: &Site, replica: &Site) -> Option<(Site, Site)> {
    let place = source.lineage.index_of(replica.head()?)?;
    let wrote = source.point(replica.head()?)?.wrote;
    let next = (0..Set::BITS).filter(|n| wrote >> n & 1 == 1).nth(replica.sequence as usize);
    let (mut s, mut r) = (source.clone(), replica.clone());
    if let Some(number) = next {
        r.put(1 << number, r.truth.content | 1 << number, 1 << number);
        return Some((s, r));
    }
    let cut = *source.lineage.cuts().get(place + 1)?;
    let from = replica.head()?;
    let written = Written { grains: r.open, covers: bit(cut.id) };
    r.layers.push(Layer { name: LayerName::new(from, cut.id), grains: written });
    r.lineage.push(cut, Some(r.sequence)).ok()?;
    (r.open, r.sequence) = (0, 0);
    r.truth.knows |= bit(cut.id);
    r.points.push(Point { cut: cut.id, truth: r.truth, wrote: 0 });
    let peer = &mut s.peers[r.me];
    peer.acknowledged = Some(cut.id);
    peer.published &= !r.truth.knows;
    Some((s, r))
}
