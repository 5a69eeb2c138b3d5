//! Disks that fail at any operation, journals and buffers that are full: the state is right, or an
//! error says what is wrong, and it goes on from there.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault};
use grain::{Run, VolumeId};
use replication::replica::Condition;
use replication::state::StateStore;
use replication::track::MapPool;
use replication::{Error, map::MapKind};
use wire::link::{Direction, Fate};

use crate::rig::{GRAIN, Pair, fill, run, write};

const SIZES: [u64; 2] = [32 * GRAIN, 8 * GRAIN + 9];

async fn scenario(seed: u64, direct: bool) -> Pair {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    fill(&source, 0, 2, 0x11).await;
    pair.seed(&source).await;
    for grain in 0..6 {
        fill(&source, 0, grain * 3, grain as u8).await;
    }
    source.stop().await.unwrap();
    pair.source_machine.crash_seeded(Crash::Kill, 0);
    if direct {
        pair.miss(&[Run { volume: VolumeId(1), first: 2, count: 4 }]).await;
    }
    pair
}

/// Fails operation `number`, counted from now, of one machine. Gives how many there were.
async fn one_failing(number: u64, at_source: bool, direct: bool) -> u64 {
    let mut pair = scenario(60, direct).await;
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    let failing = move || {
        counted.set(counted.get() + 1);
        if counted.get() == number { Fault::Io } else { Fault::None }
    };
    if at_source {
        pair.oracle.fault(move |_| failing());
    } else {
        pair.replica_machine.set_fault_hook(move |_| failing());
    }
    if let (Ok(source), Ok(replica)) = (pair.start_source().await, pair.start_replica().await) {
        pair.attach(&source, &replica).await;
    }
    pair.oracle.calm();
    pair.replica_machine.clear_fault_hook();
    pair.oracle.look(&pair.source_machine);
    let left = pair.replica_machine.snapshot();
    let kind = if number.is_multiple_of(2) { Crash::Kill } else { Crash::PowerCut };
    let found = pair.assert_recovers(&left, kind, number).await;
    assert!(direct || found.is_some(), "a consistent replica stays consistent");
    pair.source_machine.crash_seeded(kind, number);
    pair.replica_machine.crash_seeded(kind, number);
    // A failed sync makes the source suspect until its operator says that its content is right.
    pair.source_settings.accept_suspect = true;
    let source = pair.start_source().await.unwrap();
    let replica = pair.start_replica().await.unwrap();
    pair.attach(&source, &replica).await.in_step();
    pair.assert_equal().await;
    count.get()
}

fn every_operation(at_source: bool, direct: bool) {
    let total = Rc::new(Cell::new(0));
    let seen = total.clone();
    run(|| async move { seen.set(one_failing(u64::MAX, at_source, direct).await) });
    assert!(total.get() > 30, "{}", total.get());
    // All where there are few, else as many, spread over all.
    for number in (1..=total.get()).step_by((total.get() / 120).max(1) as usize) {
        run(|| async move {
            one_failing(number, at_source, direct).await;
        });
    }
}

#[test]
fn any_operation_of_the_replica_may_fail() {
    every_operation(false, false);
}

#[test]
fn any_operation_of_an_inconsistent_replica_may_fail() {
    every_operation(false, true);
}

#[test]
fn any_operation_of_the_source_may_fail() {
    every_operation(true, false);
}

#[test]
fn at_every_step_of_a_session_the_replica_recovers_to_a_cut() {
    for direct in [false, true] {
        run(|| async move {
            let pair = scenario(61, direct).await;
            let source = pair.start_source().await.unwrap();
            let replica = pair.start_replica().await.unwrap();
            pair.replica_machine.record();
            let reached = pair.attach(&source, &replica).await.in_step();
            let recording = pair.replica_machine.recording().unwrap();
            let mut cuts = Vec::new();
            for step in 0..=recording.steps().len() {
                let left = recording.after(step);
                for (kind, seed) in [(Crash::Kill, 0), (Crash::PowerCut, 1), (Crash::PowerCut, 2)] {
                    let found = pair.assert_recovers(&left, kind, seed + step as u64).await;
                    assert!(direct || found.is_some(), "step {step}, {kind:?}");
                    cuts.push(found);
                }
            }
            assert_eq!(cuts.last(), Some(&Some(reached)));
            assert!(cuts.first() != cuts.last());
        });
    }
}

#[test]
fn missing_grains_are_pulled_into_the_base_and_shown_until_then() {
    run(|| async {
        let pair = scenario(62, true).await;
        let source = pair.start_source().await.unwrap();
        let replica = pair.start_replica().await.unwrap();
        assert_eq!(replica.condition(), Condition::Inconsistent);
        assert_eq!(replica.damaged().len(), 4);
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert_eq!(ended.progress.sent_grains.get(), 6 + 4);
        assert_eq!(replica.condition(), Condition::Consistent);
        assert_eq!(replica.damaged().len(), 0);
        pair.assert_equal().await;
    });
}

#[test]
fn what_waits_for_a_medium_is_pulled_only_when_told() {
    run(|| async {
        let mut pair = scenario(63, true).await;
        pair.change_replica(|s| {
            let replica = s.replica.as_mut().unwrap();
            replica.unloaded = replica.damaged.take();
        })
        .await;
        let source = pair.start_source().await.unwrap();
        let replica = pair.start_replica().await.unwrap();
        assert_eq!(replica.condition(), Condition::Loading);
        let ended = pair.attach(&source, &replica).await;
        let error = ended.replica.unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::State(text) if text.contains("--pull-unloaded")),
            "{error}"
        );
        assert_eq!(replica.unloaded().len(), 4);
        pair.follow.pull_unloaded = true;
        pair.attach(&source, &replica).await.in_step();
        assert_eq!(replica.condition(), Condition::Consistent);
        pair.assert_equal().await;
    });
}

#[test]
fn an_old_commit_is_not_applied_again_over_a_direct_catch_up() {
    run(|| async {
        let mut pair = scenario(64, false).await;
        pair.follow.samples = 0;
        let source = pair.start_source().await.unwrap();
        let replica = pair.start_replica().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        // The next one goes straight into the base, and writes a grain that the journal had, too.
        fill(&source, 0, 3, 0x77).await;
        replica
            .store()
            .update(|s| {
                let cut = s.lineage.head().unwrap().id;
                s.replica.as_mut().unwrap().fuzzy_end = Some(cut);
            })
            .await
            .unwrap();
        let cut = pair.attach(&source, &replica).await.in_step();
        for seed in 0..32 {
            let left = pair.replica_machine.snapshot();
            assert_eq!(pair.assert_recovers(&left, Crash::PowerCut, seed).await, Some(cut));
        }
    });
}

#[test]
fn a_journal_that_is_too_small_is_named_and_nothing_moves() {
    run(|| async {
        let mut pair = Pair::new(65, &[1024 * GRAIN]).await;
        pair.replica_settings.journal.segment_bytes = 1100 << 10;
        pair.replica_settings.journal.max_bytes = 4400 << 10;
        let source = pair.start_source().await.unwrap();
        let cut = pair.seed(&source).await;
        for grain in 0..1024 {
            fill(&source, 0, grain, 0x44).await;
        }
        let replica = pair.start_replica().await.unwrap();
        let ended = pair.attach(&source, &replica).await;
        let error = ended.replica.unwrap().unwrap_err();
        assert!(matches!(&error, Error::State(text) if text.contains("--journal-max")), "{error}");
        assert!(replica.is_consistent());
        pair.assert_replica_at(cut).await;
        drop(replica);
        pair.replica_machine.crash_seeded(Crash::Kill, 0);
        pair.replica_settings.allow_direct = true;
        let replica = pair.start_replica().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        assert!(replica.is_consistent());
        pair.assert_equal().await;
    });
}

/// Runs with gaps between them, of which a segment takes one each: no estimate knows that. Where the operator
/// allows it, the catch-up goes on into the base by itself.
#[test]
fn a_journal_that_is_full_halfway_does_not_end_a_catch_up_that_may_be_direct() {
    run(|| async {
        let mut pair = Pair::new(67, &[1024 * GRAIN]).await;
        pair.replica_settings.journal.segment_bytes = 120 << 10;
        pair.replica_settings.journal.max_bytes = 20 * (120 << 10);
        pair.replica_settings.allow_direct = true;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        for piece in 0..25 {
            write(&source, 0, piece * 17 * GRAIN, 16 * GRAIN as usize, 0x44).await;
        }
        let replica = pair.start_replica().await.unwrap();
        let mut broken = 0;
        while let Err(error) = pair.attach(&source, &replica).await.replica.unwrap() {
            assert!(matches!(&error, Error::Link(_)), "trying again would help: {error}");
            broken += 1;
            assert!(broken < 4, "it does not come to an end: {error}");
        }
        assert!(broken > 0, "the journal was not full");
        assert!(replica.is_consistent());
        pair.assert_equal().await;
    });
}

#[test]
fn a_source_that_cannot_preserve_breaks_off_and_goes_on_later() {
    run(|| async {
        const MIB: u64 = 1 << 20;
        let mut pair = Pair::new(66, &[60 * MIB]).await;
        pair.serve.buffer_bytes = 2 * GRAIN;
        pair.serve.preserve_wait = Duration::from_millis(50);
        pair.replica_settings.journal.max_bytes = 256 * MIB;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        for piece in 0..60 {
            write(&source, 0, piece * MIB, MIB as usize, 0x44).await;
        }
        let replica = pair.start_replica().await.unwrap();
        // The link's own queue holds about half of it; the rest waits at the source.
        let slow = |direction, bytes: usize| {
            let after = if direction == Direction::NearToFar { bytes as u64 } else { 0 };
            Fate::Deliver { after: Duration::from_micros(after) }
        };
        let session = pair.connect_through(&source, &replica, slow);
        tokio::time::sleep(Duration::from_secs(4)).await;
        for piece in (50..60).rev() {
            write(&source, 0, piece * MIB, MIB as usize, 0x55).await;
        }
        let ended = session.ended().await;
        let error = ended.replica.unwrap().unwrap_err();
        assert!(matches!(&error, Error::Link(text) if text.contains("preserve")), "{error}");
        let left = replica.facts().copy.partial.unwrap().remaining;
        assert!((1..60 * MIB / GRAIN).contains(&left), "something had arrived: {left}");
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert!(ended.progress.sent_grains.get() <= left + 10 * MIB / GRAIN);
        pair.assert_equal().await;
    });
}

#[test]
fn damaged_maps_cost_the_catch_up_and_not_the_start() {
    for direct in [false, true] {
        for file in 0..3 {
            run(|| async move {
                let pair = scenario(67, direct).await;
                let source = pair.start_source().await.unwrap();
                let replica = pair.start_replica().await.unwrap();
                let mut left = 22_000_u64;
                let breaks = move |direction, bytes: usize| {
                    if direction == Direction::NearToFar {
                        if left < bytes as u64 {
                            return Fate::Cut { delivered_bytes: left as usize };
                        }
                        left -= bytes as u64;
                    }
                    Fate::Deliver { after: Duration::ZERO }
                };
                pair.connect_through(&source, &replica, breaks).ended().await;
                let maps = replica.store().with(|s| {
                    let replica = s.replica.clone().unwrap();
                    let pull = replica.pull.expect("a broken catch-up");
                    [Some(pull.remaining), Some(pull.union), replica.damaged]
                });
                let Some(map) = maps[file] else { return };
                pair.replica_machine.crash_seeded(Crash::Kill, 0);
                let path = format!("/site/layers/{:08}.ghm", map.file);
                pair.replica_machine.flip(path, 20, 3).unwrap();
                let replica = pair.start_replica().await.unwrap();
                assert_eq!(replica.is_consistent(), !direct);
                pair.attach(&source, &replica).await.in_step();
                pair.assert_equal().await;
            });
        }
    }
}

impl Pair {
    /// Zeroes grains of the replica and counts them as damaged, as a load does.
    async fn miss(&self, runs: &[Run]) {
        let ctx = self.replica_machine.context();
        let dir = std::path::Path::new("/site");
        let store = StateStore::open(&ctx, dir).await.unwrap();
        let pool = MapPool::open(&ctx, dir, &store).await.unwrap();
        let (at, map) = pool.create(MapKind::Missing).await.unwrap();
        for run in runs.iter() {
            map.insert(*run);
        }
        map.sync().await.unwrap();
        store.update(|s| s.replica.as_mut().unwrap().damaged = Some(at)).await.unwrap();
    }
}
