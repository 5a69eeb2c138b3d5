//! Bits and blocks turned over in every region of a journal: the damage is named, with the grains that
//! it hits, or it costs nothing; never other bytes, never a silent shortening.

use std::path::PathBuf;
use std::rc::Rc;

use disk::simulated::{Crash, Snapshot};
use disk::{OpenMode, Storage};
use grain::{GrainSet, Run, VolumeId};
use journal::{Recovered, What};

use crate::world::{World, run};

/// What an opening told, in a form that can be compared.
#[derive(Debug, PartialEq)]
struct Told {
    commits: Vec<u64>,
    sessions: Vec<(grain::SessionId, GrainSet)>,
}

impl Told {
    fn of(recovered: &Recovered) -> Told {
        Told {
            commits: recovered.commits.iter().map(|c| c.number).collect(),
            sessions: recovered.sessions.iter().map(|s| (s.session, s.received.clone())).collect(),
        }
    }
}

/// Three commits, of which the first is applied and the second partly, over recycled segments, with
/// versions that lie over each other across sessions and commits (and inside a session, unless
/// `disjoint`); and an open session.
async fn history(world: &mut World, disjoint: bool) -> Snapshot {
    world.make_base().await;
    world.open().await.unwrap();
    let mut sequence = 0;
    for round in 0..4 {
        let (one, two) = (world.begin().unwrap(), world.begin().unwrap());
        for i in 0..7 {
            sequence += 1;
            let session = [one, two][i % 2];
            let run = match disjoint {
                true => Run { volume: VolumeId(0), first: (i as u64 * 5 + round) % 36, count: 3 },
                false => world.random_run(3),
            };
            world.append(session, sequence, run, i % 3 == 2).await.unwrap();
        }
        world.commit(&[two, one]).await.unwrap();
        if round == 0 {
            while world.apply(100_000).await.unwrap() {}
        }
    }
    world.apply(8_192).await.unwrap();
    let open = world.begin().unwrap();
    for i in 0..4 {
        let run = world.random_run(3);
        world.append(open, i, run, i == 1).await.unwrap();
    }
    world.sync().await.unwrap();
    world.machine.snapshot()
}

pub async fn segments(storage: &Rc<dyn Storage>) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = PathBuf::from("/journal");
    let mut found = Vec::new();
    for entry in storage.list(&dir).await.unwrap() {
        if entry.name.starts_with("journal-") {
            let path = dir.join(entry.name);
            let bytes = storage.read_all(&path, 1 << 30).await.unwrap();
            found.push((path, bytes));
        }
    }
    found
}

/// Opens after damage and checks that nothing is other than it was without being named. Returns
/// what was named as unknown, and the number of grains named.
async fn judge(world: &mut World, whole: &Told, place: &str) -> (bool, u64) {
    let recovered = world.open().await.unwrap();
    let (seen, unreadable) = world.visible().await;
    let mut missing = unreadable;
    let mut unknown = false;
    for damage in &recovered.damage {
        assert!(!damage.to_string().is_empty());
        match &damage.grains {
            Some(grains) => missing.union_with(grains),
            None => unknown = true,
        }
    }
    if unknown {
        return (true, missing.len());
    }
    for (grain, bytes) in &seen {
        let stamp = world.model.grains.get(grain).copied().unwrap_or(0);
        let right = *bytes == world.bytes_of(*grain, stamp);
        assert!(right || missing.contains(grain.0, grain.1), "{place}: {grain:?} is other bytes");
    }
    let told = Told::of(&recovered);
    assert_eq!(told.commits, whole.commits, "{place}: commits");
    if recovered.damage.is_empty() {
        assert_eq!(told, *whole, "{place}: shortened without a word");
    }
    for (id, received) in &told.sessions {
        let (_, all) =
            whole.sessions.iter().find(|(s, _)| s == id).expect("a session from nowhere");
        assert!(received.is_subset(all), "{place}: grains from nowhere");
    }
    (false, missing.len())
}

#[test]
fn a_bit_flipped_anywhere_costs_its_record() {
    // A record's header lost among records that lie over each other costs their session.
    flip_everywhere(11, false, 4 * 3, 7);
}

#[test]
fn a_bit_flipped_anywhere_costs_its_record_alone_where_none_overlap() {
    flip_everywhere(16, true, 3, 2);
}

fn flip_everywhere(seed: u64, disjoint: bool, most: u64, step: usize) {
    run(async move {
        let mut world = World::new(seed);
        let snapshot = history(&mut world, disjoint).await;
        let whole = Told::of(&world.open().await.unwrap());
        world.machine.restore(&snapshot);
        let storage = world.machine.context().storage;
        let (mut named, mut harmless) = (0, 0);
        for (path, bytes) in segments(&storage).await {
            let used = bytes.iter().rposition(|b| *b != 0).unwrap_or(0) + 1;
            let mut offset = 0;
            while offset < used.min(bytes.len()) {
                // Densely near the start of a record and in what is small; samples of payloads.
                let near = offset < 16_700 || near_header(&bytes, offset);
                world.machine.restore(&snapshot);
                world.machine.flip(&path, offset as u64, (offset % 8) as u8).unwrap();
                let place = format!("{} byte {offset}", path.display());
                let (unknown, missing) = judge(&mut world, &whole, &place).await;
                assert!(!unknown, "{place}: one bit costs everything");
                assert!(missing <= most, "{place}: one bit costs {missing} grains");
                if missing > 0 {
                    named += 1
                } else {
                    harmless += 1
                }
                offset += if near { step } else { 251 };
                if (300..16_000).contains(&offset) && !offset.is_multiple_of(4096) && near {
                    offset += skip_fixed(offset);
                }
            }
        }
        assert!(named > 200 && harmless > 200, "{named} named, {harmless} harmless");
    });
}

/// Skips most of the empty space between header and marks.
fn skip_fixed(offset: usize) -> usize {
    if offset % 4096 > 300 { 203.min(4096 - offset % 4096) } else { 0 }
}

fn near_header(bytes: &[u8], offset: usize) -> bool {
    let from = offset.saturating_sub(300);
    bytes[from..offset.min(bytes.len())].windows(4).any(|w| w == b"GHJR")
}

#[test]
fn a_block_lost_anywhere_is_named() {
    run(async {
        let mut world = World::new(12);
        let snapshot = history(&mut world, false).await;
        let whole = Told::of(&world.open().await.unwrap());
        world.machine.restore(&snapshot);
        let storage = world.machine.context().storage;
        let mut unknown_blocks = 0;
        for (path, bytes) in segments(&storage).await {
            for block in 0..bytes.len() / 4096 {
                world.machine.restore(&snapshot);
                let storage = world.machine.context().storage;
                let file = storage.open(&path, OpenMode::ReadWrite).await.unwrap();
                file.write_at(block as u64 * 4096, vec![0xa5; 4096].into()).await.unwrap();
                let place = format!("{} block {block}", path.display());
                let (unknown, _) = judge(&mut world, &whole, &place).await;
                unknown_blocks += u64::from(unknown);
            }
        }
        assert!(unknown_blocks <= 4, "{unknown_blocks} blocks cost everything");
    });
}

#[test]
fn a_segment_lost_or_cut_short_is_named_at_every_opening() {
    run(async {
        let mut world = World::new(13);
        let snapshot = history(&mut world, false).await;
        world.machine.restore(&snapshot);
        let storage = world.machine.context().storage;
        let files = segments(&storage).await;
        assert!(files.len() >= 3, "{} segments", files.len());
        for (path, bytes) in &files[..files.len() - 1] {
            for cut in [None, Some(0), Some(4096), Some(20_000), Some(bytes.len() as u64 / 2)] {
                world.machine.restore(&snapshot);
                let storage = world.machine.context().storage;
                match cut {
                    None => storage.remove(path).await.unwrap(),
                    Some(len) => {
                        let file = storage.open(path, OpenMode::ReadWrite).await.unwrap();
                        file.set_len(len).await.unwrap();
                    }
                }
                for _ in 0..3 {
                    let recovered = world.open().await.unwrap();
                    assert!(!recovered.damage.is_empty(), "{} cut to {cut:?}", path.display());
                }
            }
        }
    });
}

#[test]
fn the_newest_segment_vanishing_is_named() {
    run(async {
        let mut world = World::new(14);
        let snapshot = history(&mut world, false).await;
        world.machine.restore(&snapshot);
        let storage = world.machine.context().storage;
        let (path, _) = segments(&storage).await.pop().unwrap();
        storage.remove(&path).await.unwrap();
        let recovered = world.open().await.unwrap();
        assert!(recovered.damage.iter().any(|d| d.what == What::SegmentMissing));
    });
}

/// Flips a bit in the first payload that holds `needle`.
async fn flip_payload(world: &World, needle: &[u8]) -> bool {
    let storage = world.machine.context().storage;
    for (path, bytes) in segments(&storage).await {
        if let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) {
            world.machine.flip(&path, at as u64 + 20, 3).unwrap();
            return true;
        }
    }
    false
}

#[test]
fn a_damaged_piece_is_named_when_it_is_applied_and_the_rest_goes_on() {
    run(async {
        let mut world = World::new(15);
        world.make_base().await;
        world.open().await.unwrap();
        let session = world.begin().unwrap();
        let volume = VolumeId(0);
        for i in 0..5 {
            let run = Run { volume, first: i * 3, count: 2 };
            world.append(session, i, run, false).await.unwrap();
        }
        world.commit(&[session]).await.unwrap();
        let hit = (volume, 6);
        let needle = world.bytes_of(hit, world.model.grains[&hit])[..16].to_vec();
        assert!(flip_payload(&world, &needle).await);
        // The flip went through another process's context; this one's journal is gone with it.
        let recovered = world.open().await.unwrap();
        assert_eq!(recovered.damage, vec![], "payloads are checked when they are read");
        let batch = world.journal().next_apply(1 << 20).unwrap();
        let mut damaged = Vec::new();
        for i in 0..batch.len() {
            if let Err(journal::Error::Damaged { run, .. }) = batch.read(i).await {
                damaged.push(run);
            }
        }
        assert_eq!(damaged, vec![Run { volume, first: 6, count: 2 }]);
        world.journal().applied(batch).await.unwrap();
        assert!(world.journal().is_applied());
        assert_eq!(world.journal().stats().damaged_grains, 2);
        world.machine.crash_seeded(Crash::PowerCut, 1);
        let again = world.open().await.unwrap();
        assert_eq!((again.commits.len(), again.damage.len()), (0, 0));
    });
}

/// A grain whose newest record is lost is missing; the older version that is left is not shown.
#[test]
fn an_older_version_never_stands_in_for_a_lost_one() {
    run(async {
        let mut world = World::new(17);
        world.make_base().await;
        world.open().await.unwrap();
        let hit = Run { volume: VolumeId(0), first: 6, count: 2 };
        let mut newest = 0;
        for round in 0..2 {
            let session = world.begin().unwrap();
            let around = Run { volume: VolumeId(0), first: 4, count: 6 };
            if round == 0 {
                world.append(session, 1, around, false).await.unwrap();
            }
            world.append(session, 2, hit, false).await.unwrap();
            newest = world.model.sessions[&session].appends.last().unwrap().stamps[0];
            world.commit(&[session]).await.unwrap();
        }
        // The header stands right before the payload.
        let needle = newest.to_le_bytes();
        let storage = world.machine.context().storage;
        for (path, bytes) in segments(&storage).await {
            if let Some(at) = bytes.windows(8).position(|w| w == needle) {
                world.machine.flip(&path, at as u64 - 100, 1).unwrap();
            }
        }
        let recovered = world.open().await.unwrap();
        let named =
            recovered.damage.iter().filter_map(|d| d.grains.clone()).find(|g| !g.is_empty());
        assert_eq!(named, Some([hit].into_iter().collect()));
        assert!(world.journal().lookup(world.geometry.span_of(hit)).is_empty());
        assert_eq!(recovered.commits.len(), 2);
    });
}
