//! Records whose checksums fit and whose counters no journal reaches: an opening must not take them over
//! into the header of the segment that it makes, or the next opening refuses its own writing and loses
//! what stands there.

use std::path::Path;

use disk::simulated::Snapshot;
use grain::{Run, VolumeId};

use crate::world::{World, run};

const RECORDS_START: usize = 16_384;
const RECORD_HEADER: usize = 128;
/// Offsets in a record's header: the sequence (of a commit its number), and the newest commit before it.
const COUNTERS: [usize; 2] = [48, 88];
const COMMIT: u8 = 3;

fn fix_checksum(nonce: &[u8], head: &mut [u8]) {
    let parts = [nonce, &head[..8], &[0; 4], &head[12..]];
    let sum = parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    head[8..12].copy_from_slice(&sum.to_le_bytes());
}

/// Where the records of a segment begin.
fn records(file: &[u8]) -> Vec<usize> {
    let places = (RECORDS_START..file.len() - RECORD_HEADER).step_by(16);
    places.filter(|at| file[*at..*at + 4] == *b"GHJR").collect()
}

/// A commit, and a session that was not committed.
async fn history(world: &mut World) -> Snapshot {
    world.make_base().await;
    world.open().await.unwrap();
    for sessions in 0..2 {
        let session = world.begin().unwrap();
        for i in 0..3 {
            let run = Run { volume: VolumeId(0), first: sessions * 9 + i * 3, count: 2 };
            world.append(session, i, run, false).await.unwrap();
        }
        if sessions == 0 {
            world.commit(&[session]).await.unwrap();
        }
    }
    world.sync().await.unwrap();
    world.machine.snapshot()
}

#[test]
fn a_counter_that_no_journal_reaches_is_not_taken_over() {
    run(async {
        let mut world = World::new(21);
        let snapshot = history(&mut world).await;
        let path = Path::new("/journal/journal-00000001.ghj");
        let good = world.machine.content(path).unwrap().to_vec();
        let places = records(&good);
        assert!(places.len() >= 9, "{places:?}");
        for at in places {
            for counter in COUNTERS {
                // The sequence of a copy record is the caller's own number.
                if counter == 48 && good[at + 4] != COMMIT {
                    continue;
                }
                let mut forged = good.clone();
                let head = &mut forged[at..at + RECORD_HEADER];
                head[counter..counter + 8].copy_from_slice(&u64::MAX.to_le_bytes());
                fix_checksum(&good[24..40], head);
                world.machine.restore(&snapshot);
                world.machine.plug_in(path, &forged);
                let first = world.open().await.unwrap();
                let second = world.open().await.unwrap();
                let place = format!("record at {at}, offset {counter}");
                assert_eq!(first.sessions, second.sessions, "{place}");
                assert_eq!(first.commits, second.commits, "{place}");
            }
        }
    });
}
