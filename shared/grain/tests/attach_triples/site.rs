//! One of the three sites: what the rules know of it, and beside that what is really there.
//!
//! Names are given by whoever makes them (a cut or a write is the n-th of its site), so that histories
//! which differ in the order of unrelated steps alone come to the same sites. Each write fills a grain
//! of its own: a layer that a delta leaves out is a difference that is left.

use std::hash::{Hash, Hasher};

use grain::attach::{AloneMark, CopyFacts, Facts, Role};
use grain::lineage::{Count, Cut, CutReason, Grains, Holding, Layer, LayerName, Union};
use grain::{CutId, Geometry, GrainSize, Lineage, Position, RelationshipId, VolumeShape};

/// The sites of a history.
pub const SITES: usize = 3;
/// Their letters.
pub const LETTERS: [char; SITES] = ['A', 'B', 'C'];
/// The most cuts that one site makes.
const MOST_CUTS: u8 = 16;
/// The most writes that one site makes.
const MOST_WRITES: u8 = 10;

/// A set of grains, or of the writes that filled them.
pub type Set = u32;
/// A set of cuts.
pub type Cuts = u64;

/// What a layer holds: grains for the rules, and which epochs it really covers (each is named by the cut
/// that closed it) for the oracle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Written {
    pub grains: Set,
    pub covers: Cuts,
}

impl Union for Written {
    fn union_with(&mut self, other: &Written) {
        self.grains |= other.grains;
        self.covers |= other.covers;
    }
}

impl Grains for Written {
    fn is_subset(&self, other: &Written) -> bool {
        self.grains & !other.grains == 0
    }
}

pub fn grains(grains: Set) -> Written {
    Written { grains, covers: 0 }
}

/// What is really at a site. No rule sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Truth {
    /// The grains that hold their write; the others are as in the beginning.
    pub content: Set,
    /// The writes that led here, in whatever grains they are.
    pub seen: Set,
    /// The cuts that led here, also those whose names were forgotten.
    pub knows: Cuts,
}

/// What was really there at a cut, and what was written in the epoch after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    pub cut: CutId,
    pub truth: Truth,
    pub wrote: Set,
}

/// What a source knows of another site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    pub known: bool,
    pub acknowledged: Option<CutId>,
    /// Told to it, and not acknowledged.
    pub published: Cuts,
    /// Whether it streams to it.
    pub streams: bool,
    /// Since when it was alone, and what the peer had acknowledged then.
    pub alone: Option<(CutId, Option<CutId>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    pub me: usize,
    pub serves: bool,
    pub lineage: Lineage,
    pub layers: Vec<Layer<Written>>,
    pub open: Set,
    pub sequence: u64,
    pub promoted: Option<CutId>,
    /// A cut that stays named: how far its source said that layers are needed.
    pub anchor: Option<CutId>,
    /// What the source really said.
    pub told: Option<CutId>,
    /// The source that it last took something from.
    pub follows: Option<usize>,
    /// It was a source, and what it had alone has not been overwritten yet.
    pub gave_way: bool,
    pub peers: [Peer; SITES],
    /// The cuts that were known when it, or whom it took from, gave way.
    pub left: Cuts,
    /// Its machine, or that of whom it took all of it from, was put back to an older image.
    pub put_back: bool,
    /// The last cut before which the base was synced, and what was there then.
    pub synced: Option<(CutId, Truth)>,
    pub truth: Truth,
    /// Writes that a power cut took from the base; their grains stand in the layers.
    pub lost: Set,
    pub points: Vec<Point>,
    pub made: (u8, u8),
}

impl Hash for Site {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.me, self.serves, self.open, self.sequence, self.promoted).hash(state);
        (self.truth, self.lost, self.made, self.peers, &self.points).hash(state);
        (self.anchor, self.told, self.follows, self.gave_way, self.left, self.synced).hash(state);
        self.lineage.ends().hash(state);
        self.layers.iter().for_each(|layer| (&layer.name, layer.grains).hash(state));
    }
}

/// The place of a cut in a set of cuts.
pub fn bit(cut: CutId) -> Cuts {
    1 << cut.to_bytes()[0]
}

/// The site that made a cut.
pub fn maker(cut: CutId) -> usize {
    usize::from(cut.to_bytes()[0] / MOST_CUTS)
}

/// The cuts of a set.
pub fn members(cuts: Cuts) -> impl Iterator<Item = CutId> {
    (0..Cuts::BITS as u8).filter(move |n| cuts >> n & 1 == 1).map(|n| CutId::from_bytes([n; 16]))
}

impl Site {
    pub fn empty(me: usize) -> Site {
        Site {
            me,
            serves: false,
            lineage: Lineage::new(),
            layers: Vec::new(),
            open: 0,
            sequence: 0,
            promoted: None,
            anchor: None,
            told: None,
            follows: None,
            gave_way: false,
            left: 0,
            put_back: false,
            peers: [Peer::default(); SITES],
            synced: None,
            truth: Truth::default(),
            lost: 0,
            points: Vec::new(),
            made: (0, 0),
        }
    }

    /// A source that has just begun, with these peers.
    pub fn source(me: usize, peers: &[usize]) -> Site {
        let mut site = Site { serves: true, ..Site::empty(me) };
        peers.iter().for_each(|peer| site.peers[*peer].known = true);
        site.cut(CutReason::Start, Some(0));
        site.sync();
        site
    }

    /// A replica that was seeded from a source and has said so.
    pub fn seeded(me: usize, source: &mut Site) -> Site {
        source.peers[me].acknowledged = source.head();
        Site {
            lineage: source.lineage.clone(),
            truth: source.truth,
            points: source.points.clone(),
            follows: Some(source.me),
            ..Site::empty(me)
        }
    }

    pub fn head(&self) -> Option<CutId> {
        self.lineage.head().map(|cut| cut.id)
    }

    pub fn point(&self, cut: CutId) -> Option<&Point> {
        self.points.iter().find(|point| point.cut == cut)
    }

    /// The cuts in its chain.
    pub fn names(&self) -> Cuts {
        self.lineage.cuts().iter().fold(0, |all, cut| all | bit(cut.id))
    }

    /// Makes a cut; `end` is how far the epoch before went, where that is known.
    pub fn cut(&mut self, reason: CutReason, end: Option<u64>) -> CutId {
        let number = self.me as u8 * MOST_CUTS + self.made.0;
        self.made.0 += 1;
        assert!(self.made.0 < MOST_CUTS, "more cuts than there are names");
        let (id, parent) = (CutId::from_bytes([number; 16]), self.head());
        if let Some(from) = parent {
            let written = Written { grains: self.open, covers: bit(id) };
            self.layers.push(Layer { name: LayerName::new(from, id), grains: written });
        }
        let cut = Cut { id, parent, unix_ms: 0, reason };
        self.lineage.push(cut, end).expect("a fresh cut on the head");
        (self.open, self.sequence) = (0, 0);
        self.truth.knows |= bit(id);
        self.points.push(Point { cut: id, truth: self.truth, wrote: 0 });
        for peer in self.peers.iter_mut().filter(|peer| peer.streams) {
            peer.published |= bit(id);
        }
        id
    }

    pub fn sync(&mut self) {
        self.synced = self.head().map(|head| (head, self.truth));
    }

    /// Writes a grain that nobody wrote before.
    pub fn write(&mut self) {
        let number = self.number_of_write();
        self.put(number, self.truth.content | number, number);
    }

    /// The number of its next write. A peer to which it does not stream is told later that this was done
    /// without it.
    pub fn number_of_write(&mut self) -> Set {
        let head = self.head();
        for peer in self.peers.iter_mut().filter(|peer| peer.known && !peer.streams) {
            peer.alone = peer.alone.or(head.map(|head| (head, peer.acknowledged)));
        }
        let number = self.me as u8 * MOST_WRITES + self.made.1;
        self.made.1 += 1;
        assert!(self.made.1 <= MOST_WRITES, "more writes than there are grains");
        1 << number
    }

    /// One write: its number, what is there afterwards, the grains that it changes.
    pub fn put(&mut self, number: Set, content: Set, grains: Set) {
        self.open |= grains;
        self.sequence += 1;
        self.truth.seen |= number;
        self.truth.content = content;
        if let Some(point) = self.points.last_mut() {
            point.wrote |= number;
        }
    }

    /// What it brings to a delta.
    pub fn holding<'a>(
        &'a self,
        layers: &'a [Layer<Written>],
        open: &'a Written,
        nothing: &'a Written,
    ) -> Holding<'a, Written> {
        Holding {
            lineage: &self.lineage,
            layers,
            open,
            direct: nothing,
            missing: nothing,
            partial: None,
            fuzzy_end: None,
        }
    }

    /// What it tells another site, of these layers.
    pub fn facts(&self, peer: usize, layers: &[Layer<Written>]) -> Facts {
        let volumes = vec![VolumeShape { alias: "disk".into(), bytes: 1000 * 4096 }];
        let count = |set: Set| Count(u64::from(set.count_ones()));
        let layer = |layer: &Layer<Written>| Layer {
            name: layer.name.clone(),
            grains: count(layer.grains.grains),
        };
        let mark = |(since, acknowledged): (CutId, Option<CutId>)| AloneMark {
            since,
            acknowledged: acknowledged.map(|cut| Position { cut, sequence: 0 }),
            unix_ms: 0,
        };
        Facts {
            relationship: RelationshipId::from_bytes([1; 16]),
            geometry: Geometry { grain: GrainSize::MIN, volumes },
            role: if self.serves { Role::Source } else { Role::Replica },
            suspect: false,
            relinquished: false,
            promoted: self.promoted.filter(|_| self.serves),
            alone: self.peers[peer].alone.filter(|_| self.serves).map(mark),
            lineage: self.lineage.clone(),
            sequence: self.sequence,
            layers: layers.iter().map(layer).collect(),
            open_grains: count(self.open).0,
            copy: CopyFacts { consistent: self.head().is_some(), ..CopyFacts::default() },
            open_within: None,
        }
    }
}
