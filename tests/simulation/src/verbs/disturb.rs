//! Crashes, hangs, bits that turn over, images put back.

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, SplitMix64};

use crate::check::{flushed_is_kept, stands_fast};
use crate::event;
use crate::faults::{FileClass, FlipTarget};
use crate::node::Doom;
use crate::plan::Site;
use crate::world::{Kept, World};

/// A machine goes down, now or at an operation to come.
pub fn crash(world: &World, site: Site, kind: Crash, at: Option<u64>, down: Duration, seed: u64) {
    let node = world.node(site);
    match at {
        None if node.is_up() => node.crash(world, kind, seed, down),
        None => {}
        Some(n) => {
            let at = node.machine.operations() + n;
            node.doom.set(Some(Doom { at, kind, seed, down }));
        }
    }
}

/// The power of a machine fails as one of the next syncs of such files begins: what that sync was to
/// make durable is kept or lost at random.
pub fn power_at_sync(world: &World, site: Site, class: FileClass, n: u64, seed: u64) {
    event!(world, "crash: awaits a sync", "{} {class:?} {n}", site.name());
    let down = Duration::from_millis(5);
    world.node(site).sync_doom.set(Some((class, n, seed, down)));
}

/// A process is not scheduled for a while.
pub fn hang(world: &Rc<World>, site: Site, time: Duration) {
    let Some(process) = world.node(site).process() else { return };
    event!(world, "process: hangs", "{}", site.name());
    process.hang(true);
    tokio::task::spawn_local(async move {
        tokio::time::sleep(time).await;
        process.hang(false);
    });
}

/// Turns a bit over.
pub fn flip(world: &Rc<World>, site: Site, target: FlipTarget, seed: u64) {
    let node = world.node(site);
    if world.licence.state_damaged.borrow().is_some() || world.licence.rolled_back.get() {
        return;
    }
    // A state has no other copy: it is damaged only while nobody would overwrite it.
    if target == FlipTarget::State && node.is_up() {
        node.crash(world, Crash::Kill, seed, Duration::from_millis(5));
    }
    let dir = if target == FlipTarget::Media { "/in" } else { "/site" };
    let files: Vec<_> = node
        .machine
        .files(dir)
        .into_iter()
        .filter(|(path, len)| *len > 0 && FileClass::of(path) == target.class())
        .filter(|(path, _)| target != FlipTarget::State || path.ends_with("state.json"))
        .collect();
    if files.is_empty() {
        return;
    }
    let mut random = SplitMix64::new(seed);
    let (path, len) = &files[random.below(files.len() as u64) as usize];
    let (offset, bit) = (random.below(*len), random.below(8) as u8);
    if node.machine.flip(path, offset, bit).is_err() {
        return;
    }
    world.licence.excess.set(true);
    if site == Site::Replica && matches!(target, FlipTarget::Map | FlipTarget::Journal) {
        world.licence.replica_damaged.set(true);
    }
    world.trace.note(format_args!("flip {} {path:?} {offset}", site.name()));
    world.trace.count(match target {
        FlipTarget::Map => "flip: map",
        FlipTarget::Journal => "flip: journal",
        FlipTarget::Media => "flip: medium",
        FlipTarget::State => "flip: state",
    });
    if target == FlipTarget::State {
        *world.licence.state_damaged.borrow_mut() = Some((site, offset, bit));
        let world = world.clone();
        tokio::task::spawn_local(async move {
            // Until it has been seen to refuse.
            tokio::time::sleep(Duration::from_millis(300)).await;
            mend_state(&world);
        });
    }
}

/// The operator puts a damaged state right, from a copy of it.
pub fn mend_state(world: &World) {
    let damaged = world.licence.state_damaged.borrow_mut().take();
    if let Some((site, offset, bit)) = damaged {
        let path = crate::node::dir().join("state.json");
        let machine = &world.node(site).machine;
        let content = machine.content(&path).expect("the state is there").to_vec();
        if replication::state::decode(&content).is_ok() {
            // A power cut took the damaged file along: its name was not synced yet.
            return;
        }
        machine.flip(path, offset, bit).expect("the state is there");
        event!(world, "operator: the state is put right");
    }
}

/// Takes an image of a machine.
pub fn keep(world: &World, site: Site) {
    if world.licence.state_damaged.borrow().is_some() {
        return;
    }
    world.look();
    let image = world.node(site).machine.snapshot();
    let memory = world.oracle.remember();
    world.kept.borrow_mut()[site as usize] = Some(Kept { image, memory });
    event!(world, "machine: image kept", "{}", site.name());
}

/// A machine comes up from its image.
pub fn roll_back(world: &World, site: Site, seed: u64) {
    // One site only: where both have gone back there is no right side any more.
    if world.licence.rolled_back.get() || world.licence.state_damaged.borrow().is_some() {
        return;
    }
    let kept = world.kept.borrow_mut()[site as usize].take();
    let Some(kept) = kept else { return };
    let node = world.node(site);
    world.before_crash(site);
    node.machine.restore(&kept.image);
    match site {
        Site::Source => world.oracle.roll_back(&kept.memory),
        Site::Replica => stands_fast::put_back(world),
    }
    world.licence.rolled_back.set(true);
    world.licence.excess.set(true);
    world.trace.count(match site {
        Site::Source => "machine: source rolled back",
        Site::Replica => "machine: replica rolled back",
    });
    node.crash(world, Crash::PowerCut, seed, Duration::from_millis(5));
    // Where no process runs nobody sees its end.
    if node.process.borrow().is_none() {
        node.crashed.take();
        if site == Site::Source {
            world.oracle.process_gone();
            flushed_is_kept::after_end(world, Crash::PowerCut);
        }
    }
}
