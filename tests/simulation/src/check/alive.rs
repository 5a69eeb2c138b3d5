//! (g) Once faults stop, everything heals to byte-equal within a bounded time, by verbs of the operator
//! alone: no state needs surgery.

use std::rc::Rc;
use std::time::Duration;

use replication::Error;
use replication::state::SetStage;
use tokio::time::Instant;

use super::replica_consistent;
use crate::event;
use crate::oracle::{Counts, difference};
use crate::plan::Site;
use crate::shape::GRAIN;
use crate::verbs::connect::{How, connect};
use crate::verbs::{courier, disturb, dump, load};
use crate::weather::LinkPlan;
use crate::world::World;

/// The virtual time within which all heals.
const LIMIT: Duration = Duration::from_secs(1800);
/// Attempts to come into step: a journal that is too small, an old session that has to end, samples
/// that ask for a comparison each cost one.
const ATTEMPTS: u32 = 12;

/// Stops the faults and heals.
pub async fn heal(world: &Rc<World>) {
    if world.has_failed() {
        return;
    }
    event!(world, "heal");
    world.healing.set(true);
    world.requests.end();
    for site in [Site::Source, Site::Replica] {
        let node = world.node(site);
        node.calm();
        node.machine.set_latency(Duration::ZERO..Duration::from_micros(1));
        node.process.borrow().iter().for_each(|process| process.hang(false));
    }
    world.meddler.borrow_mut().take();
    disturb::mend_state(world);
    world.cable.borrow_mut().take().iter().for_each(wire::link::Cable::cut);
    world.end_sessions();
    let begun = Instant::now();
    if tokio::time::timeout(LIMIT, healed(world)).await.is_err() {
        world.fail("alive", format!("not healed within {LIMIT:?} of virtual time"));
    }
    if !world.has_failed() {
        let took = begun.elapsed().as_secs();
        world.trace.note(format_args!("healed after {took} s"));
    }
}

async fn healed(world: &Rc<World>) {
    restart(world).await;
    world.unwatched.set(false);
    if world.has_failed() {
        return;
    }
    if replica_is_empty(world) {
        seed(world).await;
    }
    let mut last = None;
    let mut compare = false;
    for attempt in 0..ATTEMPTS {
        if world.has_failed() {
            return;
        }
        let how = How { once: true, compare, pull_unloaded: true, ..How::default() };
        let Some(session) = connect(world, LinkPlan::calm(), how, u64::from(attempt)) else {
            return world.fail("alive", "a site that was started is down");
        };
        match session.await {
            Ok(Ok(_)) => return verify(world).await,
            Ok(Err(e)) => {
                compare = needs_comparison(world, &e);
                last = Some(e);
            }
            Err(_) => last = None,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.fail("alive", format!("not in step after {ATTEMPTS} attempts: {last:?}"));
}

/// Whether the operator has to name the loser, as the refusal says.
fn needs_comparison(world: &World, e: &Error) -> bool {
    let rolled_back = world.licence.rolled_back.get();
    match e {
        Error::Refused { rule, .. } if rolled_back => {
            world.trace.count_named(format!("heal: refused by {rule}, compared"));
            true
        }
        Error::Fingerprint(words) => {
            if !rolled_back {
                world.fail("no_change_missed", format!("samples differ: {words}"));
            }
            true
        }
        _ => false,
    }
}

/// Both sites are started anew, with what an operator would give them: a suspect source's content is
/// accepted, the journal gets room.
async fn restart(world: &Rc<World>) {
    for site in [Site::Source, Site::Replica] {
        world.node(site).down.set(Duration::ZERO);
        world.node(site).process.borrow().iter().for_each(crate::process::Process::kill);
    }
    let up = |world: &World| {
        let source = world.source_role.borrow().is_some();
        let replica = world.replica_role.borrow().is_some();
        source && replica && world.node(Site::Source).is_up() && world.node(Site::Replica).is_up()
    };
    tokio::time::sleep(Duration::from_millis(1)).await;
    while !up(world) && !world.has_failed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn replica_is_empty(world: &World) -> bool {
    world.replica_role.borrow().as_ref().is_none_or(|replica| replica.head().is_none())
}

/// An empty replica is seeded: a dump, shipped whole, loaded.
async fn seed(world: &Rc<World>) {
    let Some(source) = world.source_role.borrow().clone() else { return };
    if let Some(process) = world.node(Site::Source).process() {
        let told = world.clone();
        let cancel = process.spawn(async move { dump::cancel_now(&told, &source).await });
        if let Some(Ok(Err(e))) = match cancel {
            Some(cancel) => Some(cancel.await),
            None => None,
        } {
            return world.fail("alive", format!("an unfinished dump cannot be cancelled: {e}"));
        }
    }
    let made = world.made.borrow().len();
    dump::begin(world);
    while world.made.borrow().len() == made && !world.has_failed() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let Some(set) = world.made.borrow().last().cloned() else { return };
    courier::bring_all(world, &set);
    match load::load(world, 0, 0) {
        Some(loading) => {
            if let Ok(Err(e)) = loading.await {
                world.fail("alive", format!("a whole set does not load: {e}"));
            }
        }
        None => world.fail("alive", "a replica that was started is down"),
    }
}

async fn verify(world: &Rc<World>) {
    world.look();
    let left = world.node(Site::Source).volumes(world.geometry.volumes.len());
    let right = world.node(Site::Replica).volumes(world.geometry.volumes.len());
    if let Some(words) = difference(&left, &right, GRAIN) {
        world.fail("alive", format!("in step in the end, but {words}"));
    }
    if let Err(words) = world.oracle.check(&left, Counts::Acknowledged) {
        world.fail("flushed_is_kept", format!("in the end: {words}"));
    }
    replica_consistent::live(world);
    let replica = world.replica_role.borrow().clone();
    if replica.is_some_and(|replica| !replica.is_consistent()) {
        world.fail("alive", "in step in the end, but not consistent");
    }
    let writing =
        |s: &replication::state::State| s.sets.iter().any(|set| set.stage == SetStage::Writing);
    if world.source_store.borrow().as_ref().is_some_and(|store| store.with(writing)) {
        world.trace.count("heal: an unfinished dump is left");
    }
    event!(world, "healed");
}
