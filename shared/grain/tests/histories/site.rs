//! One site of the random histories: what it holds, on stable storage and not, and what it knows.

use std::collections::{BTreeMap, BTreeSet};

use grain::lineage::{Count, Grains, Holding, PartialSession, Union};
use grain::{CutId, Layer, Lineage, Position, SessionId};

/// Grains of the one volume.
pub const GRAINS: usize = 3;
/// All of them.
pub const ALL: u8 = (1 << GRAINS) - 1;

/// The content of all grains; every write brings a value that was never there before.
pub type Values = [i64; GRAINS];

/// A set of grains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mask(pub u8);

impl Union for Mask {
    fn union_with(&mut self, other: &Mask) {
        self.0 |= other.0;
    }
}

impl Grains for Mask {
    fn is_subset(&self, other: &Mask) -> bool {
        self.0 & !other.0 == 0
    }
}

impl Mask {
    pub fn has(self, grain: usize) -> bool {
        self.0 >> grain & 1 == 1
    }

    pub fn count(self) -> Count {
        Count(u64::from(self.0.count_ones()))
    }
}

/// Takes the grains of `mask` from `from`, the others from `to`.
pub fn mix(to: Values, from: Values, mask: Mask) -> Values {
    std::array::from_fn(|g| if mask.has(g) { from[g] } else { to[g] })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Off,
    Source,
    Replica,
}

/// What travels in a stream, in order.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    Write { sequence: u64, grain: usize, value: i64, node: usize },
    Cut(CutId),
}

/// A copy session that broke before its commit.
#[derive(Clone, Copy, Debug)]
pub struct Partial {
    pub cut: CutId,
    pub remaining: Mask,
    pub got: Mask,
    pub values: Values,
    pub direct: bool,
}

#[derive(Clone, Debug)]
pub struct Site {
    pub name: char,
    /// Tells a site from its own rolled-back self.
    pub incarnation: u64,
    pub role: Role,
    /// As the application sees it.
    pub live: Values,
    /// As it is after a power cut.
    pub durable: Values,
    pub past: Past,
    pub peers: Peers,
    /// Received and not yet in the journal.
    pub received: Vec<Record>,
    pub partial: Option<Partial>,
    pub missing: Mask,
    pub fuzzy_end: Option<CutId>,
    /// The state in the tree of all states of the application's data, for the check on reversals.
    pub node: usize,
}

/// What a site knows of its own past. Durable.
#[derive(Clone, Debug, Default)]
pub struct Past {
    pub lineage: Lineage,
    pub layers: Vec<Layer<Mask>>,
    pub open: Mask,
    pub direct: Mask,
    pub sequence: u64,
    /// The last cut before which the base was synced.
    pub synced: Option<CutId>,
}

/// What a source knows of its peers, by their numbers.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    pub acknowledged: BTreeMap<usize, Option<CutId>>,
    pub published: BTreeMap<usize, Vec<CutId>>,
    /// Those that it streams to, and what is under way to them.
    pub streams: BTreeMap<usize, Vec<Record>>,
    /// Those that once were in step with it.
    pub ever: BTreeSet<usize>,
}

impl Peers {
    pub fn strangers(count: usize, but: usize) -> Peers {
        let others = || (0..count).filter(|peer| *peer != but);
        Peers {
            acknowledged: others().map(|peer| (peer, None)).collect(),
            published: others().map(|peer| (peer, Vec::new())).collect(),
            ..Peers::default()
        }
    }
}

impl Site {
    pub fn off(name: char, incarnation: u64) -> Site {
        Site {
            name,
            incarnation,
            role: Role::Off,
            live: [0; GRAINS],
            durable: [0; GRAINS],
            past: Past::default(),
            peers: Peers::default(),
            received: Vec::new(),
            partial: None,
            missing: Mask(0),
            fuzzy_end: None,
            node: 0,
        }
    }

    /// What it would be taken for now.
    pub fn content(&self) -> Values {
        match self.role {
            Role::Source => self.live,
            _ => self.durable,
        }
    }

    pub fn head(&self) -> Option<CutId> {
        self.past.lineage.head().map(|cut| cut.id)
    }

    pub fn position(&self) -> Option<Position> {
        Some(Position { cut: self.head()?, sequence: self.past.sequence })
    }

    /// Whether nothing is known to be wrong with its copy.
    pub fn is_whole(&self) -> bool {
        self.missing == Mask(0)
            && self.fuzzy_end.is_none()
            && !self.partial.is_some_and(|partial| partial.direct)
    }

    pub fn holding<'a>(&'a self, layers: &'a [Layer<Mask>]) -> Holding<'a, Mask> {
        Holding {
            lineage: &self.past.lineage,
            layers,
            open: &self.past.open,
            direct: &self.past.direct,
            missing: &self.missing,
            partial: self.partial.as_ref().map(|partial| PartialSession {
                session: SessionId::from_bytes([1; 16]),
                cut: partial.cut,
                remaining: &partial.remaining,
            }),
            fuzzy_end: self.fuzzy_end,
        }
    }
}
