//! A record of a stream that is damaged in the journal before it was applied: its grain is missing from then
//! on, through the cuts of the stream that follow, until a catch-up has brought it again.

use std::time::Duration;

use bytes::Bytes;
use disk::simulated::{Crash, SimMachine};
use grain::VolumeId;
use replication::source::Change;
use replication::state::Mode;

use crate::oracle::read_volumes;
use crate::rig::{GRAIN, run};
use crate::stream::{Life, SYNC};

pub const MARK: u8 = 0x5a;
pub const PLACE: u64 = 5;

/// Fills a grain of the first volume.
pub async fn fill(life: &mut Life, grain: u64, with: u8) {
    let (start, bytes) = ((grain * GRAIN) as usize, vec![with; GRAIN as usize]);
    life.image[0][start..start + bytes.len()].copy_from_slice(&bytes);
    life.writes.push((0, start, bytes.clone()));
    let data = Change::Data(Bytes::from(bytes));
    life.source.clone().write(VolumeId(0), grain * GRAIN, data, false).await.unwrap();
}

/// Turns over a bit of the marked grain wherever it stands in the journal.
pub fn damage(life: &Life) -> usize {
    let machine = &life.pair.replica_machine;
    let mut places = 0;
    for (path, _) in machine.files("/site/journal") {
        let bytes = machine.content(&path).unwrap().to_vec();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(2048).position(|w| w.iter().all(|b| *b == MARK))
        {
            machine.flip(&path, (at + found + 700) as u64, 2).unwrap();
            places += 1;
            at += found + GRAIN as usize;
            if at >= bytes.len() {
                break;
            }
        }
    }
    places
}

/// What the replica would be after a crash now says that something is missing, or is a state of the source.
async fn honest(life: &Life, seed: u64) {
    let scratch = SimMachine::new(seed);
    scratch.restore(&life.pair.replica_machine.snapshot());
    scratch.crash_seeded(if seed.is_multiple_of(2) { Crash::Kill } else { Crash::PowerCut }, seed);
    let replica = life.pair.start_replica_on(&scratch).await.expect("a start after a crash");
    if replica.is_consistent() {
        let content = read_volumes(&scratch.context(), 2).await;
        assert!(life.prefix_of(&content).is_some(), "consistent, and no state of the source");
    }
}

#[test]
fn a_damaged_record_of_a_stream_is_missing_until_it_was_brought_again() {
    let mut brought = 0;
    for seed in 0..8 {
        run(|| async {
            let mut life = Life::new(90 + seed, SYNC, |pair| {
                pair.serve.stream.epoch = Duration::from_millis(300);
            })
            .await;
            life.mirroring().await;
            let progress = life.session.as_ref().unwrap().progress.clone();
            let before = progress.sent_grains.get();
            // Between two passes of what applies in the background.
            tokio::time::sleep(Duration::from_millis(100 * seed)).await;
            fill(&mut life, PLACE, MARK).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
            damage(&life);
            for round in 0..40 {
                fill(&mut life, 20 + round % 3, round as u8 + 1).await;
                tokio::time::sleep(Duration::from_millis(61)).await;
                if round % 3 == 0 {
                    honest(&life, seed + round).await;
                }
            }
            brought += progress.sent_grains.get() - before;
            if seed.is_multiple_of(2) {
                life.restart_replica(Crash::Kill, seed).await;
                life.connect().await;
            }
            life.equal().await;
            life.mirroring().await;
            assert!(life.replica.is_consistent());
            life.pair.assert_equal().await;
        });
    }
    assert!(brought > 0, "no damaged record was ever applied");
}

/// A stream that falls behind goes on as a catch-up straight into the base, which settles the journal first: what
/// that finds damaged, after both sides have agreed on what moves, is missing still when it is committed.
#[test]
fn a_record_that_is_found_damaged_when_a_direct_catch_up_begins_is_missing_after_it() {
    let mut direct = 0;
    for seed in 0..24 {
        run(|| async {
            let mut life = Life::new(190 + seed, Mode::Async, |pair| {
                pair.serve.stream.epoch = Duration::from_millis(150);
                pair.serve.stream.queue_bytes = 20_000;
                pair.replica_settings.allow_direct = true;
                pair.replica_settings.journal.segment_bytes = 64 << 10;
                pair.replica_settings.journal.max_bytes = 384 << 10;
            })
            .await;
            // Between two passes of what applies in the background.
            tokio::time::sleep(Duration::from_millis(45 * seed)).await;
            fill(&mut life, PLACE, MARK).await;
            tokio::time::sleep(Duration::from_millis(330)).await;
            damage(&life);
            life.delay.set(Duration::from_millis(40));
            for grain in (0..40).filter(|grain| *grain != PLACE) {
                fill(&mut life, grain, grain as u8 + 100).await;
            }
            for round in 0..200 {
                tokio::time::sleep(Duration::from_millis(7)).await;
                direct += u64::from(!life.replica.is_consistent());
                if round % 10 == 0 {
                    honest(&life, seed + round).await;
                }
            }
            life.equal().await;
            life.pair.assert_equal().await;
        });
    }
    assert!(direct > 0, "no catch-up went straight into the base");
}
