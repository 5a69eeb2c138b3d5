//! Power cuts and killed processes at any operation: commits that returned are there, others are there
//! whole or not at all, and nothing durable of a session is lost.

use std::cell::Cell;
use std::rc::Rc;

use disk::simulated::{Crash, Fault, SplitMix64};

use crate::round_trip::step;
use crate::world::{World, run};

/// Orders a crash at the operation that is `after` operations from now.
fn crash_after(world: &World, after: u64, kind: Crash, seed: u64) -> Rc<Cell<bool>> {
    let crashed = Rc::new(Cell::new(false));
    let at = world.machine.operations() + after;
    let (machine, done) = (world.machine.clone(), crashed.clone());
    world.machine.set_fault_hook(move |op| {
        if op.number >= at && !done.get() {
            done.set(true);
            machine.crash_seeded(kind, seed);
        }
        Fault::None
    });
    crashed
}

/// Opens until an opening lives, crashing in some of them.
async fn reopen(world: &mut World, random: &mut SplitMix64) {
    for _ in 0..random.next_u64() % 3 {
        let kind = [Crash::Kill, Crash::PowerCut][(random.next_u64() % 2) as usize];
        let crashed = crash_after(world, random.next_u64() % 40, kind, random.next_u64());
        let opened = world.open().await;
        if !crashed.get() {
            world.machine.clear_fault_hook();
            world.settle(&opened.unwrap()).await;
            world.machine.crash_seeded(Crash::PowerCut, random.next_u64());
        }
    }
    world.machine.clear_fault_hook();
    let recovered = world.open().await.unwrap();
    world.settle(&recovered).await;
}

async fn crash_loop(seed: u64, rounds: u64) {
    let mut random = SplitMix64::new(seed);
    let mut world = World::new(seed);
    world.make_base().await;
    world.open().await.unwrap();
    for _ in 0..rounds {
        let kind = [Crash::Kill, Crash::PowerCut][(random.next_u64() % 2) as usize];
        let crashed = crash_after(&world, random.next_u64() % 300, kind, random.next_u64());
        while !crashed.get() {
            // An error is the crash, in the words of the operation that it hit.
            if step(&mut world).await.is_err() {
                assert!(crashed.get());
            }
        }
        reopen(&mut world, &mut random).await;
    }
    while world.apply(50_000).await.unwrap() {}
    world.check().await;
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_promised() {
    run(async {
        for seed in 0..60 {
            crash_loop(seed, 12).await;
        }
    });
}
