//! Bad places of the source's disk: carried as missing, named, never zeros, and pulled when they can be
//! read; nobody is wedged by them, and a consistent replica stays consistent.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use disk::simulated::{Fault, OpKind};
use grain::{GrainSet, Run, VolumeId};
use replication::Error;
use replication::replica::{Condition, Replica};
use replication::source::Source;

use crate::media::{blank_replica, dump, load, ship};
use crate::rig::{Ended, GRAIN, Pair, fill, run, volume_path};

const SIZES: [u64; 2] = [96 * GRAIN, 40 * GRAIN + 100];

/// Grains of the first volume that the source's disk does not give until they are written.
#[derive(Clone, Default)]
struct BadPlaces(Rc<RefCell<BTreeSet<u64>>>);

impl BadPlaces {
    fn install(&self, pair: &Pair) {
        let bad = self.0.clone();
        pair.oracle.fault(move |op| {
            if *op.path != *volume_path(0) {
                return Fault::None;
            }
            let (first, end) = (op.offset / GRAIN, (op.offset + op.len).div_ceil(GRAIN));
            let hit = bad.borrow().range(first..end).next().is_some();
            match op.kind {
                OpKind::Read | OpKind::ReadNow if hit => Fault::Io,
                OpKind::Write | OpKind::WriteNow | OpKind::WriteDurable => {
                    bad.borrow_mut().retain(|grain| !(first..end).contains(grain));
                    Fault::None
                }
                _ => Fault::None,
            }
        });
    }

    fn set(&self, grains: &[u64]) {
        *self.0.borrow_mut() = grains.iter().copied().collect();
    }
}

fn grains(of: &[u64]) -> GrainSet {
    of.iter().map(|first| Run { volume: VolumeId(0), first: *first, count: 1 }).collect()
}

async fn filled(seed: u64) -> (Pair, Rc<Source>, BadPlaces) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in 0..96 {
        fill(&source, 0, grain, grain as u8 + 1).await;
    }
    fill(&source, 1, 7, 0x77).await;
    let bad = BadPlaces::default();
    bad.install(&pair);
    (pair, source, bad)
}

fn unreadable(ended: &Ended) -> String {
    match ended.replica.as_ref().unwrap() {
        Err(Error::Unreadable(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// The volumes are equal but for these grains, which are as they were on the fresh disk.
async fn assert_equal_but(pair: &Pair, missing: &[u64]) {
    let here = pair.source_machine.snapshot();
    let calm = disk::simulated::SimMachine::new(1);
    calm.restore(&here);
    calm.crash_seeded(disk::simulated::Crash::Kill, 0);
    let mut source = crate::oracle::read_volumes(&calm.context(), SIZES.len()).await;
    let replica = pair.replica_content().await;
    for grain in missing {
        let place = (grain * GRAIN) as usize..((grain + 1) * GRAIN) as usize;
        source[0][place.clone()].copy_from_slice(&replica[0][place]);
    }
    assert!(source == replica);
}

async fn seeded_by_media(pair: &Pair, source: &Rc<Source>) -> Rc<Replica> {
    let end = dump(pair, source, 2).await.unwrap();
    assert_eq!(end.unreadable, grains(&[5, 6, 40]));
    assert_eq!(source.store().with(|s| s.sets[0].unreadable_grains), 3);
    let replica = blank_replica(pair).await;
    for number in [1, 2] {
        ship(pair, number).await;
        let report = load(&replica, number).await.unwrap();
        assert_eq!((report.unreadable_grains, report.damaged_grains), (3, 0));
        assert_eq!(report.fingerprint.is_some(), number == 2, "of what is on the media");
    }
    replica
}

#[test]
fn a_dump_names_them_and_a_load_leaves_them_missing() {
    run(|| async {
        let (pair, source, bad) = filled(111).await;
        bad.set(&[5, 6, 40]);
        let replica = seeded_by_media(&pair, &source).await;
        assert_eq!(replica.damaged(), grains(&[5, 6, 40]));
        assert_eq!(replica.unreadable(), grains(&[5, 6, 40]));
        assert_eq!(replica.condition(), Condition::Inconsistent);
        assert_equal_but(&pair, &[5, 6, 40]).await;

        // The link goes as far as it can, says what is missing, and does so again.
        fill(&source, 0, 20, 0xee).await;
        for _ in 0..2 {
            let ended = pair.attach(&source, &replica).await;
            let text = unreadable(&ended);
            let place = format!("bytes {}..{} of volume v0", 5 * GRAIN, 7 * GRAIN);
            assert!(text.contains("3 grains") && text.contains(&place), "{text}");
            let there = ended.source.unwrap().unwrap_err();
            assert!(there.to_string().contains(&place), "{there}");
            assert_eq!(*ended.progress.unreadable.borrow(), grains(&[5, 6, 40]));
            assert_eq!(replica.head(), source.head(), "committed without them");
            assert_eq!(replica.damaged(), grains(&[5, 6, 40]));
            assert_eq!(replica.condition(), Condition::Inconsistent);
            assert_equal_but(&pair, &[5, 6, 40]).await;
        }

        // Written anew, it can be read; the others after the disk was seen to.
        fill(&source, 0, 6, 0xdd).await;
        let text = unreadable(&pair.attach(&source, &replica).await);
        assert!(text.contains("2 grains"), "{text}");
        assert_eq!(replica.damaged(), grains(&[5, 40]));
        bad.set(&[]);
        pair.attach(&source, &replica).await.in_step();
        assert!(replica.damaged().is_empty() && replica.unreadable().is_empty());
        assert_eq!(replica.condition(), Condition::Consistent);
        pair.assert_equal().await;
    });
}

#[test]
fn what_is_missing_after_a_commit_is_missing_after_a_crash() {
    for kind in [disk::simulated::Crash::Kill, disk::simulated::Crash::PowerCut] {
        run(|| async move {
            let (pair, source, bad) = filled(112).await;
            bad.set(&[5, 6, 40]);
            let replica = seeded_by_media(&pair, &source).await;
            unreadable(&pair.attach(&source, &replica).await);
            drop(replica);
            pair.replica_machine.crash_seeded(kind, 3);
            let replica = pair.start_replica().await.unwrap();
            assert_eq!(replica.damaged(), grains(&[5, 6, 40]));
            assert_eq!(replica.condition(), Condition::Inconsistent);
            bad.set(&[]);
            pair.attach(&source, &replica).await.in_step();
            pair.assert_equal().await;
        });
    }
}

/// A consistent replica, and a grain that was written since and cannot be read.
async fn stuck(seed: u64) -> (Pair, Rc<Source>, BadPlaces, Rc<Replica>) {
    let (pair, source, bad) = filled(seed).await;
    pair.seed(&source).await;
    for grain in [10, 11, 12] {
        fill(&source, 0, grain, 0xaa).await;
    }
    bad.set(&[11]);
    let replica = pair.start_replica().await.unwrap();
    (pair, source, bad, replica)
}

#[test]
fn a_consistent_replica_stays_at_its_cut_and_goes_on_when_it_can() {
    run(|| async {
        let (pair, source, bad, replica) = stuck(113).await;
        let held = replica.head().unwrap();
        for _ in 0..3 {
            let text = unreadable(&pair.attach(&source, &replica).await);
            assert!(text.contains(&format!("bytes {}..", 11 * GRAIN)), "{text}");
            assert_eq!(replica.condition(), Condition::Consistent);
            assert_eq!(replica.unreadable(), grains(&[11]));
            assert_eq!(replica.head(), Some(held));
            pair.assert_replica_at(held).await;
            fill(&source, 0, 50, 0xbb).await;
        }
        bad.set(&[]);
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        // What had arrived of the broken sessions was not sent again.
        assert_eq!(ended.progress.sent_grains.get(), 2);
        assert!(replica.unreadable().is_empty());
        pair.assert_equal().await;
    });
}

#[test]
fn the_operator_may_go_on_without_them() {
    run(|| async {
        let (mut pair, source, bad, replica) = stuck(114).await;
        pair.follow.accept_unreadable = true;
        unreadable(&pair.attach(&source, &replica).await);
        assert_eq!(replica.head(), source.head());
        assert_eq!(replica.condition(), Condition::Inconsistent);
        assert_eq!(replica.damaged(), grains(&[11]));
        // The commit that lacks it is in the journal: a crash loses neither.
        drop(replica);
        pair.replica_machine.crash_seeded(disk::simulated::Crash::PowerCut, 5);
        let replica = pair.start_replica().await.unwrap();
        assert_eq!(replica.damaged(), grains(&[11]));
        bad.set(&[]);
        pair.attach(&source, &replica).await.in_step();
        assert_eq!(replica.condition(), Condition::Consistent);
        pair.assert_equal().await;
    });
}

#[test]
fn a_write_to_a_bad_place_during_the_session_loses_nothing_else() {
    run(|| async {
        let (pair, source, bad) = filled(115).await;
        bad.set(&[30]);
        let writer = tokio::task::spawn_local({
            let source = source.clone();
            async move {
                for grain in 28..34 {
                    fill(&source, 0, grain, 0xcc).await;
                }
            }
        });
        let end = dump(&pair, &source, 1).await.unwrap();
        writer.await.unwrap();
        assert!(end.unreadable.is_subset(&grains(&[30])), "{:?}", end.unreadable);
        let replica = blank_replica(&pair).await;
        ship(&pair, 1).await;
        load(&replica, 1).await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn a_broken_disk_is_no_copy() {
    run(|| async {
        let (pair, source, bad) = filled(116).await;
        bad.set(&(0..90).collect::<Vec<_>>());
        let error = dump(&pair, &source, 1).await.unwrap_err();
        assert!(matches!(error, Error::Io { what: "read", .. }), "{error}");
    });
}
