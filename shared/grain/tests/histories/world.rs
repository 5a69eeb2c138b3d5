//! All sites of one random history, its oracle, and which rule is switched off.

use std::collections::BTreeMap;

use grain::lineage::{Cut, CutReason, Delta, Layer, Membership, NoDelta, Union};
use grain::lineage::{LayerName, delta, membership, open_layer_within, unclean_start_union};
use grain::{CutId, Lineage};

use super::site::{Mask, Record, Role, Site, Values};

/// The rule that is switched off, to see that the checks notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    Nothing,
    /// A layer supplies every epoch that begins with one of its cuts, on any branch.
    BothEnds,
    /// A commit records only what it pulled.
    UnionInCommit,
    /// A source drops all closed layers.
    DropFloor,
    /// Cuts that were published and not acknowledged may be merged away.
    PublishedHeld,
    /// An unclean start takes up nothing.
    UncleanUnion,
    /// The end cut of a fuzzy seed is forgotten.
    FuzzyEnd,
    /// A position whose cut is known is a member.
    Sequences,
    /// A position in an epoch whose end is unknown is a member.
    OpenLayers,
    /// What a broken session brought is taken off the whole delta.
    CarryByCut,
    /// A direct catch-up leaves no record before its commit.
    DirectRecorded,
    /// A source that becomes a replica does not sync first.
    LoserSyncs,
}

/// A check that failed, and the history that led there.
pub struct Violation {
    pub what: String,
    pub log: Vec<String>,
}

/// A media set: the content of a cut (of a fuzzy one: no point in time before `end`).
#[derive(Clone, Debug)]
pub struct MediaSet {
    pub cut: CutId,
    pub lineage: Lineage,
    pub values: Values,
    pub node: usize,
    pub end: Option<CutId>,
}

pub struct World {
    pub off: Off,
    pub rng: Rng,
    pub sites: Vec<Site>,
    pub sets: Vec<MediaSet>,
    /// A dump under way: by which incarnation of which site.
    pub dump: Option<(usize, u64, MediaSet)>,
    /// The last snapshot of each machine.
    pub snapshots: BTreeMap<usize, Site>,
    pub log: Vec<String>,
    /// No disaster, rollback or promotion so far: everything must heal without an operator.
    pub tame: bool,
    values: i64,
    cuts: u64,
    incarnations: u64,
    /// What a position means: the content and the state of each.
    pub contents: BTreeMap<(CutId, u64), (Values, usize)>,
    /// The tree of states: each one's parent.
    parents: Vec<Option<usize>>,
}

impl World {
    pub fn new(seed: u64, sites: usize, off: Off) -> World {
        let mut world = World {
            off,
            rng: Rng(seed),
            sites: ['S', 'R', 'T'].into_iter().take(sites).map(|name| Site::off(name, 0)).collect(),
            sets: Vec::new(),
            dump: None,
            snapshots: BTreeMap::new(),
            log: Vec::new(),
            tame: true,
            values: 0,
            cuts: 0,
            incarnations: 0,
            contents: BTreeMap::new(),
            parents: vec![None],
        };
        world.sites[0].role = Role::Source;
        world.sites[0].peers = super::site::Peers::strangers(sites, 0);
        world.cut(0, CutReason::Start, true, false);
        world.seed_some();
        world
    }

    /// Most histories begin with replicas in step.
    fn seed_some(&mut self) {
        if !self.rng.chance(80) {
            return;
        }
        for peer in 1..self.sites.len() {
            if !self.rng.chance(80) {
                continue;
            }
            let source = self.sites[0].clone();
            let replica = &mut self.sites[peer];
            replica.role = Role::Replica;
            replica.past.lineage = source.past.lineage.clone();
            (replica.live, replica.durable, replica.node) = (source.live, source.live, source.node);
            let stream = self.rng.chance(70);
            let peers = &mut self.sites[0].peers;
            peers.acknowledged.insert(peer, source.head());
            peers.ever.insert(peer);
            if stream {
                peers.streams.insert(peer, Vec::new());
            }
            self.note(format!("{} seeded, stream {stream}", self.sites[peer].name));
        }
    }

    pub fn run(&mut self, operations: usize) -> Result<(), Violation> {
        for _ in 0..operations {
            let done = self.operation().and_then(|()| self.check());
            done.map_err(|what| Violation { what, log: std::mem::take(&mut self.log) })?;
        }
        Ok(())
    }

    pub fn note(&mut self, line: String) {
        self.log.push(line);
    }

    pub fn with_role(&self, role: Role) -> Vec<usize> {
        (0..self.sites.len()).filter(|site| self.sites[*site].role == role).collect()
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.sites.len()).filter(|site| self.sites[*site].role != Role::Off).collect()
    }

    pub fn fresh_value(&mut self) -> i64 {
        self.values += 1;
        self.values
    }

    pub fn fresh_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    pub fn child_state(&mut self, of: usize) -> usize {
        self.parents.push(Some(of));
        self.parents.len() - 1
    }

    /// Whether state `old` is `new` or came before it.
    pub fn precedes(&self, old: usize, new: usize) -> bool {
        std::iter::successors(Some(new), |at| self.parents[*at]).any(|at| at == old)
    }

    /// A cut at a source. With `sync` its base is synced first; `unclean`: how far the epoch before
    /// went is not known.
    pub fn cut(&mut self, site: usize, reason: CutReason, sync: bool, unclean: bool) -> CutId {
        let id = CutId::from_bytes(u128::from(self.cuts).to_be_bytes());
        self.cuts += 1;
        let s = &mut self.sites[site];
        let parent = s.head();
        if let Some(from) = parent {
            s.past.layers.push(Layer { name: LayerName::new(from, id), grains: s.past.open });
        }
        let end = (!unclean).then_some(s.past.sequence);
        let cut = Cut { id, parent, unix_ms: 0, reason };
        s.past.lineage.push(cut, end).expect("a fresh cut on the head");
        (s.past.open, s.past.sequence) = (Mask(0), 0);
        if sync {
            (s.durable, s.past.synced) = (s.live, Some(id));
        }
        self.contents.insert((id, 0), (s.live, s.node));
        for (peer, queue) in &mut s.peers.streams {
            queue.push(Record::Cut(id));
            s.peers.published.entry(*peer).or_default().push(id);
        }
        id
    }

    /// A site starts after an unclean stop.
    pub fn start(&mut self, site: usize) {
        self.unlink(site);
        if self.sites[site].role != Role::Source {
            return;
        }
        self.cut(site, CutReason::Start, false, true);
        if self.off != Off::UncleanUnion {
            let past = &mut self.sites[site].past;
            let again = unclean_start_union(&past.lineage, &past.layers, past.synced);
            past.open.union_with(&again);
        }
    }

    /// Ends all streams from and to a site.
    pub fn unlink(&mut self, site: usize) {
        self.stop_streams_to(site);
        self.sites[site].peers.streams.clear();
        self.sites[site].received.clear();
    }

    pub fn stop_streams_to(&mut self, site: usize) {
        for s in &mut self.sites {
            s.peers.streams.remove(&site);
        }
    }

    /// The layers of `site` as an attach with `other` sees them.
    fn layers(&self, site: usize, other: usize) -> Vec<Layer<Mask>> {
        let own = &self.sites[site].past.layers;
        if self.off != Off::BothEnds {
            return own.clone();
        }
        let mut layers = Vec::new();
        for chain in [site, other].map(|s| self.sites[s].past.lineage.cuts()) {
            for (layer, pair) in own.iter().flat_map(|l| chain.windows(2).map(move |p| (l, p))) {
                let begins = layer.name.names.contains(&pair[0].id) && layer.name.to != pair[0].id;
                if begins {
                    let name = LayerName::new(pair[0].id, pair[1].id);
                    layers.push(Layer { name, grains: layer.grains });
                }
            }
        }
        layers
    }

    /// What `replica` has to pull from `source`.
    pub fn need(&self, source: usize, replica: usize) -> Result<Delta<Mask>, NoDelta> {
        let (own, theirs) = (self.layers(source, replica), self.layers(replica, source));
        let mut to = self.sites[replica].holding(&theirs);
        let mut from = self.sites[source].holding(&own);
        if self.off == Off::FuzzyEnd {
            (from.fuzzy_end, to.fuzzy_end) = (None, None);
        }
        let partial = self.sites[replica].partial;
        let known = |cut| self.sites[source].past.lineage.contains(cut);
        match partial.filter(|partial| self.off == Off::CarryByCut && known(partial.cut)) {
            None => delta(&from, &to),
            Some(partial) => {
                to.partial = None;
                let mut delta = delta(&from, &to)?;
                delta.pull.0 &= !partial.got.0;
                delta.pull.0 |= self.sites[source].missing.0 | self.sites[replica].missing.0;
                Ok(delta)
            }
        }
    }

    /// Whether the position of `replica` lies in the past of `source` (rule 8).
    pub fn in_past(&self, source: usize, replica: usize) -> bool {
        let (s, r) = (&self.sites[source], &self.sites[replica]);
        let Some(position) = r.position() else { return false };
        match membership(position, &s.past.lineage, s.past.sequence) {
            Membership::Member => true,
            Membership::UnknownCut => false,
            Membership::SequenceBeyond { .. } => self.off == Off::Sequences,
            Membership::EndUnknown => {
                matches!(self.off, Off::Sequences | Off::OpenLayers)
                    || open_layer_within(
                        position.cut,
                        &r.past.open,
                        &s.past.lineage,
                        &s.past.layers,
                    )
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn mask(&mut self) -> Mask {
        Mask(self.below(usize::from(super::site::ALL) + 1) as u8)
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}
