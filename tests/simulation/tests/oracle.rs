//! The oracle itself: what it must cry out at, and what it must not.

use std::path::Path;

use disk::OpenMode;
use disk::simulated::{FileContent, SimMachine};
use grain::{Geometry, GrainSize, VolumeId, VolumeShape};
use simulation::cells;
use simulation::oracle::{Counts, Oracle, difference};

const BYTES: u64 = 3 * 4096 + 100;
const VOLUME: VolumeId = VolumeId(0);

fn oracle() -> Oracle {
    let shape = VolumeShape { alias: "v".into(), bytes: BYTES };
    Oracle::new(&Geometry { grain: GrainSize::MIN, volumes: vec![shape] })
}

/// A volume that holds these writes: number, offset, length; 0 makes zeros.
fn volume(writes: &[(u32, u64, u64)]) -> Vec<FileContent> {
    let mut bytes = vec![0; BYTES as usize];
    for (number, offset, len) in writes {
        let range = *offset as usize..(offset + len) as usize;
        match number {
            0 => bytes[range].fill(0),
            number => cells::fill(*number, 0, *offset, &mut bytes[range]),
        }
    }
    let machine = SimMachine::new(0);
    machine.plug_in("/v", &bytes);
    vec![machine.content("/v").expect("it was plugged in")]
}

#[test]
fn what_was_flushed_may_not_be_lost() {
    let oracle = oracle();
    let write = oracle.issue(VOLUME, 64, 128, false);
    let empty = volume(&[]);
    assert!(oracle.check(&empty, Counts::Acknowledged).is_ok(), "not answered yet");
    oracle.acknowledge(write, false);
    assert!(oracle.check(&empty, Counts::Durable).is_ok(), "not flushed yet");
    assert!(oracle.check(&empty, Counts::Acknowledged).is_err(), "answered");
    let begun = oracle.flush_begins();
    oracle.flushed(begun);
    assert!(oracle.check(&empty, Counts::Durable).is_err(), "flushed");
    assert!(oracle.check(&volume(&[(write, 64, 128)]), Counts::Durable).is_ok());
    assert!(oracle.check(&volume(&[(write, 64, 64)]), Counts::Durable).is_err(), "half of it");
}

#[test]
fn a_flush_covers_what_was_answered_before_it_began() {
    let oracle = oracle();
    let begun = oracle.flush_begins();
    let late = oracle.issue(VOLUME, 0, 64, false);
    oracle.acknowledge(late, false);
    oracle.flushed(begun);
    assert!(oracle.check(&volume(&[]), Counts::Durable).is_ok());
}

#[test]
fn overlapping_writes_may_end_either_way_and_older_ones_may_not_come_back() {
    let oracle = oracle();
    let [a, b] = [(); 2].map(|()| oracle.issue(VOLUME, 0, 64, false));
    oracle.acknowledge(b, true);
    oracle.acknowledge(a, true);
    for either in [a, b] {
        assert!(oracle.check(&volume(&[(either, 0, 64)]), Counts::Durable).is_ok());
    }
    let zero = oracle.issue(VOLUME, 0, 64, true);
    oracle.acknowledge(zero, true);
    assert!(oracle.check(&volume(&[(a, 0, 64)]), Counts::Durable).is_err());
    assert!(oracle.check(&volume(&[]), Counts::Durable).is_ok());
}

#[test]
fn what_stands_in_the_wrong_place_is_seen() {
    let oracle = oracle();
    let write = oracle.issue(VOLUME, 0, 64, false);
    let wrong = volume(&[(write, 128, 64)]);
    assert!(oracle.check(&wrong, Counts::Durable).is_err());
    let mut bytes = volume(&[(write, 0, 64)])[0].to_vec();
    bytes[40] ^= 1;
    assert!(cells::read(0, 0, &bytes[..64]).is_err());
    assert!(cells::read(0, 1, &volume(&[(write, 0, 64)])[0].to_vec()[..64]).is_err());
}

#[test]
fn after_a_power_cut_what_is_there_stays() {
    let oracle = oracle();
    let write = oracle.issue(VOLUME, 0, 64, false);
    let there = volume(&[(write, 0, 64)]);
    oracle.settle(&there);
    assert!(oracle.check(&volume(&[]), Counts::Durable).is_err());
    assert!(oracle.check(&there, Counts::Durable).is_ok());
}

#[test]
fn differences_are_named_by_grain() {
    let (left, right) = (volume(&[(7, 4096, 64)]), volume(&[(8, 4096, 64), (9, 12288, 100)]));
    let words = difference(&left, &right, 4096).unwrap();
    assert!(words.contains("0/1 (7,0 against 8,0); 0/3 (0 against 9)"), "{words}");
    assert_eq!(difference(&left, &left, 4096), None);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_plugged_in_file_survives_a_power_cut_and_an_unplugged_one_does_not_come_back() {
    let machine = SimMachine::new(5);
    machine.plug_in("/in/m/a", b"one");
    machine.plug_in("/in/m/a", b"two");
    machine.plug_in("/in/m/b", b"three");
    machine.crash_seeded(disk::simulated::Crash::PowerCut, 1);
    assert_eq!(machine.content("/in/m/a").unwrap().to_vec(), b"two");
    assert_eq!(machine.files("/in").len(), 2);
    machine.unplug("/in/m");
    machine.crash_seeded(disk::simulated::Crash::PowerCut, 2);
    assert!(machine.files("/in").is_empty());
    let gone = machine.context().storage.open(Path::new("/in/m/a"), OpenMode::Read).await;
    assert!(gone.is_err());
}
