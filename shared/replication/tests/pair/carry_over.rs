//! What arrived of a broken catch-up and is still right is not pulled again.

use std::rc::Rc;

use disk::simulated::Crash;
use replication::replica::Replica;
use replication::source::Source;
use wire::link::{Direction, Fate};

use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [256 * GRAIN, 40 * GRAIN + 100];
const WRITTEN: u64 = 100;

/// Breaks after so many bytes from the source.
pub fn breaks_after(bytes: u64) -> impl FnMut(Direction, usize) -> Fate + 'static {
    let mut left = bytes;
    move |direction, bytes| {
        if direction == Direction::NearToFar {
            if left < bytes as u64 {
                return Fate::Cut { delivered_bytes: left as usize };
            }
            left -= bytes as u64;
        }
        Fate::Deliver { after: std::time::Duration::ZERO }
    }
}

/// A seeded pair with grains written since, every other one, so that each is a run of its own.
async fn written(seed: u64, direct: bool) -> (Pair, Rc<Source>, Rc<Replica>) {
    let mut pair = Pair::new(seed, &SIZES).await;
    pair.follow.samples = 0;
    let source = pair.start_source().await.unwrap();
    let cut = pair.seed(&source).await;
    for grain in 0..WRITTEN {
        fill(&source, 0, grain * 2, grain as u8 + 1).await;
    }
    if direct {
        // A fuzzy seed is not consistent: what comes goes straight into the base.
        pair.change_replica(|s| s.replica.as_mut().unwrap().fuzzy_end = Some(cut)).await;
    }
    let replica = pair.start_replica().await.unwrap();
    (pair, source, replica)
}

fn remaining(replica: &Replica) -> u64 {
    replica.facts().copy.partial.expect("a broken catch-up").remaining
}

async fn break_once(pair: &Pair, source: &Rc<Source>, replica: &Rc<Replica>, bytes: u64) -> u64 {
    let ended = pair.connect_through(source, replica, breaks_after(bytes)).ended().await;
    assert!(matches!(ended.replica, Some(Err(_))), "{ended:?}");
    remaining(replica)
}

async fn rest_is_pulled(direct: bool, crash: Option<Crash>) {
    let (pair, source, mut replica) = written(11, direct).await;
    let left = break_once(&pair, &source, &replica, 200_000).await;
    assert!((1..WRITTEN).contains(&left), "{left}");
    assert_eq!(replica.is_consistent(), !direct);
    if let Some(crash) = crash {
        let before = pair.replica_machine.snapshot();
        pair.assert_recovers(&before, crash, 3).await;
        pair.replica_machine.crash_seeded(crash, 5);
        replica = pair.start_replica().await.unwrap();
        assert_eq!(replica.is_consistent(), !direct);
    }
    let left = if direct { remaining(&replica) } else { left };
    assert!(direct || remaining(&replica) == left);
    let ended = pair.attach(&source, &replica).await;
    pair.assert_replica_at(ended.in_step()).await;
    assert_eq!(ended.progress.sent_grains.get(), left);
    assert!(left < WRITTEN, "the direct map keeps what was synced");
    pair.assert_equal().await;
}

#[test]
fn the_journal_keeps_what_arrived() {
    run(|| rest_is_pulled(false, None));
    run(|| rest_is_pulled(false, Some(Crash::Kill)));
    run(|| rest_is_pulled(false, Some(Crash::PowerCut)));
}

#[test]
fn the_base_keeps_what_arrived() {
    run(|| rest_is_pulled(true, None));
    run(|| rest_is_pulled(true, Some(Crash::Kill)));
}

#[test]
fn a_grain_written_again_comes_again_and_wins() {
    for direct in [false, true] {
        run(|| async move {
            let (pair, source, replica) = written(12, direct).await;
            let left = break_once(&pair, &source, &replica, 200_000).await;
            // The first was asked for first, and has arrived.
            fill(&source, 0, 0, 0xee).await;
            let ended = pair.attach(&source, &replica).await;
            ended.in_step();
            assert_eq!(ended.progress.sent_grains.get(), left + 1);
            pair.assert_equal().await;
        });
    }
}

#[test]
fn one_commit_adopts_several_sessions() {
    run(|| async {
        let (pair, source, mut replica) = written(13, false).await;
        let mut left = break_once(&pair, &source, &replica, 120_000).await;
        for round in 0..3 {
            fill(&source, 0, round * 2, 0xd0 + round as u8).await;
            fill(&source, 1, round, 0xc0 + round as u8).await;
            let next = break_once(&pair, &source, &replica, 100_000).await;
            assert!(next < left + 2, "{next} after {left}");
            left = next;
            pair.replica_machine.crash_seeded(Crash::PowerCut, round);
            replica = pair.start_replica().await.unwrap();
            let published = source.store().with(|s| s.peers[0].published.len());
            assert!(published <= 2, "{published} cuts are held for a replica that names one");
        }
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert_eq!(ended.progress.sent_grains.get(), left);
        pair.assert_equal().await;
        assert_eq!(replica.store().with(|s| s.layers.closed.len()), 1);
        let union = source.store().with(|s| s.lineage.cuts().len());
        assert!(union < 8, "cuts that nobody names are gone: {union}");
    });
}

/// Of two sessions that a third takes over, one loses a record to a bit that turns over.
#[test]
fn what_the_journal_lost_of_a_session_before_comes_again() {
    for record in [0, 3, 11, 18] {
        run(|| async move {
            let (pair, source, replica) = written(16, false).await;
            break_once(&pair, &source, &replica, 120_000).await;
            // The first grains come again in the next session, newer.
            for grain in 0..8 {
                fill(&source, 0, grain * 2, 0xe0).await;
            }
            break_once(&pair, &source, &replica, 100_000).await;
            fill(&source, 1, 0, 0xe1).await;
            break_once(&pair, &source, &replica, 60_000).await;
            pair.replica_machine.crash_seeded(Crash::Kill, 0);
            let damaged = damage_record(&pair, record).await;
            assert!(damaged, "there is a record {record}");
            let replica = pair.start_replica().await.unwrap();
            pair.attach(&source, &replica).await.in_step();
            pair.assert_equal().await;
        });
    }
}

/// Turns over a bit in the header of the `n`-th record of one grain in the journal.
async fn damage_record(pair: &Pair, n: usize) -> bool {
    let mut left = n;
    for (path, len) in pair.replica_machine.files("/site/journal") {
        let bytes = pair.replica_machine.content(&path).unwrap().to_vec();
        assert_eq!(bytes.len() as u64, len);
        // A header, and the payload of a grain, filled with one byte.
        for at in (16_384..bytes.len().saturating_sub(128 + GRAIN as usize)).step_by(64) {
            let payload = &bytes[at + 128..at + 128 + GRAIN as usize];
            let head = &bytes[at..at + 64];
            let is_record = head.iter().any(|b| *b != head[0])
                && payload[0] != 0
                && payload.iter().all(|b| *b == payload[0]);
            if is_record && left == 0 {
                pair.replica_machine.flip(&path, at as u64 + 20, 3).unwrap();
                return true;
            }
            left = left.saturating_sub(usize::from(is_record));
        }
    }
    false
}

/// The session before was dropped by whoever held it, and nobody synced what it had brought.
#[test]
fn a_power_cut_after_a_dropped_session_was_taken_over() {
    for seed in 0..12 {
        run(|| async move {
            let (pair, source, replica) = written(17, false).await;
            let slow = |direction, bytes: usize| {
                let after = if direction == Direction::NearToFar { bytes as u64 } else { 0 };
                Fate::Deliver { after: std::time::Duration::from_micros(after) }
            };
            let session = pair.connect_through(&source, &replica, slow);
            let left = || replica.facts().copy.partial.map_or(WRITTEN, |partial| partial.remaining);
            while left() > WRITTEN / 2 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            session.abort_replica();
            session.ended().await;
            let before = left();
            assert!((1..=WRITTEN / 2).contains(&before), "{before}");
            // The next one ends before it brings a grain, as suddenly.
            let session = pair.connect_through(&source, &replica, slow);
            let sessions = || {
                replica.store().with(|s| {
                    s.replica.as_ref().and_then(|r| r.pull.as_ref()).map_or(0, |p| p.sessions.len())
                })
            };
            while sessions() < 2 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            session.abort_replica();
            pair.replica_machine.crash_seeded(Crash::PowerCut, seed);
            session.ended().await;
            let replica = pair.start_replica().await.unwrap();
            pair.attach(&source, &replica).await.in_step();
            pair.assert_equal().await;
        });
    }
}

#[test]
fn bytes_equal_to_the_base_do_not_bring_back_what_a_session_brought() {
    run(|| async {
        let (pair, source, replica) = written(14, false).await;
        break_once(&pair, &source, &replica, 200_000).await;
        // Back to what the replica's base holds; a power cut then makes it suspected, so that it is
        // compared by digest. The base says "the same", the broken session has other bytes.
        fill(&source, 0, 0, 0).await;
        source.flush().await.unwrap();
        pair.source_machine.crash_seeded(Crash::PowerCut, 1);
        let source = pair.start_source().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn a_lost_word_of_the_commit_costs_nothing() {
    run(|| async {
        let (pair, source, replica) = written(15, false).await;
        // The replica's words break off at every place, its commit's among them.
        for bytes in (200..6000).step_by(190) {
            let mut left: u64 = bytes;
            let weather = move |direction, bytes: usize| {
                if direction == Direction::FarToNear {
                    if left < bytes as u64 {
                        return Fate::Cut { delivered_bytes: left as usize };
                    }
                    left -= bytes as u64;
                }
                Fate::Deliver { after: std::time::Duration::ZERO }
            };
            fill(&source, 1, bytes % 40, bytes as u8).await;
            pair.connect_through(&source, &replica, weather).ended().await;
            assert!(replica.is_consistent());
        }
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}
