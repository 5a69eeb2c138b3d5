//! Repairs: the source's bytes take the place of what differs, by a catch-up like any other, and what they
//! overwrite is kept.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};
use grain::GrainSet;
use replication::Error;
use replication::replica::VerifyRequest;
use replication::state::Mode;
use wire::link::{Direction, Fate};

use crate::rig::{GRAIN, Pair, fill, run, volume_path};
use crate::verify::{following, kept, one, set, touch};

const REPAIR: VerifyRequest = VerifyRequest { rate_bytes: 0, repair: true };
const KEPT: &str = "/site/kept";

/// What is kept, by volume and offset; `None` for what could not be read.
async fn pieces(pair: &Pair, index: &Path) -> BTreeMap<(String, u64), Option<Vec<u8>>> {
    let storage = pair.replica_machine.context().storage;
    let text = storage.read_all(index, 1 << 20).await.unwrap();
    let index: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&index["version"], &index["why"]), (&1.into(), &"verify --repair".into()));
    let data = Path::new(KEPT).join(index["data"].as_str().unwrap());
    let data = storage.read_all(&data, 1 << 30).await.unwrap();
    let mut found = BTreeMap::new();
    for piece in index["pieces"].as_array().unwrap() {
        let len = piece["bytes"].as_u64().unwrap() as usize;
        let bytes = piece["at"].as_u64().map(|at| data[at as usize..][..len].to_vec());
        if let Some(bytes) = &bytes {
            assert_eq!(piece["blake3"], blake3::hash(bytes).to_hex().to_string());
        }
        let place =
            (piece["volume"].as_str().unwrap().to_owned(), piece["offset"].as_u64().unwrap());
        found.insert(place, bytes);
    }
    found
}

async fn in_kept(pair: &Pair) -> Vec<PathBuf> {
    let storage = pair.replica_machine.context().storage;
    let entries = storage.list(Path::new(KEPT)).await.unwrap_or_default();
    entries.into_iter().map(|entry| Path::new(KEPT).join(entry.name)).collect()
}

#[test]
fn it_brings_both_sites_equal_and_keeps_what_was_overwritten() {
    run(|| async {
        let (pair, source, replica, _session) = following(21).await;
        let wrong = [one(0, 5), one(0, 6), one(0, 2950), one(1, 40)];
        touch(&pair, &wrong).await;
        fill(&source, 0, 100, 0xbb).await;
        let before = pair.replica_content().await;
        let found = replica.verify(REPAIR).await.unwrap();
        assert_eq!((found.different_grains, found.repaired_grains), (4, 4), "{found:?}");
        assert_eq!((found.wrong_grains(), found.places.len()), (0, 3));
        pair.assert_equal().await;
        assert!(replica.is_consistent());
        pair.assert_replica_at(replica.head().unwrap()).await;
        let expected: BTreeMap<_, _> = [(0, 5, 2), (0, 2950, 1), (1, 40, 1)]
            .map(|(volume, grain, count)| {
                let from = (grain * GRAIN) as usize;
                let bytes: &Vec<u8> = &before[volume];
                let to = bytes.len().min(from + (count * GRAIN) as usize);
                ((format!("v{volume}"), grain * GRAIN), Some(bytes[from..to].to_vec()))
            })
            .into();
        let index = found.kept.clone().unwrap();
        assert_eq!(pieces(&pair, &index).await, expected);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(kept(&source, &replica), found);
        // And again: there is nothing to do.
        let found = replica.verify(REPAIR).await.unwrap();
        assert_eq!((found.different_grains, found.kept), (0, None));
        assert_eq!(in_kept(&pair).await.len(), 2);
    });
}

#[test]
fn a_link_that_breaks_in_the_repair_leaves_the_base_and_what_was_kept() {
    run(|| async {
        let (pair, source, replica, first) = following(22).await;
        first.abort_replica();
        drop(first.ended().await);
        let wrong = [one(0, 5), one(0, 900), one(1, 7)];
        touch(&pair, &wrong).await;
        let machine = pair.replica_machine.clone();
        let cut = Rc::new(Cell::new(false));
        let fired = cut.clone();
        let session = pair.connect_through(&source, &replica, move |direction, bytes: usize| {
            // The first grain of the repair is on its way, and what is kept is durable.
            let storage = machine.context().storage;
            let kept = futures_util::FutureExt::now_or_never(async move {
                storage.list(Path::new(KEPT)).await.is_ok_and(|names| names.len() == 2)
            });
            if direction == Direction::NearToFar && bytes as u64 > GRAIN && kept == Some(true) {
                fired.set(true);
                return Fate::Cut { delivered_bytes: bytes / 2 };
            }
            Fate::Deliver { after: Duration::ZERO }
        });
        while replica.condition().name() != "current" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let before = pair.replica_content().await;
        let ended = replica.verify(REPAIR).await.unwrap_err();
        assert!(matches!(ended, Error::Link(_)), "{ended}");
        assert!(cut.get() && session.ended().await.replica.unwrap().is_err());
        assert!(pair.replica_content().await == before, "it counts with its commit only");
        assert!(replica.is_consistent());
        let index = in_kept(&pair).await.into_iter().find(|p| p.extension().unwrap() == "json");
        assert_eq!(pieces(&pair, &index.unwrap()).await.len(), 3);
        // What had begun comes to its end with the next session.
        let _session = pair.connect(&source, &replica);
        while replica.condition().name() != "current" {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!(found.different_grains, 0, "{found:?}");
        pair.assert_equal().await;
    });
}

#[test]
fn a_place_that_cannot_be_read_here_is_written_anew() {
    run(|| async {
        let (pair, _source, replica, _session) = following(23).await;
        touch(&pair, &[one(0, 12)]).await;
        let bad = Rc::new(Cell::new(true));
        let left = bad.clone();
        pair.replica_machine.set_fault_hook(move |op| {
            let hit = op.offset < 11 * GRAIN && op.offset + op.len > 10 * GRAIN;
            if *op.path != *volume_path(0) || !hit {
                return Fault::None;
            }
            if op.kind == OpKind::Write {
                // As a disk does that puts another sector in the place of a bad one.
                left.set(false);
            }
            if op.kind == OpKind::Read && left.get() { Fault::Io } else { Fault::None }
        });
        let found = replica.verify(REPAIR).await.unwrap();
        let places: GrainSet = found.places.iter().copied().collect();
        assert_eq!(places, set(&[one(0, 10), one(0, 12)]), "{found:?}");
        assert_eq!((found.different_grains, found.unreadable_grains), (2, 1));
        assert_eq!(found.repaired_grains, 2);
        let kept = pieces(&pair, &found.kept.unwrap()).await;
        let read: Vec<_> =
            kept.iter().map(|((_, at), bytes)| (at / GRAIN, bytes.is_some())).collect();
        assert_eq!(read, [(10, false), (12, true)]);
        pair.assert_equal().await;
    });
}

#[test]
fn where_nothing_can_be_kept_nothing_is_overwritten() {
    run(|| async {
        let (pair, _source, replica, _session) = following(24).await;
        touch(&pair, &[one(0, 5)]).await;
        let before = pair.replica_content().await;
        pair.replica_machine.set_fault_hook(|op| {
            let data = op.path.extension().is_some_and(|name| name == "data");
            if data && op.kind == OpKind::Write { Fault::NoSpace } else { Fault::None }
        });
        let ended = replica.verify(REPAIR).await.unwrap_err();
        assert!(matches!(ended, Error::Io { .. }), "{ended}");
        assert!(pair.replica_content().await == before);
        assert_eq!(in_kept(&pair).await, [] as [PathBuf; 0], "half of it is taken away");
        // Nor where it would leave too little room for the state of the relationship.
        pair.replica_machine.set_fault_hook(|_| Fault::None);
        pair.replica_machine.set_capacity(70 << 20);
        let ended = replica.verify(REPAIR).await.unwrap_err();
        let words = ended.to_string();
        assert!(words.contains("cannot be kept: 4096 bytes"), "{words}");
        assert!(pair.replica_content().await == before);
        // The session goes on, and the next catch-up brings nothing of it.
        let found = replica.verify(VerifyRequest::default()).await.unwrap();
        assert_eq!(found.different_grains, 1);
    });
}

/// The machine goes down at any operation of a repair: the grain is the old one or the source's, never
/// anything else, and where it is the source's the old one is kept.
#[test]
fn after_a_crash_at_any_moment_the_old_bytes_stand_somewhere() {
    let (mut old, mut new) = (0, 0);
    for at in (0..).step_by(3) {
        let end = Rc::new(Cell::new(false));
        let counts = Rc::new(Cell::new((0, 0)));
        let (over, seen) = (end.clone(), counts.clone());
        run(|| async move {
            let (pair, source, replica, _session) = following(25).await;
            touch(&pair, &[one(0, 5)]).await;
            let machine = pair.replica_machine.clone();
            let snapshot = Rc::new(std::cell::RefCell::new(None));
            let (taken, count) = (snapshot.clone(), Cell::new(0));
            pair.replica_machine.set_fault_hook(move |_| {
                if count.replace(count.get() + 1) == at {
                    *taken.borrow_mut() = Some(machine.snapshot());
                }
                Fault::None
            });
            let bad =
                pair.replica_content().await[0][5 * GRAIN as usize..][..GRAIN as usize].to_vec();
            let good =
                pair.source_content().await[0][5 * GRAIN as usize..][..GRAIN as usize].to_vec();
            replica.verify(REPAIR).await.unwrap();
            let Some(snapshot) = snapshot.borrow_mut().take() else {
                return over.set(true);
            };
            let scratch = disk::simulated::SimMachine::new(at);
            scratch.restore(&snapshot);
            scratch.crash_seeded(Crash::PowerCut, at);
            let restarted = pair.start_replica_on(&scratch).await.unwrap();
            assert!(restarted.is_consistent(), "operation {at}");
            let found = crate::oracle::read_volumes(&scratch.context(), 2).await;
            let found = found[0][5 * GRAIN as usize..][..GRAIN as usize].to_vec();
            if found == good {
                let storage = scratch.context().storage;
                let names = storage.list(Path::new(KEPT)).await.unwrap();
                let data = names.iter().find(|n| n.name.ends_with(".data")).unwrap();
                assert!(names.iter().any(|n| n.name.ends_with(".json")), "operation {at}");
                let data = Path::new(KEPT).join(&data.name);
                assert_eq!(storage.read_all(&data, 1 << 20).await.unwrap(), bad, "operation {at}");
                seen.set((0, 1));
            } else {
                assert!(found == bad, "operation {at}");
                seen.set((1, 0));
            }
            drop(source);
        });
        old += counts.get().0;
        new += counts.get().1;
        if end.get() {
            break;
        }
    }
    assert!(old > 5 && new > 0, "{old} old, {new} new");
}

#[test]
fn a_replica_that_streams_is_verified_and_repaired_and_streams_again() {
    run(|| async {
        let (pair, source, replica, _session) = following(28).await;
        pair.keep(&source, Mode::Async).await;
        let streams = || replica.stream_view().streaming.get();
        let streaming = async || {
            while !streams() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        streaming().await;
        let writing = {
            let source = source.clone();
            tokio::task::spawn_local(async move {
                for round in 0..400_u64 {
                    fill(&source, 0, 500 + round % 60, round as u8).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        };
        touch(&pair, &[one(0, 5), one(1, 40)]).await;
        let look = VerifyRequest { rate_bytes: 8 << 20, repair: false };
        let found = replica.verify(look).await.unwrap();
        assert_eq!((found.different_grains, found.wrong_grains()), (2, 2), "{found:?}");
        streaming().await;
        let found = replica.verify(REPAIR).await.unwrap();
        assert_eq!((found.different_grains, found.repaired_grains), (2, 2), "{found:?}");
        writing.await.unwrap();
        streaming().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(streams(), "it goes on");
        pair.assert_equal().await;
    });
}
