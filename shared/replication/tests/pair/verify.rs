//! Verification: what differs is found and named, what is written or on its way is not, nothing is changed;
//! and it is refused, cut off and asked for from the other site in words.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::OpenMode;
use disk::simulated::{Fault, OpKind, SplitMix64};
use grain::{GrainSet, Run, VolumeId};
use replication::Error;
use replication::replica::{Replica, VerifyRequest};
use replication::source::{Change, Source};
use replication::state::Verified;
use wire::link::{Direction, Fate};

use crate::rig::{GRAIN, Pair, Session, fill, run, volume_path, write};

/// The first in step by several messages of digests, the last grain of the second a short one.
pub const SIZES: [u64; 2] = [3000 * GRAIN, 40 * GRAIN + 100];
const TOTAL: u64 = 3041;
/// Slow enough that a look takes seconds.
const SLOW: VerifyRequest = VerifyRequest { rate_bytes: 2 << 20, repair: false };

pub fn one(volume: u16, grain: u64) -> Run {
    Run { volume: VolumeId(volume), first: grain, count: 1 }
}

pub fn set(grains: &[Run]) -> GrainSet {
    grains.iter().copied().collect()
}

/// A pair that has content almost everywhere and follows: catch-ups come when they are wanted only.
pub async fn following(seed: u64) -> (Pair, Rc<Source>, Rc<Replica>, Session) {
    let (pair, source, replica) = filled(seed).await;
    let session = pair.connect(&source, &replica);
    in_step(&replica).await;
    (pair, source, replica, session)
}

async fn filled(seed: u64) -> (Pair, Rc<Source>, Rc<Replica>) {
    let mut pair = Pair::new(seed, &SIZES).await;
    pair.follow.once = false;
    pair.follow.interval = Duration::from_secs(36_000);
    pair.follow.samples = 0;
    let source = pair.start_source().await.unwrap();
    for first in (0..2900).step_by(100) {
        let content = (0..100 * GRAIN).map(|i| ((first + i / GRAIN) % 251) as u8 + 1).collect();
        let change = Change::Data(bytes::Bytes::from_owner::<Vec<u8>>(content));
        source.clone().write(VolumeId(0), first * GRAIN, change, false).await.unwrap();
    }
    write(&source, 1, 0, (40 * GRAIN + 100) as usize, 9).await;
    pair.seed(&source).await;
    let replica = pair.start_replica().await.unwrap();
    fill(&source, 0, 7, 0xaa).await;
    (pair, source, replica)
}

async fn in_step(replica: &Rc<Replica>) {
    while !replica.condition().name().eq("current") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Changes a byte of these grains at the replica, behind its back.
pub async fn touch(pair: &Pair, grains: &[Run]) {
    let ctx = pair.replica_machine.context();
    for run in grains {
        let path = volume_path(run.volume.index());
        let file = ctx.storage.open(&path, OpenMode::ReadWrite).await.unwrap();
        file.write_at(run.first * GRAIN + 7, vec![0x5a].into()).await.unwrap();
        file.sync_data().await.unwrap();
    }
}

fn proof(replica: &Replica) -> Option<Verified> {
    replica.store().with(|s| s.replica.as_ref().unwrap().proof.verified.clone())
}

/// What both sides keep of the newest verification.
pub fn kept(source: &Source, replica: &Replica) -> Verified {
    let there = source.store().with(|s| s.peers[0].verified.clone());
    let here = proof(replica);
    assert_eq!(here, there);
    here.expect("a verification")
}

/// Waits until the verification under way has been answered about so many grains.
async fn until_done(replica: &Rc<Replica>, grains: u64) {
    loop {
        let job = replica.verify_job().expect("it runs");
        assert!(job.outcome.is_none(), "{:?}", job.outcome);
        if job.done_grains >= grains {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn outcome(replica: &Rc<Replica>) -> replication::Result<Verified> {
    loop {
        if let Some(outcome) = replica.verify_job().expect("it runs").outcome {
            return outcome;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn two_equal_sites_are_proven_and_nothing_is_changed() {
    run(|| async {
        let (pair, source, replica, _session) = following(1).await;
        let cuts = source.store().with(|s| s.lineage.cuts().len());
        let head = replica.head();
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!((found.compared_grains, found.different_grains), (TOTAL, 0), "{found:?}");
        assert_eq!((found.cut, found.share()), (head, 1.0));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(kept(&source, &replica), found);
        assert_eq!(source.store().with(|s| s.lineage.cuts().len()), cuts, "no cut was needed");
        assert_eq!(replica.head(), head);
        pair.assert_equal().await;
    });
}

#[test]
fn what_differs_is_found_twice_named_and_left_alone() {
    run(|| async {
        let (pair, source, replica, _session) = following(2).await;
        let wrong = [one(0, 5), one(0, 1500), one(0, 2950), one(1, 40)];
        touch(&pair, &wrong).await;
        let before = pair.replica_content().await;
        for _ in 0..2 {
            let found = replica.verify(VerifyRequest::default()).await.unwrap();
            assert_eq!(found.places.iter().copied().collect::<GrainSet>(), set(&wrong));
            assert_eq!((found.different_grains, found.compared_grains), (4, TOTAL), "{found:?}");
            assert_eq!((found.repaired_grains, &found.kept), (0, &None));
            assert!((found.share() - (TOTAL - 4) as f64 / TOTAL as f64).abs() < 1e-9);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(kept(&source, &replica), found);
            assert!(pair.replica_content().await == before, "something was written");
        }
    });
}

#[test]
fn what_is_written_meanwhile_is_not_compared_and_not_reported() {
    run(|| async {
        let (pair, source, replica, _session) = following(3).await;
        touch(&pair, &[one(0, 2800), one(0, 2801)]).await;
        // Since the cut, and before it begins.
        fill(&source, 1, 9, 4).await;
        replica.begin_verify(SLOW).unwrap();
        until_done(&replica, 1024).await;
        fill(&source, 0, 2800, 1).await;
        fill(&source, 0, 2801, 2).await;
        fill(&source, 1, 3, 3).await;
        let found = outcome(&replica).await.unwrap();
        assert_eq!((found.different_grains, found.written_grains), (0, 4), "{found:?}");
        assert_eq!(found.compared_grains, TOTAL - 4);
        assert!(found.share() < 1.0);
    });
}

#[test]
fn what_a_catch_up_heals_between_the_two_looks_is_not_reported() {
    run(|| async {
        let (pair, source, replica, _session) = following(4).await;
        touch(&pair, &[one(0, 5), one(0, 6)]).await;
        replica.begin_verify(SLOW).unwrap();
        until_done(&replica, 1024).await;
        // It has been found different by now, and comes with the next catch-up.
        fill(&source, 0, 5, 1).await;
        let found = outcome(&replica).await.unwrap();
        assert_eq!(found.places, [one(0, 6)], "{found:?}");
        assert_eq!((found.different_grains, found.compared_grains), (1, TOTAL));
    });
}

/// What was touched is found, and nothing else, whatever is written and however often catch-ups come.
#[test]
fn under_writes_and_catch_ups_exactly_what_is_wrong_is_found() {
    let (mut written, mut all_hits) = (0, 0);
    for seed in 0..5 {
        let more = Rc::new(Cell::new(0));
        let found_all = Rc::new(Cell::new(0));
        let (seen, hits) = (more.clone(), found_all.clone());
        run(|| async move {
            let mut random = SplitMix64::new(seed);
            let (mut pair, source, replica) = filled(100 + seed).await;
            pair.follow.interval = Duration::from_millis(1 + random.below(800));
            pair.follow.in_step_bytes = 1 << 30;
            let slow = Duration::from_micros(1)..Duration::from_micros(2 + random.below(300));
            pair.source_machine.set_latency(slow.clone());
            pair.replica_machine.set_latency(slow);
            let mut delays = random.split();
            let _session = pair.connect_through(&source, &replica, move |_, _| Fate::Deliver {
                after: Duration::from_micros(delays.below(4000)),
            });
            in_step(&replica).await;
            let stop = Rc::new(Cell::new(false));
            let writing = tokio::task::spawn_local({
                let (source, stop, mut random) = (source.clone(), stop.clone(), random.split());
                async move {
                    while !stop.get() {
                        tokio::time::sleep(Duration::from_micros(random.below(60_000))).await;
                        // Not the grains that are touched.
                        let grain = random.below(1500) * 2;
                        write(&source, 0, grain * GRAIN + 5, 9, random.below(256) as u8).await;
                    }
                }
            });
            let touched: Vec<Run> = (0..4).map(|i| one(0, 301 + 700 * i)).collect();
            touch(&pair, &touched).await;
            for _ in 0..2 {
                let rate_bytes = 2 << 20;
                let found = replica.verify(VerifyRequest { rate_bytes, repair: false }).await;
                let found = found.unwrap();
                let places: GrainSet = found.places.iter().copied().collect();
                assert!(places.is_subset(&set(&touched)), "seed {seed}: {found:?}");
                assert_eq!(found.different_grains, places.len(), "seed {seed}");
                hits.set(hits.get() + found.different_grains);
                assert_eq!(found.compared_grains + found.written_grains, TOTAL, "seed {seed}");
                seen.set(seen.get() + found.written_grains);
            }
            stop.set(true);
            writing.await.unwrap();
            let found = replica.verify(VerifyRequest::default()).await.unwrap();
            assert_eq!(found.places.iter().copied().collect::<GrainSet>(), set(&touched));
        });
        written += more.get();
        all_hits += found_all.get();
    }
    // A write spoils what is just being read, and that may be a place that was touched.
    assert!(all_hits > 25, "{all_hits} of 40 were found amid writes");
    assert!(written > 200, "only {written} grains were written meanwhile");
}

#[test]
fn a_bad_place_at_the_source_proves_nothing_about_the_replica() {
    run(|| async {
        let (pair, _source, replica, _session) = following(5).await;
        let bad = |op: &disk::simulated::Op| {
            let here = *op.path == *volume_path(0) && op.kind == OpKind::Read;
            let hit = op.offset < 21 * GRAIN && op.offset + op.len > 20 * GRAIN;
            if here && hit { Fault::Io } else { Fault::None }
        };
        pair.oracle.fault(bad);
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!(
            (found.different_grains, found.unreadable_at_source_grains),
            (0, 1),
            "{found:?}"
        );
        assert_eq!(found.compared_grains, TOTAL - 1);
        pair.oracle.calm();
    });
}

#[test]
fn a_disk_here_that_gives_nothing_ends_it_with_its_error_and_one_bad_place_is_named() {
    run(|| async {
        let (pair, source, replica, _session) = following(6).await;
        let first_bad = Rc::new(Cell::new(0));
        let from = first_bad.clone();
        pair.replica_machine.set_fault_hook(move |op| {
            let here = *op.path == *volume_path(0) && op.kind == OpKind::Read;
            let hit = op.offset + op.len > from.get() * GRAIN && from.get() < 3000;
            if here && hit { Fault::Io } else { Fault::None }
        });
        first_bad.set(2999);
        // A hole is read by nobody.
        fill(&source, 0, 2999, 1).await;
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!(found.different_grains, 0, "it was written and did not come yet: {found:?}");
        replica.verify_job().unwrap();
        first_bad.set(2899);
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!(found.places.first(), Some(&one(0, 2899)), "{found:?}");
        assert_eq!(found.unreadable_grains, found.different_grains);
        first_bad.set(9999);
        assert_eq!(replica.verify(VerifyRequest::default()).await.unwrap().different_grains, 0);
    });
}

#[test]
fn it_is_refused_in_words_where_it_cannot_be() {
    run(|| async {
        let (pair, source, replica) = filled(7).await;
        let why = |refused: replication::Result<u32>| match refused {
            Err(Error::State(text)) => text,
            other => panic!("{other:?}"),
        };
        let request = VerifyRequest::default();
        assert!(why(replica.begin_verify(request)).contains("not connected"));
        let session = pair.connect(&source, &replica);
        let mut heard = Vec::new();
        while let Err(e) = replica.begin_verify(request) {
            heard.push(e.to_string());
            tokio::task::yield_now().await;
        }
        assert!(heard.iter().any(|text| text.contains("a catch-up is under way")), "{heard:?}");
        assert!(why(replica.begin_verify(request)).contains("under way here already"));
        outcome(&replica).await.unwrap();
        replica.begin_verify(request).unwrap();
        // Whoever follows is dropped, as for a load.
        session.abort_replica();
        drop(session.ended().await);
        assert!(matches!(outcome(&replica).await, Err(Error::Link(_))));
        assert_eq!(replica.condition().name(), "consistent");
        assert!(why(replica.begin_verify(request)).contains("not connected"));
    });
}

#[test]
fn a_link_that_breaks_ends_it_and_changes_nothing() {
    for bytes in [300, 2_000, 40_000, 90_000] {
        run(|| async move {
            let (pair, source, replica) = filled(8).await;
            touch(&pair, &[one(0, 5)]).await;
            let armed = Rc::new(Cell::new(u64::MAX));
            let left = armed.clone();
            let session = pair.connect_through(&source, &replica, move |direction, bytes| {
                let bytes = bytes as u64;
                if direction == Direction::FarToNear && left.get() != u64::MAX {
                    if left.get() < bytes {
                        return Fate::Cut { delivered_bytes: left.get() as usize };
                    }
                    left.set(left.get() - bytes);
                }
                Fate::Deliver { after: Duration::ZERO }
            });
            in_step(&replica).await;
            let (head, before) = (replica.head(), pair.replica_content().await);
            armed.set(bytes);
            let repair = VerifyRequest { rate_bytes: 0, repair: true };
            let ended = replica.verify(repair).await.unwrap_err();
            assert!(
                matches!(&ended, Error::Link(text) if text.contains("session ended")),
                "{ended}"
            );
            assert!(session.ended().await.replica.unwrap().is_err());
            assert_eq!((replica.head(), proof(&replica)), (head, None), "{bytes}");
            assert!(pair.replica_content().await == before, "something was written");
            // No session of it is left, and the next one is as ever.
            let _session = pair.connect(&source, &replica);
            in_step(&replica).await;
            let found = replica.verify(VerifyRequest::default()).await.unwrap();
            assert_eq!(found.places, [one(0, 5)], "{bytes}: {found:?}");
        });
    }
}

#[test]
fn the_operator_of_the_source_asks_for_it_and_hears_what_came_of_it() {
    run(|| async {
        let (pair, source, replica, session) = following(9).await;
        touch(&pair, &[one(1, 11)]).await;
        let hear = async |number| loop {
            if let Some(report) = session.progress.verify.report(number) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        session.progress.verify.ask(1, 0, false);
        let found = hear(1).await.unwrap();
        assert_eq!(found.places, [one(1, 11)]);
        assert_eq!(kept(&source, &replica), found);
        assert_eq!(session.progress.verify.total_grains.get(), 1, "those of the second look");

        replica.begin_verify(SLOW).unwrap();
        until_done(&replica, 1).await;
        session.progress.verify.ask(2, 0, false);
        let refused = hear(2).await.unwrap_err();
        assert!(refused.text.contains("under way here already"), "{refused:?}");
        assert_eq!(outcome(&replica).await.unwrap().places, [one(1, 11)]);
    });
}

#[test]
fn it_can_be_stopped_from_either_site_and_leaves_nothing() {
    run(|| async {
        let (pair, source, replica, session) = following(10).await;
        touch(&pair, &[one(0, 5)]).await;
        assert!(!replica.stop_verify(), "there is none");
        for from_source in [false, true] {
            // So slow that it waits for an hour before it asks a second time.
            let rate_bytes = 1024;
            replica.begin_verify(VerifyRequest { rate_bytes, repair: false }).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let began = tokio::time::Instant::now();
            match from_source {
                true => session.progress.verify.stop(),
                false => assert!(replica.stop_verify()),
            }
            let stopped = outcome(&replica).await;
            assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
            assert!(began.elapsed() < Duration::from_secs(1), "on the paused clock");
            assert_eq!(proof(&replica), None);
        }
        // The next one is not hit by it, and the session goes on.
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!(found.places, [one(0, 5)]);
        fill(&source, 0, 9, 1).await;
    });
}
