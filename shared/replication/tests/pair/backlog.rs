//! A promotion does not wait for what is in the journal: it is served from there at once, comes into the volumes
//! behind the application's back, and never over anything that was written since.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::simulated::{Crash, Fault, OpKind, SimMachine};
use grain::VolumeId;
use replication::replica::Replica;
use replication::source::{Change, Source};
use replication::{Error, Result};

use crate::oracle::{assert_same, read_volumes};
use crate::rig::{GRAIN, Pair, fill, run};
use crate::roles::{back, give_way, in_step, meet};

const JOURNAL: &str = "/site/journal";

/// The source is gone, and what it wrote last waits in the replica's journal. Gives its content, too.
async fn waiting(seed: u64) -> (Pair, Rc<Replica>, Vec<Vec<u8>>) {
    let (mut pair, source, replica) = in_step(seed).await;
    pair.replica_machine.set_fault_hook(|op| {
        let change = matches!(op.kind, OpKind::Write | OpKind::Zero);
        let stuck = change && op.path.starts_with("/volumes");
        if stuck { Fault::Slow(Duration::from_secs(86_400)) } else { Fault::None }
    });
    for grain in 0..16 {
        fill(&source, 0, grain, 0xa0 + grain as u8).await;
    }
    let zero = Change::Zero { len: 3 * GRAIN, punch: true, fast: false };
    source.clone().write(VolumeId(0), 20 * GRAIN, zero, false).await.unwrap();
    fill(&source, 1, 2, 0x77).await;
    let cut = source.head();
    let session = pair.connect(&source, &replica);
    tokio::time::sleep(Duration::from_secs(60)).await;
    session.abort_source();
    session.abort_replica();
    pair.replica_machine.clear_fault_hook();
    pair.source_machine.crash_seeded(Crash::Kill, 1);
    pair.replica_machine.crash_seeded(Crash::PowerCut, 2);
    drop((source, replica));
    pair.replica_settings.apply_at_start = false;
    pair.replica_settings.promote_past = 0;
    let replica = pair.start_replica().await.unwrap();
    assert!(replica.is_consistent() && replica.head() != cut, "{:?} {cut:?}", replica.head());
    assert!(replica.journal_stats().waiting_bytes > 16 * GRAIN);
    let content = pair.source_content().await;
    (pair, replica, content)
}

async fn promoted(pair: &Pair, replica: Rc<Replica>) -> Rc<Source> {
    replica.promote(false).await.unwrap();
    drop(replica);
    pair.start_source_on(&pair.replica_machine).await.unwrap()
}

/// What an application sees.
async fn shown(source: &Source) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (id, volume) in source.volumes().iter() {
        all.push(source.read(id, 0, volume.bytes as usize).await?.to_vec());
    }
    Ok(all)
}

async fn assert_shows(source: &Source, expected: &[Vec<u8>], what: &str) {
    assert_same(&shown(source).await.unwrap(), expected, GRAIN as usize, what);
}

/// Nothing gets into the volumes.
fn stuck(machine: &SimMachine) {
    machine.set_fault_hook(|op| {
        let change = matches!(op.kind, OpKind::Write | OpKind::Zero);
        if change && op.path.starts_with("/volumes") { Fault::NoSpace } else { Fault::None }
    });
}

fn lay(content: &mut [Vec<u8>], volume: usize, offset: u64, len: usize, value: u8) {
    content[volume][offset as usize..offset as usize + len].fill(value);
}

async fn put(source: &Rc<Source>, offset: u64, len: usize, value: u8) -> Result<()> {
    let data = Change::Data(Bytes::from(vec![value; len]));
    source.clone().write(VolumeId(0), offset, data, false).await
}

#[test]
fn what_waits_is_served_before_any_of_it_is_in_the_volumes() {
    run(|| async {
        let (pair, replica, mut expected) = waiting(1).await;
        stuck(&pair.replica_machine);
        let source = promoted(&pair, replica).await;
        let (waits, lost) = source.backlog_bytes();
        assert_eq!((waits, lost), (20 * GRAIN, 0));
        assert_shows(&source, &expected, "promoted").await;
        assert_ne!(pair.replica_content().await, expected);
        // Parts of grains, over their borders, and over those of what waits.
        for (offset, len) in [(100, 7), (15 * GRAIN - 3, 2 * GRAIN as usize + 9), (22 * GRAIN, 99)]
        {
            let seen = source.read(VolumeId(0), offset, len).await.unwrap();
            assert!(seen == expected[0][offset as usize..offset as usize + len]);
        }
        // A write over what waits says that the volume takes nothing.
        assert!(put(&source, 5 * GRAIN, 512, 1).await.is_err());
        assert_shows(&source, &expected, "refused").await;
        pair.replica_machine.clear_fault_hook();
        source.in_the_volumes().await.expect_err("it is tried again after a while");
        tokio::time::sleep(Duration::from_secs(10)).await;
        put(&source, 5 * GRAIN + 512, 512, 1).await.unwrap();
        lay(&mut expected, 0, 5 * GRAIN + 512, 512, 1);
        source.in_the_volumes().await.unwrap();
        assert_eq!(source.backlog_bytes(), (0, 0));
        assert_shows(&source, &expected, "all is in the volumes").await;
        assert_same(&pair.replica_content().await, &expected, GRAIN as usize, "the volumes");
        assert!(source.store().with(|s| s.backlog.is_none()));
    });
}

/// The application writes over what waits, the machine dies at each of its operations in turn: what was answered
/// (flushed, for a power cut) is there, nothing old comes over it, and the rest is as it was.
#[test]
fn nothing_old_comes_over_anything_new_whatever_crashes() {
    for kind in [Crash::Kill, Crash::PowerCut] {
        let mut clean = false;
        for at in 0..400 {
            run(|| async {
                let (pair, replica, before) = waiting(2).await;
                replica.promote(false).await.unwrap();
                drop(replica);
                let machine = pair.replica_machine.clone();
                let (first, crashing) = (machine.operations(), machine.clone());
                machine.set_fault_hook(move |op| {
                    if op.number == first + at {
                        crashing.crash_seeded(kind, at);
                    }
                    Fault::None
                });
                let mut answered = Vec::new();
                if let Ok(source) = pair.start_source_on(&machine).await {
                    for (number, offset) in
                        [3 * GRAIN + 512, 9 * GRAIN, 21 * GRAIN + 1024, 9 * GRAIN]
                            .into_iter()
                            .enumerate()
                    {
                        let value = number as u8 + 1;
                        let wrote = put(&source, offset, 2048, value).await.is_ok();
                        if !wrote || source.flush().await.is_err() {
                            break;
                        }
                        answered.push((offset, value));
                    }
                    clean = source.in_the_volumes().await.is_ok();
                }
                machine.clear_fault_hook();
                machine.crash_seeded(kind, at + 1);
                let source = pair.start_source_on(&machine).await.unwrap();
                let now = shown(&source).await.unwrap();
                let mut expected = before;
                for (offset, value) in &answered {
                    lay(&mut expected, 0, *offset, 2048, *value);
                }
                // The write that was under way may be there, or a part of it.
                let under_way =
                    [3 * GRAIN + 512, 9 * GRAIN, 21 * GRAIN + 1024, 9 * GRAIN].get(answered.len());
                if let Some(offset) = under_way {
                    let value = answered.len() as u8 + 1;
                    for sector in (*offset as usize..*offset as usize + 2048).step_by(512) {
                        if now[0][sector] == value {
                            lay(&mut expected, 0, sector as u64, 512, value);
                        }
                    }
                }
                assert_same(&now, &expected, GRAIN as usize, &format!("{kind:?} at {at}"));
                source.in_the_volumes().await.unwrap();
                let volumes = read_volumes(&machine.context(), 2).await;
                assert_same(
                    &volumes,
                    &expected,
                    GRAIN as usize,
                    &format!("{kind:?} at {at}, settled"),
                );
            });
            if clean {
                break;
            }
        }
        assert!(clean, "the last one went through");
    }
}

/// A record that rots in the journal is a bad place of the volume until it is written anew, as on a disk.
#[test]
fn what_the_journal_does_not_give_any_more_is_an_error_until_it_is_written_anew() {
    run(|| async {
        let (pair, replica, mut expected) = waiting(3).await;
        stuck(&pair.replica_machine);
        let source = promoted(&pair, replica).await;
        rot(&pair.replica_machine, 0xa4);
        pair.replica_machine.clear_fault_hook();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let words = source.in_the_volumes().await.unwrap_err().to_string();
        assert!(words.contains("cannot be read any more"), "{words}");
        // All that came in one record with it, and nothing else.
        assert_eq!(source.backlog_bytes(), (16 * GRAIN, 16 * GRAIN));
        assert!(source.read(VolumeId(1), 2 * GRAIN, 512).await.unwrap()[..] == [0x77; 512]);
        source.read(VolumeId(0), 4 * GRAIN + 9, 1).await.unwrap_err();
        put(&source, 4 * GRAIN, 512, 1).await.unwrap_err();
        put(&source, 16 * GRAIN, 512, 1).await.unwrap();
        lay(&mut expected, 0, 16 * GRAIN, 512, 1);
        // It is still so after a crash.
        source.flush().await.unwrap();
        drop(source);
        pair.replica_machine.crash_seeded(Crash::PowerCut, 1);
        let source = pair.start_source_on(&pair.replica_machine).await.unwrap();
        source.in_the_volumes().await.unwrap_err();
        source.read(VolumeId(0), 4 * GRAIN, 1).await.unwrap_err();
        put(&source, 3 * GRAIN, 2 * GRAIN as usize, 7).await.unwrap();
        assert!(source.read(VolumeId(0), 4 * GRAIN, 512).await.unwrap()[..] == [7; 512]);
        put(&source, 0, 16 * GRAIN as usize, 8).await.unwrap();
        lay(&mut expected, 0, 0, 16 * GRAIN as usize, 8);
        source.in_the_volumes().await.unwrap();
        assert_shows(&source, &expected, "written anew").await;
    });
}

fn rot(machine: &SimMachine, value: u8) {
    for (path, _) in machine.files(JOURNAL) {
        let bytes = machine.content(&path).unwrap().to_vec();
        if let Some(at) = bytes.windows(4096).position(|part| part == [value; 4096]) {
            return machine.flip(&path, at as u64, 3).unwrap();
        }
    }
    panic!("no record holds {value:#x}");
}

/// What waits is known as long as one of the two maps can be read.
#[test]
fn one_map_may_rot() {
    run(|| async {
        for rotten in [&[0][..], &[1], &[0, 1]] {
            let (pair, replica, expected) = waiting(4).await;
            replica.promote(false).await.unwrap();
            let maps = replica.store().with(|s| s.backlog.clone()).unwrap().maps;
            drop(replica);
            for which in rotten {
                let path = format!("/site/layers/{:08}.ghm", maps[*which].file);
                pair.replica_machine.flip(&path, 4096 + 100, 1).unwrap();
            }
            match pair.start_source_on(&pair.replica_machine).await {
                Ok(source) => {
                    assert_eq!(rotten.len(), 1);
                    assert_shows(&source, &expected, "with one map").await;
                    source.in_the_volumes().await.unwrap();
                }
                Err(e) => {
                    assert!(rotten.len() == 2 && matches!(e, Error::Corrupt { .. }), "{e}");
                    assert!(e.to_string().contains("promotion"), "{e}");
                }
            }
        }
    });
}

/// The other site comes back while much waits, and the promoted one gives way to it, or it to the promoted one.
#[test]
fn a_site_that_serves_from_its_journal_may_give_way() {
    for promoted_wins in [true, false] {
        run(|| async {
            let (pair, replica, _) = waiting(5).await;
            let common = replica.head().unwrap();
            let source = promoted(&pair, replica).await;
            put(&source, 7 * GRAIN, 512, 0x55).await.unwrap();
            let old = pair.start_source().await.unwrap();
            fill(&old, 0, 30, 0x31).await;
            meet(&pair, &old, &source).await;
            if promoted_wins {
                let rejoined = give_way(&pair, old, common).await;
                back(&pair, &source, &rejoined).ended().await.in_step();
            } else {
                let winner = pair.source_id.to_string();
                source.give_way(&winner, common, JOURNAL.as_ref()).await.unwrap();
                drop(source);
                let rejoined = pair.start_replica().await.unwrap();
                pair.attach(&old, &rejoined).await.in_step();
            }
            pair.assert_equal().await;
        });
    }
}
