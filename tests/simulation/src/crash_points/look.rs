//! Looks at what a crash left: checkers (a) to (e), each image once where the instant does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use disk::simulated::{Crash, SimMachine, SplitMix64};
use replication::state::{SetStage, StateStore};

use super::images::Image;
use super::record::Point;
use crate::check::stands_fast::Found;
use crate::check::twin::Twin;
use crate::check::{media, no_change_missed, replica_consistent, stands_fast};
use crate::node::dir;
use crate::oracle::Counts;
use crate::shape::Shape;
use crate::trace::Trace;
use crate::world::{Violation, World};

/// What was looked at so far by this thread.
#[derive(Default)]
pub struct Seen {
    pairs: BTreeSet<(u64, u64)>,
    sets: BTreeSet<u64>,
    replicas: BTreeMap<u64, Found>,
    /// Source images, and at which time of the oracle they were asked for what was flushed. An oracle's times
    /// are those of its sequence: equal ones of two sequences may know different things.
    asked: BTreeSet<(u64, u64)>,
    /// Images that were looked at, with those that were equal to others.
    pub images: u64,
    /// Pairs of images that were started and attached.
    pub attached: u64,
}

/// A world that knows what was known at an instant, in which nothing runs.
pub fn view(shape: &Shape, point: &Point) -> Rc<World> {
    let mut world = World::new(7, shape, Trace::new(7, false));
    if let Some(world) = Rc::get_mut(&mut world) {
        world.oracle = (*point.oracle).clone();
    }
    world.standing.set(point.standing);
    world.licence.excess.set(true);
    world
}

fn machine(image: &Image) -> SimMachine {
    let machine = SimMachine::new(SplitMix64::new(image.digest).next_u64());
    machine.restore(&image.disk);
    machine.clock().jump_ms(7_200_000);
    machine
}

impl Seen {
    /// Another sequence begins.
    pub fn next_sequence(&mut self) {
        self.asked.clear();
    }

    /// Looks at one crash of the instant that `world` is a view of.
    pub async fn look(
        &mut self,
        world: &Rc<World>,
        source: &Image,
        replica: &Image,
    ) -> Result<(), Violation> {
        self.images += 1;
        if self.asked.insert((source.digest, world.oracle.now())) {
            self.flushed(world, source);
        }
        self.sets(world, source).await;
        if let Some(found) = self.replicas.get(&replica.digest) {
            stands_fast::judge(world, *found, world.standing.get());
        }
        if self.pairs.insert((source.digest, replica.digest)) {
            self.attached += 1;
            let local = tokio::task::LocalSet::new();
            local.run_until(self.attach(world, source, replica)).await;
        }
        world.violation().map_or(Ok(()), Err)
    }

    fn flushed(&self, world: &World, source: &Image) {
        let counts = match source.kind {
            Crash::Kill => Counts::Acknowledged,
            Crash::PowerCut => Counts::Durable,
        };
        let volumes = world.volumes_of(&machine(source));
        if let Err(words) = world.oracle.check(&volumes, counts) {
            world.fail("flushed_is_kept", format!("after {:?}: {words}", source.kind));
        }
    }

    /// What the state calls finished is whole on its media.
    async fn sets(&mut self, world: &Rc<World>, source: &Image) {
        if !self.sets.insert(source.digest) {
            return;
        }
        let machine = machine(source);
        let store = match StateStore::open(&machine.context(), dir()).await {
            Ok(store) => store,
            Err(e) => return world.fail("alive", format!("a state cannot be read: {e}")),
        };
        for set in store.with(|s| s.sets.clone()) {
            // Of what was made before, the carrier has taken the media away.
            let there = set.media.iter().all(|medium| !machine.files(medium).is_empty());
            if set.stage == SetStage::Finished && there {
                media::finished_on(world, &machine, &set.media, set.cut, set.end).await;
            }
        }
    }

    async fn attach(&mut self, world: &Rc<World>, source: &Image, replica: &Image) {
        let twin = Twin::from([machine(source), machine(replica)]);
        let Some(role) = replica_consistent::check(world, &twin).await else { return };
        let found = Found::of(&role);
        self.replicas.insert(replica.digest, found);
        stands_fast::judge(world, found, world.standing.get());
        no_change_missed::check(world, &twin, &role).await;
    }
}
