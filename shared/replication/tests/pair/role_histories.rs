//! Random lives of a pair that changes its roles: promotions, also mistaken ones, rejoins, switchovers, with
//! links that break and machines that lose power at any moment.
//!
//! What is checked: what a source acknowledged is there as long as it is the source, and after a switchover;
//! a site that gives way becomes equal to the winner, byte by byte, by the delta alone; two sites never serve
//! at the same time unless an operator promoted one of them; every site starts in a role after any crash.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, SimMachine, SplitMix64};
use grain::attach::{Overwrite, Side};
use grain::{CutId, VolumeId};
use replication::protocol;
use replication::replica::{FollowEnd, Replica, follow};
use replication::source::{Change, LinkProgress, Source, serve_link};
use replication::state::{Role, StateStore};
use wire::Identity;
use wire::link::{LinkConfig, MemoryPair, memory_pair};

use crate::carry_over::breaks_after;
use crate::oracle::read_volumes;
use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [24 * GRAIN, 9 * GRAIN + 100];
const JOURNAL: &str = "/site/journal";

/// What an application knows of the volumes: each grain is filled with one byte at a time.
type Content = BTreeMap<(u16, u64), u8>;

enum Site {
    Source(Rc<Source>),
    Replica(Rc<Replica>),
    Down,
}

struct World {
    pair: Pair,
    random: SplitMix64,
    sites: [Site; 2],
    /// What the application of each site was told to be there, as long as that is a source.
    told: [Content; 2],
    next: u8,
    /// A promotion was made that no switchover asked for: two sources may be.
    forced: bool,
    seen: BTreeMap<&'static str, u64>,
}

impl World {
    fn machine(&self, site: usize) -> &SimMachine {
        [&self.pair.source_machine, &self.pair.replica_machine][site]
    }

    fn identity(&self, site: usize) -> Identity {
        [self.pair.source_id, self.pair.replica_id][site]
    }

    fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    /// Starts a site in whatever role its disk says.
    async fn start(&mut self, site: usize) {
        self.sites[site] = Site::Down;
        let machine = self.machine(site).clone();
        let store = StateStore::open(&machine.context(), Path::new("/site")).await.unwrap();
        let role = store.with(|s| s.role);
        drop(store);
        self.sites[site] = match role {
            Role::Source => {
                let source = self.pair.start_source_on(&machine).await;
                Site::Source(source.expect("a source starts after any crash"))
            }
            Role::Replica => {
                let replica = self.pair.start_replica_on(&machine).await;
                Site::Replica(replica.expect("a replica starts after any crash"))
            }
        };
    }

    async fn crash(&mut self, site: usize) {
        let kind = if self.random.below(2) == 0 { Crash::Kill } else { Crash::PowerCut };
        let seed = self.random.next_u64();
        self.machine(site).crash_seeded(kind, seed);
        self.start(site).await;
        self.count("crash");
    }

    /// Writes some grains, flushes, and notes what was acknowledged.
    async fn write(&mut self, site: usize) {
        let Site::Source(source) = &self.sites[site] else { return };
        let source = source.clone();
        let mut written = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let volume = self.random.below(2) as u16;
            let grain = self.random.below(if volume == 0 { 24 } else { 9 });
            self.next = self.next % 250 + 1;
            let data = Change::Data(vec![self.next; GRAIN as usize].into());
            let writing = source.clone().write(VolumeId(volume), grain * GRAIN, data, false);
            match writing.await {
                Ok(()) => written.push(((volume, grain), self.next)),
                Err(_) => {
                    // Refused, not written: it may not count.
                    self.count("write refused");
                    assert!(source.is_fenced(), "only a fenced source refuses here");
                }
            }
        }
        source.flush().await.expect("a calm disk syncs");
        self.told[site].extend(written);
        self.check_told(site).await;
    }

    /// A source holds what it acknowledged and flushed.
    async fn check_told(&mut self, site: usize) {
        if !matches!(self.sites[site], Site::Source(_)) {
            return;
        }
        let content = read_volumes(&self.machine(site).context(), 2).await;
        for ((volume, grain), value) in &self.told[site] {
            let at = (*grain * GRAIN) as usize;
            let found = content[usize::from(*volume)][at];
            assert_eq!(found, *value, "site {site}, volume {volume}, grain {grain}");
        }
    }

    /// Both sites meet over a link that may break. Gives how it ended at each.
    async fn meet(&mut self, bytes: u64) -> [Option<replication::Result<FollowEnd>>; 2] {
        let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
        // What breaks is the way from the near site to the far one: either may be near.
        let turned = usize::from(self.random.below(2) == 0);
        let ids = [self.identity(turned), self.identity(1 - turned)];
        let MemoryPair { near, far, near_session, far_session, cable } =
            memory_pair(ids[0], ids[1], 1, &config, breaks_after(bytes));
        let sessions = [near_session, far_session].map(tokio::task::spawn_local);
        let mut tasks = Vec::new();
        for (site, link) in [(turned, near), (1 - turned, far)] {
            let (connection, inbox) = protocol::open(link);
            let task = match &self.sites[site] {
                Site::Source(source) => {
                    let (source, serve) = (source.clone(), self.pair.serve.clone());
                    tokio::task::spawn_local(async move {
                        let progress = Rc::new(LinkProgress::default());
                        serve_link(&source, connection, inbox, &serve, &progress).await.err();
                        None
                    })
                }
                Site::Replica(replica) => {
                    let (replica, settings) = (replica.clone(), self.pair.follow.clone());
                    tokio::task::spawn_local(async move {
                        Some(follow(&replica, connection, inbox, &settings, |_| {}).await)
                    })
                }
                Site::Down => unreachable!("both sites are up"),
            };
            tasks.push((site, task));
        }
        let mut ends = [None, None];
        for (site, task) in tasks {
            ends[site] = task.await.unwrap();
        }
        cable.cut();
        sessions.iter().for_each(|session| session.abort());
        for (site, end) in ends.iter().enumerate() {
            if let Some(Ok(FollowEnd::Relinquished(_))) = end {
                self.promote(site, false).await;
            }
        }
        ends
    }

    /// Promotes a replica. `forced` says that nobody gave it the role.
    async fn promote(&mut self, site: usize, forced: bool) {
        let Site::Replica(replica) = &self.sites[site] else { return };
        let replica = replica.clone();
        if !replica.is_consistent() {
            return;
        }
        if self.random.below(4) == 0 {
            // Its machine goes down in the middle.
            let (machine, at) = (self.machine(site).clone(), self.random.below(60));
            let (from, seed) = (machine.operations(), self.random.next_u64());
            let crashing = machine.clone();
            machine.set_fault_hook(move |op| {
                if op.number == from + at {
                    crashing.crash_seeded(Crash::PowerCut, seed);
                }
                Fault::None
            });
        }
        drop(replica.promote(false).await);
        self.machine(site).clear_fault_hook();
        drop(replica);
        self.start(site).await;
        if matches!(self.sites[site], Site::Source(_)) {
            self.count(if forced { "promoted" } else { "took over" });
            self.forced |= forced;
            // Its application begins with what is there. After a switchover that is all that the other
            // one was told.
            let other = self.told[1 - site].clone();
            self.told[site] = if forced { Content::new() } else { other };
        }
    }

    async fn switch_over(&mut self, bytes: u64) {
        let Some(site) = (0..2).find(|site| self.is_source(*site)) else { return };
        let (Site::Source(source), Site::Replica(_)) = (&self.sites[site], &self.sites[1 - site])
        else {
            return;
        };
        let (source, to) = (source.clone(), self.identity(1 - site).to_string());
        let writing = source.clone();
        let once = std::mem::replace(&mut self.pair.follow.once, false);
        let asked = Duration::from_micros(self.random.below(120_000));
        let handing = tokio::task::spawn_local(async move {
            tokio::time::sleep(asked).await;
            let limit = Duration::from_secs(20);
            source.switchover(&to, limit, Path::new(JOURNAL)).await.is_ok()
        });
        // An application writes all the while.
        let client = tokio::task::spawn_local(client(writing.clone(), self.random.split()));
        // A session that nothing ends is cut after a while.
        drop(tokio::time::timeout(Duration::from_secs(60), self.meet(bytes)).await);
        let handed = handing.await.unwrap();
        self.pair.follow.once = once;
        let acknowledged = client.await.unwrap();
        if !handed {
            drop(writing.flush().await);
        }
        drop(writing);
        self.told[site].extend(acknowledged.clone());
        if handed {
            self.count("switched over");
            self.told[1 - site].extend(acknowledged);
        }
        for site in 0..2 {
            // Whoever changed its role, or was let down in the middle, starts anew.
            self.start(site).await;
            self.check_told(site).await;
        }
    }

    fn is_source(&self, site: usize) -> bool {
        matches!(self.sites[site], Site::Source(_))
    }

    /// Where both are sources one of them gives way to the other.
    async fn settle_roles(&mut self) {
        if !(self.is_source(0) && self.is_source(1)) {
            return;
        }
        assert!(self.forced, "two sources although nobody promoted one");
        let (Site::Source(left), Site::Source(right)) = (&self.sites[0], &self.sites[1]) else {
            return;
        };
        let facts =
            [left.facts(&self.identity(1).to_string()), right.facts(&self.identity(0).to_string())];
        let verdict = grain::attach::decide(&facts[0], &facts[1]);
        let Overwrite::Named { losers, offered } = verdict.overwrite else {
            panic!("two sources and nobody is named: {verdict:?}")
        };
        let common: CutId = verdict.common.expect("they were one once");
        let loser = match offered {
            Some(Side::Mine) => 0,
            Some(Side::Theirs) => 1,
            None => usize::from(self.random.below(2) == 0),
        };
        assert!(losers.includes(if loser == 0 { Side::Mine } else { Side::Theirs }));
        self.count(verdict.rule.name());
        let Site::Source(source) = &self.sites[loser] else { return };
        let (source, winner) = (source.clone(), self.identity(1 - loser).to_string());
        source.give_way(&winner, common, Path::new(JOURNAL)).await.expect("it gives way");
        drop(source);
        self.start(loser).await;
        self.told[loser].clear();
    }

    /// Everything heals: one source, one replica, equal.
    async fn heal(&mut self) {
        self.settle_roles().await;
        for _ in 0..12 {
            let ends = self.meet(u64::MAX).await;
            let in_step = ends.iter().flatten().any(|end| matches!(end, Ok(FollowEnd::InStep(_))));
            if in_step {
                break;
            }
            // Both may be replicas, one of which has just learned that the role is its own.
            self.settle_roles().await;
        }
        let roles = [self.is_source(0), self.is_source(1)];
        assert!(roles[0] != roles[1], "one source and one replica: {roles:?}");
        self.pair.assert_equal().await;
        let source = usize::from(roles[1]);
        self.check_told(source).await;
        self.told[1 - source].clear();
        self.forced = false;
        self.count("healed");
    }
}

/// Writes until it is refused or has written enough; gives what was acknowledged.
async fn client(source: Rc<Source>, mut random: SplitMix64) -> Content {
    let mut acknowledged = Content::new();
    for round in 0..80u8 {
        tokio::time::sleep(Duration::from_micros(random.below(4_000))).await;
        let (volume, grain, value) = (0, random.below(24), 1 + (round * 3) % 250);
        let data = Change::Data(vec![value; GRAIN as usize].into());
        if source.clone().write(VolumeId(volume), grain * GRAIN, data, false).await.is_err() {
            break;
        }
        acknowledged.insert((volume, grain), value);
    }
    acknowledged
}

async fn history(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut random = SplitMix64::new(seed);
    let pair = Pair::new(random.next_u64(), &SIZES).await;
    let source = pair.start_source().await.unwrap();
    let mut told = Content::new();
    for grain in 0..9 {
        fill(&source, 1, grain, 1 + grain as u8).await;
        told.insert((1, grain), 1 + grain as u8);
    }
    pair.seed(&source).await;
    source.flush().await.unwrap();
    let replica = pair.start_replica().await.unwrap();
    let latency = Duration::ZERO..Duration::from_micros(random.below(1_500));
    pair.source_machine.set_latency(latency.clone());
    pair.replica_machine.set_latency(latency);
    let sites = [Site::Source(source), Site::Replica(replica)];
    let told = [told, Content::new()];
    let mut world =
        World { pair, random, sites, told, next: 0, forced: false, seen: BTreeMap::new() };
    for _ in 0..10 + world.random.below(14) {
        match world.random.below(12) {
            0..=2 => world.write(0).await,
            3..=5 => world.write(1).await,
            6 | 7 => {
                let bytes = 2_000 + world.random.below(90_000);
                drop(world.meet(bytes).await);
            }
            8 => {
                let site = world.random.below(2) as usize;
                world.crash(site).await;
            }
            9 => {
                let site = world.random.below(2) as usize;
                world.promote(site, true).await;
            }
            10 => {
                let bytes = [u64::MAX, 2_000 + world.random.below(60_000)];
                let bytes = bytes[world.random.below(2) as usize];
                world.switch_over(bytes).await;
            }
            _ => world.heal().await,
        }
    }
    world.heal().await;
    world.seen
}

#[test]
fn roles_change_and_nothing_is_lost() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..150 {
        run(|| async {
            println!("seed {seed}");
            for (what, count) in history(seed).await {
                *seen.entry(what).or_default() += count;
            }
        });
    }
    for what in [
        "crash",
        "healed",
        "promoted",
        "took over",
        "switched over",
        "write refused",
        "promoted",
        "idle-promotion",
        "split-brain",
    ] {
        assert!(seen.contains_key(what), "{what} never happened: {seen:?}");
    }
}
