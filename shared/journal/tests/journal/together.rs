//! Several at once: appends beside syncs, a commit beside an apply, callers that go away.

use std::time::Duration;

use bytes::Bytes;
use disk::simulated::Crash;
use grain::{CutId, GrainSet, Run, VolumeId};

use crate::world::{World, run};

fn grains(first: u64, count: u64) -> Run {
    Run { volume: VolumeId(0), first, count }
}

#[test]
fn a_commit_during_an_apply_keeps_its_newer_version() {
    run(async {
        let mut world = World::new(1);
        world.make_base().await;
        world.open().await.unwrap();
        let old = world.begin().unwrap();
        world.append(old, 1, grains(0, 6), false).await.unwrap();
        world.append(old, 2, grains(10, 6), true).await.unwrap();
        world.commit(&[old]).await.unwrap();
        let journal = world.journal();
        let batch = journal.next_apply(1 << 20).unwrap();
        assert!(journal.next_apply(1 << 20).is_none(), "one batch at a time");
        let new = world.begin().unwrap();
        world.append(new, 1, grains(2, 2), false).await.unwrap();
        world.append(new, 2, grains(12, 1), true).await.unwrap();
        world.append(new, 3, grains(14, 1), false).await.unwrap();
        world.commit(&[new]).await.unwrap();
        world.write_to_base(&batch).await.unwrap();
        journal.applied(batch).await.unwrap();
        let left: GrainSet = journal
            .lookup(world.geometry.span_of(grains(0, 40)))
            .iter()
            .map(|p| p.grains())
            .collect();
        let newer: GrainSet = [grains(2, 2), grains(12, 1), grains(14, 1)].into_iter().collect();
        assert_eq!(left, newer);
        world.check().await;
        world.machine.crash_seeded(Crash::PowerCut, 3);
        let recovered = world.open().await.unwrap();
        world.settle(&recovered).await;
        drop(world.journal().next_apply(1).unwrap());
        assert!(world.journal().next_apply(1).is_some(), "a dropped batch was given back");
    });
}

#[test]
fn many_who_wait_share_a_sync() {
    run(async {
        let mut world = World::new(2);
        world.machine.set_latency(Duration::from_millis(1)..Duration::from_millis(2));
        world.make_base().await;
        world.open().await.unwrap();
        let session = world.begin().unwrap();
        world.append(session, 0, grains(0, 1), false).await.unwrap();
        let journal = world.journal();
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let journal = journal.clone();
                tokio::task::spawn_local(async move { journal.sync().await })
            })
            .collect();
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        assert_eq!(journal.stats().syncs, 1);
        let received = journal.received(session).unwrap();
        assert_eq!(received.durable, received.appended);
        world.append(session, 1, grains(5, 1), false).await.unwrap();
        let received = journal.received(session).unwrap();
        assert_eq!((received.durable.len(), received.appended.len()), (1, 2));
    });
}

/// Callers drop their futures at any moment; what they began is whole or not there, and the log has
/// no holes.
#[test]
fn callers_may_go_away() {
    run(async {
        for seed in 0..60 {
            let mut world = World::new(seed);
            world.machine.set_latency(Duration::from_micros(50)..Duration::from_millis(1));
            world.make_base().await;
            world.open().await.unwrap();
            let session = world.begin().unwrap();
            let journal = world.journal();
            for sequence in 1..=40 {
                let patience = Duration::from_micros(world.below(3000));
                let run = world.random_run(5);
                let action = world.below(4);
                let wait = async {
                    match action {
                        0 => journal.sync().await,
                        _ => world.append(session, sequence, run, false).await,
                    }
                };
                // Too slow: dropped in the middle.
                match tokio::time::timeout(patience, wait).await {
                    Ok(done) => done.unwrap(),
                    Err(_) => continue,
                }
            }
            let list = [session];
            let commit = journal.commit(&list, CutId::from_bytes([3; 16]), Bytes::from("x"));
            let patience = Duration::from_micros(world.below(4000));
            let done = tokio::time::timeout(patience, commit).await;
            // What was left behind runs to its end; a later call waits for it.
            let closed = world.begin().unwrap();
            world.append(closed, 1, grains(0, 1), true).await.unwrap();
            world.sync().await.unwrap();
            let live = journal.stats();
            world.machine.crash_seeded(Crash::PowerCut, seed);
            let recovered = world.open().await.unwrap();
            assert_eq!(recovered.damage, vec![]);
            assert_eq!(recovered.commits.len() as u64, live.commits);
            assert!(done.is_err() || live.commits == 1);
            assert_eq!(recovered.sessions.len() as u64, live.sessions);
            let (_, unreadable) = world.visible().await;
            assert!(unreadable.is_empty());
            assert_eq!(world.journal().stats().waiting_bytes, live.waiting_bytes);
        }
    });
}

/// Appends go on while a sync runs; what came after it started is not called durable.
#[test]
fn only_what_a_sync_covered_is_durable() {
    run(async {
        let mut partly = 0;
        for seed in 0..80 {
            let mut world = World::new(seed);
            world.make_base().await;
            world.open().await.unwrap();
            world.machine.set_latency(Duration::from_micros(100)..Duration::from_millis(1));
            let session = world.begin().unwrap();
            let journal = world.journal();
            for i in 0..30 {
                world.append(session, i, grains(i, 1), i % 4 == 0).await.unwrap();
                if i % 6 == 3 {
                    let journal = journal.clone();
                    tokio::task::spawn_local(async move { drop(journal.sync().await) });
                }
                tokio::time::sleep(Duration::from_micros(world.below(300))).await;
                if journal.received(session).unwrap().durable.len() > seed % 20 {
                    break;
                }
            }
            let before = journal.received(session).unwrap();
            world.machine.crash_seeded(Crash::PowerCut, seed);
            let recovered = world.open().await.unwrap();
            let after = recovered.sessions.first().map(|s| s.received.clone()).unwrap_or_default();
            assert!(before.durable.is_subset(&after), "{before:?} {after:?}");
            assert!(after.is_subset(&before.appended));
            partly += u64::from(after.len() < before.appended.len() && !after.is_empty());
        }
        assert!(partly > 10, "{partly} of 80 lost a part");
    });
}

/// The journal goes on to its next segments while batches are applied: what an apply reports in the
/// middle of that becomes durable all the same.
#[test]
fn applying_goes_on_while_segments_change() {
    run(async {
        for seed in 0..60 {
            let mut world = World::new(seed);
            world.make_base().await;
            world.open().await.unwrap();
            world.machine.set_latency(Duration::from_micros(20)..Duration::from_millis(2));
            world.machine.set_now_chance(0);
            let journal = world.journal();
            // A commit for each grain, so that every batch moves the mark.
            for i in 0..36 {
                let one = world.begin().unwrap();
                world.append(one, i, grains(i, 1), false).await.unwrap();
                world.commit(&[one]).await.unwrap();
            }
            let applier = {
                let journal = journal.clone();
                tokio::task::spawn_local(async move {
                    while let Some(batch) = journal.next_apply(1) {
                        journal.applied(batch).await.unwrap();
                        journal.settle().await.unwrap();
                    }
                })
            };
            let second = world.begin().unwrap();
            for i in 0..40 {
                world.append(second, i, grains(i % 30, 3), false).await.unwrap();
            }
            let ended = tokio::time::timeout(Duration::from_secs(60), applier).await;
            ended.expect("applying comes to its end").unwrap();
            assert!(journal.is_applied());
            world.machine.crash_seeded(Crash::PowerCut, seed);
            let recovered = world.open().await.unwrap();
            assert_eq!((recovered.commits.len(), recovered.damage.len()), (0, 0), "settled");
        }
    });
}
