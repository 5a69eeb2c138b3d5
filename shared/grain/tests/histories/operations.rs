//! The operations of a random history, and how often each happens.

use grain::CutId;
use grain::lineage::{CutReason, Layer, LayerName};

use super::site::{Mask, Past, Peers, Record, Role, Site, mix};
use super::world::{MediaSet, World};

impl World {
    /// One random operation; nothing happens where the drawn one is not possible.
    pub fn operation(&mut self) -> Result<(), String> {
        match self.rng.below(1000) {
            0..240 => self.some(Role::Source).map(|s| self.write(s)),
            240..310 => self.some(Role::Source).map(|s| self.sync(s)),
            310..380 => self.some(Role::Source).map(|s| {
                self.cut(s, CutReason::Stream, false, false);
                self.note(format!("{} cut", self.sites[s].name));
            }),
            380..480 => self.receive(),
            480..520 => self.some(Role::Source).map(|s| self.drop_layers(s)),
            520..565 => self.any_running().map(|s| self.merge(s)),
            565..630 => self.any_running().map(|s| self.power_cut(s)),
            630..660 => self.lose_link(),
            660..800 => self.any_pair().map(|(s, r)| self.catch_up(s, r)),
            800..830 => self.some(Role::Replica).map(|r| self.promote(r)),
            830..850 => match self.some(Role::Replica) {
                Some(replica) => return self.promote_at_earlier_point(replica),
                None => None,
            },
            850..885 => self.any_running().map(|s| self.snapshot(s)),
            885..920 => self.roll_back(),
            920..955 => self.some(Role::Source).map(|s| self.dump(s)),
            _ => self.load(),
        };
        Ok(())
    }

    fn some(&mut self, role: Role) -> Option<usize> {
        let sites = self.with_role(role);
        self.rng.pick(&sites)
    }

    fn any_running(&mut self) -> Option<usize> {
        let sites = self.running();
        self.rng.pick(&sites)
    }

    fn any_pair(&mut self) -> Option<(usize, usize)> {
        let mut pairs = Vec::new();
        for source in self.with_role(Role::Source) {
            let streams = &self.sites[source].peers.streams;
            let others = self.running().into_iter();
            let others = others.filter(|r| *r != source && !streams.contains_key(r));
            pairs.extend(others.map(|replica| (source, replica)));
        }
        self.rng.pick(&pairs)
    }

    fn any_stream(&mut self, with_records: bool) -> Option<(usize, usize)> {
        let mut streams = Vec::new();
        for source in self.with_role(Role::Source) {
            for (peer, queue) in &self.sites[source].peers.streams {
                if !with_records || !queue.is_empty() {
                    streams.push((source, *peer));
                }
            }
        }
        self.rng.pick(&streams)
    }

    fn write(&mut self, site: usize) {
        let grain = self.rng.below(super::site::GRAINS);
        let value = self.fresh_value();
        let node = self.child_state(self.sites[site].node);
        let s = &mut self.sites[site];
        s.past.open.0 |= 1 << grain;
        s.past.sequence += 1;
        (s.live[grain], s.node) = (value, node);
        let sequence = s.past.sequence;
        for queue in s.peers.streams.values_mut() {
            queue.push(Record::Write { sequence, grain, value, node });
        }
        if let Some(cut) = s.head() {
            self.contents.insert((cut, sequence), (s.live, node));
        }
        self.note(format!("{} writes grain {grain}", self.sites[site].name));
    }

    fn sync(&mut self, site: usize) {
        let s = &mut self.sites[site];
        (s.durable, s.past.synced) = (s.live, s.head());
        self.note(format!("{} syncs", self.sites[site].name));
    }

    /// A replica receives some records, may bring them to its journal, and may say so.
    fn receive(&mut self) -> Option<()> {
        let (source, replica) = self.any_stream(true)?;
        let queue = self.sites[source].peers.streams.get_mut(&replica)?;
        let count = 1 + self.rng.below(queue.len());
        let records: Vec<Record> = queue.drain(..count).collect();
        self.sites[replica].received.extend(records);
        let durable = self.rng.chance(80);
        let heard = durable && self.rng.chance(85);
        if durable {
            self.journal(replica, usize::MAX);
        }
        if heard {
            self.acknowledge(source, replica);
        }
        self.note(format!(
            "{} receives {count} from {}, durable {durable}, acknowledged {heard}",
            self.sites[replica].name, self.sites[source].name
        ));
        Some(())
    }

    /// The first `count` received records become durable at the replica.
    fn journal(&mut self, replica: usize, count: usize) {
        let r = &mut self.sites[replica];
        let count = count.min(r.received.len());
        for record in r.received.drain(..count).collect::<Vec<_>>() {
            match record {
                Record::Write { sequence, grain, value, node } => {
                    r.durable[grain] = value;
                    r.past.open.0 |= 1 << grain;
                    (r.past.sequence, r.node) = (sequence, node);
                }
                Record::Cut(id) => {
                    let parent = r.head();
                    let name = parent.map(|from| LayerName::new(from, id));
                    let grains = r.past.open;
                    r.past.layers.extend(name.map(|name| Layer { name, grains }));
                    let reason = CutReason::Stream;
                    let cut = grain::Cut { id, parent, unix_ms: 0, reason };
                    let pushed = r.past.lineage.push(cut, Some(r.past.sequence));
                    pushed.expect("the stream follows the head");
                    (r.past.open, r.past.sequence) = (Mask(0), 0);
                    r.node = self.contents.get(&(id, 0)).map_or(r.node, |(_, node)| *node);
                }
            }
        }
        r.live = r.durable;
    }

    pub fn acknowledge(&mut self, source: usize, replica: usize) {
        let Some(cut) = self.sites[replica].head() else { return };
        let peers = &mut self.sites[source].peers;
        peers.acknowledged.insert(replica, Some(cut));
        let published = peers.published.entry(replica).or_default();
        if let Some(at) = published.iter().position(|c| *c == cut) {
            published.drain(..=at);
        }
    }

    fn power_cut(&mut self, site: usize) {
        let keep = self.rng.mask();
        if self.sites[site].role == Role::Source {
            let s = &mut self.sites[site];
            let before = s.live;
            s.live = mix(s.durable, s.live, keep);
            s.durable = s.live;
            if s.live != before {
                self.sites[site].node = self.child_state(self.sites[site].node);
            }
        } else {
            let count = self.rng.below(self.sites[site].received.len() + 1);
            self.journal(site, count);
        }
        self.start(site);
        self.note(format!("power cut at {}", self.sites[site].name));
    }

    fn lose_link(&mut self) -> Option<()> {
        let (source, replica) = self.any_stream(false)?;
        let count = self.rng.below(self.sites[replica].received.len() + 1);
        self.journal(replica, count);
        self.sites[replica].received.clear();
        self.sites[source].peers.streams.remove(&replica);
        self.note(format!("link {} - {} lost", self.sites[source].name, self.sites[replica].name));
        Some(())
    }

    /// A snapshot of a machine, with what its disk holds at that moment.
    fn snapshot(&mut self, site: usize) {
        let mut copy = self.sites[site].clone();
        (copy.received, copy.peers.streams) = Default::default();
        copy.incarnation = self.fresh_incarnation();
        if copy.role == Role::Source {
            let reached = Mask((0..3).fold(0, |m, g| m | u8::from(self.rng.chance(70)) << g));
            let live = copy.live;
            copy.live = mix(copy.durable, live, reached);
            copy.durable = copy.live;
            if copy.live != live {
                copy.node = self.child_state(copy.node);
            }
        }
        self.snapshots.insert(site, copy);
        self.note(format!("snapshot of {}", self.sites[site].name));
    }

    fn roll_back(&mut self) -> Option<()> {
        let known: Vec<usize> = self.snapshots.keys().copied().collect();
        let site = self.rng.pick(&known)?;
        self.unlink(site);
        self.sites[site] = self.snapshots.get(&site)?.clone();
        self.sites[site].incarnation = self.fresh_incarnation();
        self.tame = false;
        self.start(site);
        self.note(format!("{} rolled back", self.sites[site].name));
        Some(())
    }

    /// Makes a media set, ends a fuzzy one that is under way, or begins one.
    fn dump(&mut self, site: usize) {
        let name = self.sites[site].name;
        let running = (site, self.sites[site].incarnation);
        if let Some((at, incarnation, mut set)) = self.dump.take() {
            if (at, incarnation) == running {
                let late = self.rng.mask();
                set.values = mix(set.values, self.sites[site].live, late);
                set.end = Some(self.cut(site, CutReason::Dump, true, false));
                self.note(format!("{name} ends a fuzzy dump"));
                return self.sets.push(set);
            }
            self.dump = Some((at, incarnation, set));
        }
        let cut = self.cut(site, CutReason::Dump, true, false);
        let s = &self.sites[site];
        let lineage = s.past.lineage.clone();
        let set = MediaSet { cut, lineage, values: s.live, node: s.node, end: None };
        if self.rng.chance(60) {
            self.sets.push(set);
            self.note(format!("{name} dumps"));
        } else {
            self.dump = Some((site, self.sites[site].incarnation, set));
            self.note(format!("{name} begins a fuzzy dump"));
        }
    }

    /// A site that is off, or sometimes a replica, is made anew from a media set.
    fn load(&mut self) -> Option<()> {
        let mut sites = self.with_role(Role::Off);
        for replica in self.with_role(Role::Replica) {
            if self.rng.chance(20) {
                sites.push(replica);
            }
        }
        let site = self.rng.pick(&sites)?;
        let set = self.rng.pick(&self.sets)?;
        self.unlink(site);
        let mut seed = Site::off(self.sites[site].name, self.fresh_incarnation());
        seed.role = Role::Replica;
        seed.past = Past { lineage: set.lineage.clone(), ..Past::default() };
        (seed.durable, seed.node, seed.fuzzy_end) = (set.values, set.node, set.end);
        if self.rng.chance(30) {
            seed.missing = self.rng.mask();
            let garbage = std::array::from_fn(|_| -self.fresh_value());
            seed.durable = mix(seed.durable, garbage, seed.missing);
        }
        seed.live = seed.durable;
        seed.peers = Peers::default();
        self.sites[site] = seed;
        for s in &mut self.sites {
            s.peers.ever.remove(&site);
        }
        self.note(format!(
            "{} loads a set, fuzzy {}, missing {:03b}",
            self.sites[site].name,
            set.end.is_some(),
            self.sites[site].missing.0
        ));
        Some(())
    }

    /// The cuts of all media sets, also of one that is being made.
    pub fn media_cuts(&self) -> Vec<(CutId, Option<CutId>)> {
        let running = self.dump.iter().map(|(_, _, set)| (set.cut, None));
        self.sets.iter().map(|set| (set.cut, set.end)).chain(running).collect()
    }
}
