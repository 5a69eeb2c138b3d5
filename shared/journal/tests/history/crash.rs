//! Power cuts and killed processes at any operation.

use std::cell::Cell;
use std::rc::Rc;

use disk::simulated::{Crash, Fault, SplitMix64};

use crate::round_trip::step;
use crate::world::{World, run};

/// Orders a crash at the operation that is `after` operations from now.
pub fn crash_after(world: &World, after: u64, kind: Crash, seed: u64) -> Rc<Cell<bool>> {
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

fn any_kind(random: &mut SplitMix64) -> Crash {
    [Crash::Kill, Crash::PowerCut][(random.next_u64() % 2) as usize]
}

/// Opens until an opening lives, crashing in some of them; what was under way is applied again, now and
/// then what was applied before it, too.
async fn reopen(world: &mut World, random: &mut SplitMix64) {
    for _ in 0..random.next_u64() % 3 {
        let kind = any_kind(random);
        let crashed = crash_after(world, random.next_u64() % 40, kind, random.next_u64());
        let opened = world.open().await;
        if !crashed.get() {
            world.machine.clear_fault_hook();
            world.settle(&opened.unwrap()).await;
            world.machine.crash_seeded(Crash::PowerCut, random.next_u64());
        }
    }
    world.machine.clear_fault_hook();
    let opened = world.open().await.unwrap();
    world.settle(&opened).await;
    if random.next_u64().is_multiple_of(3) {
        world.apply_again().await.unwrap();
        // Over what was half applied of the commit after it.
        let here = world.model.under_way.clone();
        if let Some(writes) = here {
            world.overwrite(world.moment(), &writes).await.unwrap();
        }
        world.check().await;
    }
}

async fn crash_loop(seed: u64, rounds: u64) {
    let mut random = SplitMix64::new(seed);
    let mut world = World::new(seed).await;
    for _ in 0..rounds {
        let kind = any_kind(&mut random);
        let crashed = crash_after(&world, random.next_u64() % 400, kind, random.next_u64());
        while !crashed.get() {
            // An error is the crash, in the words of the operation that it hit.
            if let Err(error) = step(&mut world).await {
                assert!(crashed.get(), "{error}");
            }
        }
        reopen(&mut world, &mut random).await;
    }
    world.apply(true).await.unwrap();
    world.check().await;
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_promised() {
    run(async {
        for seed in 0..60 {
            crash_loop(seed, 10).await;
        }
    });
}

/// The same short life, with a crash at each of its operations.
#[test]
fn a_crash_at_every_operation_of_one_life() {
    run(async {
        for kind in [Crash::Kill, Crash::PowerCut] {
            let mut after = 0;
            loop {
                let mut world = World::new(5).await;
                let crashed = crash_after(&world, after, kind, after);
                for _ in 0..12 {
                    if step(&mut world).await.is_err() {
                        break;
                    }
                }
                if !crashed.get() {
                    break;
                }
                let mut random = SplitMix64::new(after);
                reopen(&mut world, &mut random).await;
                world.apply(true).await.unwrap();
                world.check().await;
                after += 1;
            }
            assert!(after > 100, "{after} operations");
        }
    });
}
