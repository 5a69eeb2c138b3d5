//! A replica can take over at any instant: what it serves then is the source where it said that it stood,
//! whatever crashes on the way; and the site that gives way becomes byte-equal with the other by the delta
//! alone, whatever it had written by itself.
//!
//! It is done with copies of both machines, after some of the looks; the history goes on as if nothing had been.

use std::path::Path;
use std::rc::Rc;

use disk::simulated::{Crash, Fault, SimMachine, SplitMix64};
use grain::attach::{Overwrite, Side, decide};
use grain::{CutId, Position, VolumeId};
use replication::replica::{At, Replica, Settings};
use replication::source::{Change, Source};
use replication::state::Role;
use replication::{Error, Result};

use super::replica_consistent::is_source_at;
use super::twin::Twin;
use super::{backlog, no_change_missed, replica_consistent};
use crate::node::dir;
use crate::oracle::difference;
use crate::plan::Site;
use crate::process::when_woken;
use crate::shape::GRAIN;
use crate::world::World;

/// Keeps this generator apart from that of the copies.
const APART: u64 = 0x7072_6f6d_6f74_6521;
/// And what is drawn for what waits.
const BACKLOG: u64 = 0x6261_636b_6c6f_6721;
/// One look in this many is followed by a promotion.
const EVERY: u64 = 4;

/// Copies that were taken to promote one of them.
pub struct Drawn {
    pub(super) twin: Twin,
    pub(super) random: SplitMix64,
    /// The replica's machine once more: what waits in its journal is left there, and served from there.
    waits: Option<SimMachine>,
}

impl Drawn {
    /// Takes copies after one look of [`EVERY`].
    pub fn from(world: &World, kinds: [Crash; 2], seed: u64) -> Option<Drawn> {
        let mut random = SplitMix64::new(seed ^ APART);
        let drawn = random.below(EVERY) == 0;
        drawn.then(|| {
            let twin = Twin::of(world, kinds, seed);
            // Drawn apart, so that what else is drawn stays as it was.
            let mut apart = SplitMix64::new(seed ^ BACKLOG);
            let again = twin.machine(Site::Replica).copy(apart.next_u64());
            let waits = Some(again).filter(|_| apart.below(2) == 0);
            Drawn { twin, random, waits }
        })
    }
}

/// Promotes the replica's copy, and brings both together again.
pub async fn check(world: &Rc<World>, drawn: Option<Drawn>) {
    let Some(mut drawn) = drawn.filter(|_| !world.has_failed()) else { return };
    let local = tokio::task::LocalSet::new();
    if let Err(words) = local.run_until(when_woken(drawn.promoted(world))).await {
        world.fail("promotion", words);
    }
}

const DIED: &str = "before or after a promotion that died it does not start";

pub(super) type Checked<T = ()> = std::result::Result<T, String>;

pub(super) fn no(what: &str) -> impl Fn(Error) -> String + '_ {
    move |e| format!("{what}: {e}")
}

impl Drawn {
    async fn promoted(&mut self, world: &Rc<World>) -> Checked {
        let Some(replica) = replica_consistent::check(world, &self.twin).await else {
            return Ok(());
        };
        let Some(mut at) = replica.position() else { return Ok(()) };
        let back = self.point(&replica);
        if back.is_none() && !replica.standing().is_some_and(|standing| standing.consistent) {
            return match replica.promote(false).await {
                Err(Error::Refused { .. }) => {
                    world.trace.count("promotion: refused, no point in time");
                    Ok(())
                }
                Err(e) => Err(format!("an inconsistent copy is refused in other words: {e}")),
                Ok(_) => {
                    Err("an inconsistent copy was promoted without the operator's word".into())
                }
            };
        }
        if let Some(At::Cut(cut)) = back {
            world.trace.count("promotion: at a point");
            at = Position { cut, sequence: 0 };
        }
        let replica = match self.waits.take().filter(|_| back.is_none()) {
            Some(machine) => {
                drop(replica);
                self.twin.put(Site::Replica, machine);
                self.lazy(world).await?
            }
            None => replica,
        };
        let lazy = replica.journal_stats().waiting_bytes > 0;
        self.trouble(Site::Replica, if back.is_some() { 120 } else { 60 });
        let mut done = replica.promote_at(back.as_ref(), false).await;
        drop(replica);
        self.crash(Site::Replica);
        if self.role(Site::Replica).await? == Role::Replica {
            world.trace.count("promotion: died before it");
            let again = match lazy {
                true => self.lazy(world).await?,
                false => self.twin.start_replica(world, Site::Replica).await.map_err(no(DIED))?,
            };
            done = again.promote_at(back.as_ref(), false).await;
            self.crash(Site::Replica);
        } else if done.is_err() {
            world.trace.count("promotion: died after it");
            done = Ok(at.cut);
        }
        done.map_err(no("a copy that says that it is a point in time is not promoted"))?;
        if lazy {
            self.slow_to_sync();
        }
        let mut promoted = self.source(world, Site::Replica).await?;
        world.trace.count("checked: a promotion");
        let volumes = match promoted.backlog_bytes() {
            (0, _) => world.volumes_of(self.twin.machine(Site::Replica)),
            _ => backlog::seen(world, &promoted).await?,
        };
        is_source_at(world, at, &volumes).map_err(|words| format!("promoted, it says {words}"))?;
        if promoted.backlog_bytes().0 > 0 {
            promoted = self.work_off(world, promoted).await?;
        }
        self.twin.machine(Site::Replica).clear_fault_hook();
        self.write(world, &promoted).await?;
        self.together(world, promoted).await
    }

    /// The replica's copy, with what waits left in its journal.
    async fn lazy(&self, world: &World) -> Checked<Rc<Replica>> {
        let settings =
            Settings { apply_at_start: false, promote_past: 0, ..world.replica_settings(true) };
        let started = self.twin.start_replica_with(Site::Replica, settings).await;
        started.map_err(no(DIED))
    }

    /// Half of those that have a past go back to a point of it.
    fn point(&mut self, replica: &Replica) -> Option<At> {
        let points = replica.points();
        let lost_a_sync = replica.store().with(|s| s.run.lost_sync.is_some());
        if points.is_empty() || lost_a_sync || self.random.below(2) == 0 {
            return None;
        }
        let nth = self.random.below(points.len() as u64) as usize;
        points.get(nth).map(|point| At::Cut(point.cut))
    }

    /// The old source comes back; one of both gives way, and becomes what the other is.
    async fn together(&mut self, world: &Rc<World>, promoted: Rc<Source>) -> Checked {
        let old = self.source(world, Site::Source).await?;
        self.write(world, &old).await?;
        let identity = |site: Site| world.keys(site).identity().to_string();
        let verdict =
            decide(&promoted.facts(&identity(Site::Source)), &old.facts(&identity(Site::Replica)));
        let (losers, offered, common) = match (verdict.overwrite, verdict.common) {
            (Overwrite::Named { losers, offered }, Some(common)) => (losers, offered, common),
            // A machine that was put back may know nothing of what they once had in common.
            _ if world.licence.rolled_back.get() => return Ok(()),
            _ => return Err(format!("two sources, and nobody is named: {verdict:?}")),
        };
        world.trace.count_named(format!("promotion: {}", verdict.rule.name()));
        let named = match offered {
            Some(side) => side,
            None if self.random.below(2) == 0 && losers.includes(Side::Mine) => Side::Mine,
            None => Side::Theirs,
        };
        if !losers.includes(named) {
            return Err(format!("the offered one cannot be named: {verdict:?}"));
        }
        let (winner, loser, from, gives_way) = match named {
            Side::Mine => (old, promoted, Site::Source, Site::Replica),
            Side::Theirs => (promoted, old, Site::Replica, Site::Source),
        };
        winner.in_the_volumes().await.map_err(no("what waits does not get into the volumes"))?;
        let before = world.volumes_of(self.twin.machine(from));
        self.give_way(world, loser, gives_way, &identity(from), common).await?;
        let former = self.twin.start_replica(world, gives_way).await;
        let former = former.map_err(no("a site that gave way does not start as a replica"))?;
        let attached = no_change_missed::attach(world, from, &winner, &former).await;
        attached.map_err(no("a site that gave way does not come into step"))?;
        let volumes = world.volumes_of(self.twin.machine(from));
        if difference(&before, &volumes, GRAIN).is_some() {
            return Err("the winner was changed".into());
        }
        let other = world.volumes_of(self.twin.machine(gives_way));
        if let Some(words) = difference(&volumes, &other, GRAIN) {
            return Err(format!("in step after a rejoin, but {words}"));
        }
        world.trace.count("checked: a rejoin");
        Ok(())
    }

    async fn give_way(
        &mut self,
        world: &Rc<World>,
        loser: Rc<Source>,
        site: Site,
        winner: &str,
        common: CutId,
    ) -> Checked {
        let journal = dir().join("journal");
        self.trouble(site, 60);
        let mut given = loser.give_way(winner, common, &journal).await;
        drop(loser);
        self.crash(site);
        if self.role(site).await? == Role::Source {
            world.trace.count("promotion: died before it gave way");
            let again = self.source(world, site).await?;
            given = again.give_way(winner, common, Path::new(&journal)).await;
            self.crash(site);
        } else if given.is_err() {
            given = Ok(common);
        }
        given.map(drop).map_err(no("the loser does not give way"))
    }

    async fn role(&self, site: Site) -> Checked<Role> {
        self.twin.role(site).await.map_err(no("the state cannot be read"))
    }

    pub(super) async fn source(&self, world: &World, site: Site) -> Checked<Rc<Source>> {
        let started: Result<_> = self.twin.start_source(world, site).await;
        started.map_err(no(&format!("the {} does not start as a source", site.name())))
    }

    /// One time in three the machine loses power at one of its next operations.
    fn trouble(&mut self, site: Site, most: u64) {
        if self.random.below(3) != 0 {
            return;
        }
        let machine = self.twin.machine(site);
        let (at, seed) = (machine.operations() + self.random.below(most), self.random.next_u64());
        let crashing = machine.clone();
        machine.set_fault_hook(move |op| {
            if op.number == at {
                crashing.crash_seeded(Crash::PowerCut, seed);
            }
            Fault::None
        });
    }

    pub(super) fn crash(&mut self, site: Site) {
        let machine = self.twin.machine(site);
        machine.clear_fault_hook();
        let kind = if self.random.below(2) == 0 { Crash::Kill } else { Crash::PowerCut };
        machine.crash_seeded(kind, self.random.next_u64());
    }

    /// Some writes of its application, or none.
    async fn write(&mut self, world: &World, source: &Rc<Source>) -> Checked {
        for _ in 0..self.random.below(4) {
            let volume = self.random.below(world.geometry.volumes.len() as u64) as u16;
            let bytes = world.geometry.volumes[usize::from(volume)].bytes;
            let from = self.random.below(bytes / 512) * 512;
            let len = (512 * (1 + self.random.below(6))).min(bytes - from);
            let data = vec![self.random.next_u64() as u8; len as usize];
            let written =
                source.clone().write(VolumeId(volume), from, Change::Data(data.into()), false);
            written.await.map_err(no("a source that was just started takes no write"))?;
        }
        Ok(())
    }
}
