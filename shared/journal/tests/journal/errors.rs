//! The Nth operation of the disk fails, for every N: a call that failed promised nothing, what was
//! promised before is kept, and a reopened journal goes on.

use std::cell::Cell;
use std::rc::Rc;

use disk::simulated::{Crash, Fault, OpKind};
use grain::{ErrorClass, Run, SessionId, VolumeId};
use journal::Error;

use crate::world::{World, run};

/// A short fixed history over several segments. Ends at the first error.
async fn history(world: &mut World) -> Result<(), Error> {
    let (one, two) = (world.begin()?, world.begin()?);
    for i in 0..8 {
        let run = Run { volume: VolumeId(0), first: i * 4, count: 4 };
        world.append([one, two][i as usize % 2], i, run, i % 4 == 3).await?;
    }
    world.sync().await?;
    world.commit(&[two]).await?;
    world.apply(20_000).await?;
    for i in 0..4 {
        let run = Run { volume: VolumeId(1), first: i * 2, count: 2 };
        world.append(one, 20 + i, run, false).await?;
    }
    world.commit(&[one]).await?;
    while world.apply(30_000).await? {}
    let last = world.begin()?;
    world.append(last, 1, Run { volume: VolumeId(0), first: 1, count: 3 }, false).await?;
    world.sync().await?;
    world.abort(last).await
}

/// Fails operation `after` from now on, or every one from there when `for_good`.
fn fail_at(world: &World, after: u64, for_good: bool) -> Rc<Cell<Option<OpKind>>> {
    let (hit, at) = (Rc::new(Cell::new(None)), world.machine.operations() + after);
    let seen = hit.clone();
    world.machine.set_fault_hook(move |op| {
        let now = op.number == at || for_good && op.number > at;
        if now {
            seen.set(Some(op.kind));
            return Fault::Io;
        }
        Fault::None
    });
    hit
}

async fn one_failure(after: u64, for_good: bool, crash: Option<Crash>) -> bool {
    let mut world = World::new(after);
    world.make_base().await;
    world.open().await.unwrap();
    let hit = fail_at(&world, after, for_good);
    let done = history(&mut world).await;
    let Some(kind) = hit.get() else { return false };
    if let Err(error) = &done {
        let class = error.class();
        assert!(matches!(class, ErrorClass::Retry | ErrorClass::Operator), "{kind:?}: {error}");
        if error.needs_reopen() {
            assert!(world.journal().failure().is_some());
            refuses_everything(&mut world).await;
        }
    }
    world.machine.clear_fault_hook();
    if let Some(crash) = crash {
        world.machine.crash_seeded(crash, after);
    }
    let recovered = world.open().await.unwrap();
    world.settle(&recovered).await;
    let open: Vec<SessionId> = world.model.sessions.keys().copied().collect();
    world.commit(&open).await.unwrap();
    world.machine.crash_seeded(Crash::PowerCut, after);
    let recovered = world.open().await.unwrap();
    world.settle(&recovered).await;
    true
}

/// A journal that has failed says so to whoever writes.
async fn refuses_everything(world: &mut World) {
    let journal = world.journal();
    assert!(journal.sync().await.unwrap_err().needs_reopen());
    let cut = grain::CutId::from_bytes([9; 16]);
    let body = bytes::Bytes::new();
    assert!(journal.commit(&[], cut, body).await.unwrap_err().needs_reopen());
    assert!(journal.abort(&[]).await.unwrap_err().needs_reopen());
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

#[test]
fn any_operation_of_an_opening_may_fail() {
    run(async {
        let mut after = 0;
        loop {
            let mut world = World::new(77);
            world.make_base().await;
            world.open().await.unwrap();
            assert!(history(&mut world).await.is_ok());
            let session = world.begin().unwrap();
            let run = Run { volume: VolumeId(0), first: 3, count: 3 };
            world.append(session, 1, run, false).await.unwrap();
            world.commit(&[session]).await.unwrap();
            world.machine.crash_seeded(Crash::PowerCut, after);
            let hit = fail_at(&world, after, false);
            let opened = world.open().await;
            world.machine.clear_fault_hook();
            if hit.get().is_none() {
                break;
            }
            if let Ok(recovered) = &opened {
                world.settle(recovered).await;
            }
            world.machine.crash_seeded(Crash::PowerCut, after + 1000);
            let recovered = world.open().await.unwrap();
            world.settle(&recovered).await;
            after += 1;
        }
        assert!(after > 15, "{after} operations");
    });
}
