//! Limits: a full journal loses nothing and goes on when there is room; memory and disk stay bounded;
//! old records in recycled files stay dead; an agent that starts again and again fills nothing.

use disk::simulated::{Crash, Fault, OpKind};
use grain::{Run, SessionId, VolumeId};
use journal::Error;

use crate::world::{World, run};

async fn fill(world: &mut World, session: SessionId) -> u64 {
    for sequence in 0..10_000 {
        let run = Run { volume: VolumeId(0), first: sequence % 36, count: 4 };
        match world.append(session, sequence, run, false).await {
            Ok(()) => {}
            Err(Error::Full { needed, room, limit }) => {
                assert!(needed > 16_384 && room <= needed && limit == world.config.max_bytes);
                return sequence;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a journal without a bound")
}

#[test]
fn a_full_journal_can_be_committed_applied_and_filled_again() {
    run(async {
        let mut world = World::new(1);
        world.make_base().await;
        world.open().await.unwrap();
        for _ in 0..5 {
            let session = world.begin().unwrap();
            let first = fill(&mut world, session).await;
            assert!(first >= 20, "{first} records fit");
            assert!(fill_again_fails(&mut world, session).await);
            assert!(world.journal().stats().file_bytes <= world.config.max_bytes);
            world.commit(&[session]).await.unwrap();
            world.check().await;
            assert!(world.journal().stats().file_bytes <= world.config.max_bytes);
            while world.apply(60_000).await.unwrap() {}
            world.check().await;
            assert!(world.journal().stats().live_segments <= 2);
        }
    });
}

async fn fill_again_fails(world: &mut World, session: SessionId) -> bool {
    let run = Run { volume: VolumeId(0), first: 0, count: 4 };
    matches!(world.append(session, 1 << 40, run, false).await, Err(Error::Full { .. }))
}

#[test]
fn the_room_that_is_told_for_a_session_is_there() {
    for count in [1, 2, 3, 5, 8, 11] {
        run(async move {
            let mut world = World::new(7);
            world.make_base().await;
            world.open().await.unwrap();
            for _ in 0..3 {
                let (payload, most) = (count * 4096, world.config.max_bytes / 4096);
                let told = world.journal().room_for(payload, most);
                assert!(told > world.config.max_bytes / 4, "{told} of {}", world.config.max_bytes);
                let session = world.begin().unwrap();
                let mut taken = 0;
                for sequence in 0.. {
                    let run = Run { volume: VolumeId(0), first: sequence % 29, count };
                    match world.append(session, sequence, run, false).await {
                        Ok(()) => taken += 128 + payload,
                        Err(Error::Full { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
                assert!(taken >= told, "{count} grains: {told} bytes told, {taken} taken");
                world.commit(&[session]).await.unwrap();
                while world.apply(60_000).await.unwrap() {}
            }
        });
    }
}

/// A session holds the oldest segment, and what of it was not synced fills most of the last: that is copied
/// at every opening, and must not leave an empty segment behind each time.
#[test]
fn restarts_with_a_long_tail_add_no_segments() {
    run(async {
        let mut world = World::new(8);
        world.make_base().await;
        world.open().await.unwrap();
        let session = world.begin().unwrap();
        for sequence in 0..20 {
            let run = Run { volume: VolumeId(0), first: sequence, count: 1 };
            world.append(session, sequence, run, false).await.unwrap();
            if sequence == 4 {
                world.sync().await.unwrap();
            }
        }
        assert_eq!(world.journal().stats().live_segments, 2);
        // The last record is written by a task of its own where it had to wait.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        for seed in 0..40 {
            world.machine.crash_seeded(Crash::Kill, seed);
            let recovered = world.open().await.unwrap();
            assert_eq!(recovered.sessions.len(), 1);
            assert_eq!(recovered.sessions[0].received.len(), 20);
            let stats = world.journal().stats();
            assert!(stats.live_segments <= 3, "{} segments at start {seed}", stats.live_segments);
        }
    });
}

#[test]
fn aborting_makes_room() {
    run(async {
        let mut world = World::new(2);
        world.make_base().await;
        world.open().await.unwrap();
        let before = world.journal().room();
        let session = world.begin().unwrap();
        fill(&mut world, session).await;
        world.abort(session).await.unwrap();
        world.abort(session).await.unwrap();
        assert!(world.journal().room() + 2 * world.config.segment_bytes > before);
        let error = world.journal().begin_session(session, grain::CutId::from_bytes([1; 16]));
        assert!(error.is_ok() || matches!(error, Err(Error::SessionEnded(_))));
        let next = world.begin().unwrap();
        fill(&mut world, next).await;
    });
}

#[test]
fn the_index_has_a_limit() {
    run(async {
        let mut world = World::new(3);
        world.config.max_records = 50;
        world.make_base().await;
        world.open().await.unwrap();
        let session = world.begin().unwrap();
        let zero = Run { volume: VolumeId(0), first: 0, count: 1 };
        for sequence in 0..50 {
            world.append(session, sequence, zero, true).await.unwrap();
        }
        let more = world.append(session, 50, zero, true).await;
        assert!(matches!(more, Err(Error::TooManyRecords { records: 50 })));
        world.commit(&[session]).await.unwrap();
        let next = world.begin().unwrap();
        world.append(next, 1, zero, true).await.unwrap();
        world.check().await;
    });
}

#[test]
fn no_space_for_a_segment_loses_nothing() {
    run(async {
        let mut world = World::new(4);
        world.make_base().await;
        world.open().await.unwrap();
        let session = world.begin().unwrap();
        world.machine.set_fault_hook(|op| match op.kind {
            OpKind::Allocate => Fault::NoSpace,
            _ => Fault::None,
        });
        let mut refused = None;
        for sequence in 0..20 {
            let run = Run { volume: VolumeId(0), first: sequence, count: 4 };
            refused = world.append(session, sequence, run, false).await.err();
            if refused.is_some() {
                break;
            }
        }
        assert!(matches!(refused, Some(Error::NoSpace { .. })), "{refused:?}");
        world.machine.clear_fault_hook();
        let run = Run { volume: VolumeId(0), first: 30, count: 4 };
        world.append(session, 100, run, false).await.unwrap();
        world.commit(&[session]).await.unwrap();
        world.check().await;
    });
}

/// Rounds of different bytes through the same few files; after each, a power cut tears the tail.
#[test]
fn old_records_in_recycled_files_stay_dead() {
    run(async {
        for seed in 0..20 {
            let mut world = World::new(seed);
            world.config.max_bytes = 6 * world.config.segment_bytes;
            world.make_base().await;
            world.open().await.unwrap();
            let mut recycled = 0;
            for round in 0..12 {
                let session = world.begin().unwrap();
                for sequence in 0..12 {
                    let run = Run { volume: VolumeId(0), first: sequence * 3, count: 2 };
                    world.append(session, sequence, run, sequence % 5 == 4).await.unwrap();
                }
                world.commit(&[session]).await.unwrap();
                while world.apply(30_000).await.unwrap() {}
                recycled += world.journal().stats().spare_segments;
                // What stands in the recycled files is now a whole generation of valid records.
                let open = world.begin().unwrap();
                let run = Run { volume: VolumeId(0), first: 20, count: 3 };
                world.append(open, 1, run, false).await.unwrap();
                if round % 3 == 2 {
                    world.machine.crash_seeded(Crash::PowerCut, seed * 100 + round);
                    let recovered = world.open().await.unwrap();
                    world.settle(&recovered).await;
                }
                let open: Vec<_> = world.model.sessions.keys().copied().collect();
                for session in open {
                    world.abort(session).await.unwrap();
                }
            }
            assert!(recycled > 10, "{recycled} spares seen");
        }
    });
}

#[test]
fn starting_again_and_again_fills_nothing() {
    run(async {
        let mut world = World::new(5);
        world.make_base().await;
        world.open().await.unwrap();
        let (old, filler) = (world.begin().unwrap(), world.begin().unwrap());
        let run = Run { volume: VolumeId(1), first: 0, count: 2 };
        world.append(old, 1, run, false).await.unwrap();
        for sequence in 0..6 {
            let run = Run { volume: VolumeId(0), first: sequence * 5, count: 5 };
            world.append(filler, sequence, run, false).await.unwrap();
        }
        world.sync().await.unwrap();
        for seed in 0..60 {
            let kind = [Crash::Kill, Crash::PowerCut][seed as usize % 2];
            world.machine.crash_seeded(kind, seed);
            let recovered = world.open().await.unwrap();
            world.settle(&recovered).await;
            assert_eq!(world.model.sessions.len(), 2);
            assert!(world.journal().stats().live_segments <= 5);
        }
    });
}
