//! The Nth operation of the disk fails, for every N.

use std::cell::Cell;
use std::rc::Rc;

use disk::simulated::{Crash, Fault};

use crate::round_trip::step;
use crate::world::{World, run};

fn fault_at(world: &World, after: u64, fault: Fault, for_good: bool) -> Rc<Cell<bool>> {
    let (hit, at) = (Rc::new(Cell::new(false)), world.machine.operations() + after);
    let seen = hit.clone();
    world.machine.set_fault_hook(move |op| {
        let in_history = op.path.starts_with("/history");
        if (op.number == at || for_good && op.number > at) && in_history {
            seen.set(true);
            return fault;
        }
        if op.number >= at {
            seen.set(true)
        }
        Fault::None
    });
    hit
}

async fn one_failure(after: u64, for_good: bool, crash: Option<Crash>) -> bool {
    let mut world = World::new(8).await;
    let hit = fault_at(&world, after, Fault::Io, for_good);
    for _ in 0..14 {
        if step(&mut world).await.is_err() {
            break;
        }
    }
    if !hit.get() {
        return false;
    }
    world.machine.clear_fault_hook();
    let history = world.history();
    if let Some(failure) = history.failure() {
        assert!(failure.needs_reopen());
        assert!(history.seal().await.unwrap_err().needs_reopen());
        assert!(history.sync().await.unwrap_err().needs_reopen());
        assert!(history.reset().await.unwrap_err().needs_reopen());
        // Reading goes on.
        world.model.durable.clear();
        world.check().await;
    }
    if let Some(crash) = crash {
        world.machine.crash_seeded(crash, after);
    }
    world.model.durable.clear();
    let opened = world.open().await.unwrap();
    world.settle(&opened).await;
    // What an opening showed is relied on: no power cut takes it away.
    world.apply(true).await.unwrap();
    world.machine.crash_seeded(Crash::PowerCut, after);
    let opened = world.open().await.unwrap();
    world.settle(&opened).await;
    world.apply(true).await.unwrap();
    world.check().await;
    true
}

#[test]
fn any_one_operation_may_fail() {
    run(async {
        for crash in [None, Some(Crash::Kill), Some(Crash::PowerCut)] {
            let mut after = 0;
            while one_failure(after, false, crash).await {
                after += 1;
            }
            assert!(after > 100, "{after} operations");
        }
    });
}

#[test]
fn the_disk_may_fail_for_good() {
    run(async {
        let mut after = 0;
        while one_failure(after, true, Some(Crash::PowerCut)).await {
            after += 3;
        }
    });
}

/// A write that found no space changed nothing: tried again, all goes on.
#[test]
fn no_space_may_be_tried_again() {
    run(async {
        let (mut after, mut met) = (0, 0);
        loop {
            let mut world = World::new(8).await;
            let hit = fault_at(&world, after, Fault::NoSpace, false);
            for _ in 0..14 {
                let Err(error) = step(&mut world).await else { continue };
                world.machine.clear_fault_hook();
                if world.history().failure().is_none() {
                    met += 1;
                    // Withdrawals and commits under way are done again by later steps.
                    world.check().await;
                    continue;
                }
                assert!(error.needs_reopen(), "{error}");
                let opened = world.open().await.unwrap();
                world.settle(&opened).await;
            }
            if !hit.get() {
                break;
            }
            world.machine.clear_fault_hook();
            world.machine.crash_seeded(Crash::PowerCut, after);
            let opened = world.open().await.unwrap();
            world.settle(&opened).await;
            after += 1;
        }
        assert!(met > 5, "{met} times without space");
    });
}

#[test]
fn any_operation_of_an_opening_may_fail() {
    run(async {
        let mut after = 0;
        loop {
            let mut world = World::new(8).await;
            for _ in 0..14 {
                step(&mut world).await.unwrap();
            }
            world.machine.crash_seeded(Crash::PowerCut, after);
            let hit = fault_at(&world, after, Fault::Io, false);
            let opened = world.open().await;
            let done = !hit.get();
            world.machine.clear_fault_hook();
            if done {
                break;
            }
            if let Ok(opened) = &opened {
                world.settle(opened).await;
            }
            world.machine.crash_seeded(Crash::PowerCut, after + 1000);
            let opened = world.open().await.unwrap();
            world.settle(&opened).await;
            after += 1;
        }
        assert!(after > 10, "{after} operations");
    });
}
