//! The checkers, one a file, apart from the workload: they are fed by events and by the images of the
//! machines' disks.

pub mod alive;
mod backlog;
pub mod bounded;
pub mod cuts_are_points_in_time;
pub mod flushed_is_kept;
pub mod media;
pub mod no_change_missed;
pub mod no_silent_full_copy;
pub mod past;
pub mod promotion;
pub mod replica_consistent;
pub mod stands_fast;
pub mod sync_keeps;
pub mod twin;

use std::rc::Rc;

use disk::simulated::{Crash, SplitMix64};

use crate::event;
use crate::plan::Site;
use crate::process::when_woken;
use crate::world::World;

/// A process has ended: what its machine's disk holds is looked at, before anything starts again.
pub async fn after_end(world: &Rc<World>, site: Site, kind: Crash) {
    if world.has_failed() || world.unwatched.get() {
        return;
    }
    if site == Site::Source {
        flushed_is_kept::after_end(world, kind);
    }
    let mut random = world.split();
    look_at_both(world, Some(site), &mut random).await;
}

/// Both machines as they would be after a crash now.
pub async fn probe(world: &Rc<World>, seed: u64) {
    event!(world, "probe");
    look_at_both(world, None, &mut SplitMix64::new(seed)).await;
}

/// Both machines as they would be after these crashes now.
pub async fn look_at(world: &Rc<World>, kinds: [Crash; 2], seed: u64) {
    world.look();
    let standing = world.standing.get();
    let told = sync_keeps::Told::now(world, kinds[1]);
    let twin = twin::Twin::of(world, kinds, seed);
    flushed_is_kept::of_twin(world, &twin, kinds[0]);
    let other = promotion::Drawn::from(world, kinds, seed);
    attach(world, &twin, standing, told, seed).await;
    promotion::check(world, other).await;
}

/// Starts the copies and attaches them. `standing` is what bound the replica when they were taken.
async fn attach(
    world: &Rc<World>,
    twin: &twin::Twin,
    standing: stands_fast::Standing,
    told: Option<sync_keeps::Told>,
    seed: u64,
) {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(when_woken(async {
            let Some(replica) = replica_consistent::check(world, twin).await else { return };
            stands_fast::check(world, &replica, standing);
            past::check(world, &replica, seed).await;
            if let Some(told) = told {
                told.check(world, twin);
            }
            no_change_missed::check(world, twin, &replica).await;
        }))
        .await;
}

/// Copies of both disks, each crashed unless it just was, are started and attached.
async fn look_at_both(world: &Rc<World>, crashed: Option<Site>, random: &mut SplitMix64) {
    if world.licence.state_damaged.borrow().is_some() {
        return;
    }
    world.look();
    let mut kinds = [Crash::Kill; 2];
    for site in [Site::Source, Site::Replica] {
        let cut = crashed != Some(site) && random.below(2) == 0;
        kinds[site as usize] = if cut { Crash::PowerCut } else { Crash::Kill };
    }
    // The world goes on while the copies are looked at.
    let standing = world.standing.get();
    let told = match crashed {
        None => sync_keeps::Told::now(world, kinds[1]),
        Some(_) => None,
    };
    let seed = random.next_u64();
    let twin = twin::Twin::of(world, kinds, seed);
    if crashed.is_none() {
        flushed_is_kept::of_twin(world, &twin, kinds[0]);
    }
    let other = promotion::Drawn::from(world, kinds, seed);
    attach(world, &twin, standing, told, seed).await;
    promotion::check(world, other).await;
}
