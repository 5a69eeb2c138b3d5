//! Links that break and machines that go down at any moment: a replica that was consistent stays so,
//! and in the end both sites hold the same.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, SplitMix64};
use grain::VolumeId;
use replication::source::{Change, Source};
use wire::link::{Direction, Fate};

use crate::rig::{GRAIN, Pair, Session, fill, run};

const SIZES: [u64; 4] = [24 * GRAIN, 9 * GRAIN + 100, 24 * GRAIN, 24 * GRAIN];

fn millis(random: &mut SplitMix64, most: u64) -> Duration {
    Duration::from_micros(random.below(most * 1000))
}

/// An application that writes here and there until its source is gone or it is told to stop.
async fn writes(source: Rc<Source>, mut random: SplitMix64, longest: u64, stop: Rc<Cell<bool>>) {
    while !stop.get() {
        tokio::time::sleep(millis(&mut random, 8)).await;
        let volume = random.below(4) as u16;
        let offset = random.below(SIZES[usize::from(volume)] - 1);
        let len = (1 + random.below(longest)).min(SIZES[usize::from(volume)] - offset);
        let change = match random.below(5) {
            0 => Change::Zero { len, punch: random.below(2) == 0, fast: false },
            _ => Change::Data(vec![random.below(256) as u8; len as usize].into()),
        };
        let durable = random.below(6) == 0;
        if source.clone().write(VolumeId(volume), offset, change, durable).await.is_err() {
            return;
        }
    }
}

/// A link with delays, which breaks after some bytes in half of all cases.
fn weather(random: &mut SplitMix64) -> impl FnMut(Direction, usize) -> Fate + 'static {
    let mut left = match random.below(2) {
        0 => u64::MAX,
        _ => random.below(120_000),
    };
    let mut random = random.split();
    move |_, bytes| {
        if left < bytes as u64 {
            return Fate::Cut { delivered_bytes: left as usize };
        }
        left -= bytes as u64;
        Fate::Deliver { after: millis(&mut random, 3) }
    }
}

/// What happens to a session.
async fn disturb(pair: &Pair, session: Session, random: &mut SplitMix64) -> (bool, bool) {
    let kind = if random.below(2) == 0 { Crash::Kill } else { Crash::PowerCut };
    let choice = random.below(4);
    let wait = millis(random, 120);
    let (seed, first) = (random.next_u64(), random.next_u64());
    match choice {
        0 => {
            tokio::time::sleep(wait).await;
            session.cable.cut();
            session.ended().await;
        }
        1 => {
            tokio::time::sleep(wait).await;
            let before = pair.replica_machine.snapshot();
            pair.replica_machine.crash_seeded(kind, seed);
            session.abort_replica();
            session.ended().await;
            pair.assert_recovers(&before, Crash::Kill, first).await;
            pair.assert_recovers(&before, Crash::PowerCut, first).await;
        }
        2 => {
            tokio::time::sleep(wait).await;
            pair.oracle.look(&pair.source_machine);
            pair.source_machine.crash_seeded(kind, seed);
            session.abort_source();
            session.ended().await;
        }
        _ => drop(session.ended().await),
    }
    (choice == 1, choice == 2)
}

async fn history(seed: u64, direct: bool) {
    let mut random = SplitMix64::new(seed);
    let mut pair = Pair::new(random.next_u64(), &SIZES).await;
    pair.replica_settings.allow_direct = direct;
    let longest = if direct { 16 * GRAIN } else { 2 * GRAIN };
    if direct {
        // Too small for what is written between two sessions now and then.
        pair.replica_settings.journal.segment_bytes = 120 << 10;
        pair.replica_settings.journal.max_bytes = 480 << 10;
    }
    pair.serve.buffer_bytes = 4 * GRAIN + random.below(16) * GRAIN;
    pair.serve.preserve_wait = Duration::from_millis(20);
    let mut source = pair.start_source().await.unwrap();
    for grain in 0..20 {
        fill(&source, 0, grain, 1 + random.below(255) as u8).await;
    }
    pair.seed(&source).await;
    let latency = Duration::ZERO..Duration::from_micros(1 + random.below(2000));
    pair.source_machine.set_latency(latency.clone());
    pair.replica_machine.set_latency(latency);
    let mut replica = pair.start_replica().await.unwrap();
    for _ in 0..4 + random.below(4) {
        let stop = Rc::new(Cell::new(false));
        let writer = writes(source.clone(), random.split(), longest, stop.clone());
        let writer = tokio::task::spawn_local(writer);
        tokio::time::sleep(millis(&mut random, 60)).await;
        let session = pair.connect_through(&source, &replica, weather(&mut random));
        let (replica_gone, source_gone) = disturb(&pair, session, &mut random).await;
        stop.set(true);
        if source_gone {
            writer.abort();
            source = pair.start_source().await.unwrap();
        } else {
            writer.await.unwrap();
        }
        if replica_gone {
            replica = pair.start_replica().await.unwrap();
        }
        if replica.is_consistent() && replica.journal_stats().waiting_bytes == 0 {
            pair.assert_replica_at(replica.head().unwrap()).await;
        }
    }
    // A journal that turns out too small costs a try before the catch-up goes into the base.
    for _ in 0..4 {
        let ended = pair.attach(&source, &replica).await;
        if matches!(ended.replica, Some(Ok(_))) {
            break;
        }
    }
    pair.attach(&source, &replica).await.in_step();
    pair.assert_equal().await;
}

#[test]
fn whatever_breaks_a_consistent_replica_stays_consistent() {
    for seed in 0..20 {
        run(|| history(seed, false));
    }
}

#[test]
fn direct_catch_ups_survive_the_same() {
    for seed in 1000..1020 {
        run(|| history(seed, true));
    }
}
