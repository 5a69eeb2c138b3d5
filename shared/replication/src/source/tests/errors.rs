//! Errors: every operation of a short life fails once, and what was promised holds after a power cut;
//! a base that cannot be written or synced; layer files that cannot be synced.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};

use super::*;

const USED: [(u16, u64); 6] = [(0, 0), (0, 1), (0, 1030), (0, 3000), (0, 6144), (1, 3)];

fn used() -> GrainSet {
    let mut set = GrainSet::new();
    for (volume, index) in USED {
        set.insert(VolumeId(volume), index);
    }
    set
}

/// A short life: it takes every error in its stride. Gives the cuts that were published, and content.
async fn live(site: &Site, held: &RefCell<Vec<(CutId, Content)>>) -> Result<()> {
    let source = site.start().await?;
    for round in 1..4_u8 {
        for (volume, index) in USED {
            drop(write_tail(&source, volume, index, round).await);
        }
        drop(source.flush().await);
        if let Ok(made) = cut(&source).await {
            let content = site.content_now(&used());
            if publish(&source, made).await.is_ok() {
                held.borrow_mut().push((made, content));
            }
        }
        drop(write_tail(&source, 0, 3000, round + 100).await);
        tokio::time::sleep(Duration::from_secs(6)).await;
        if round == 2 {
            let first = held.borrow().first().map(|(cut, _)| *cut);
            if let Some(first) = first {
                drop(source.acknowledged(PEER, first).await);
            }
        }
    }
    drop(write_tail(&source, 1, 3, 200).await);
    source.stop().await
}

/// The first 5 bytes of a grain, so that the short last ones do.
async fn write_tail(source: &Rc<Source>, volume: u16, index: u64, byte: u8) -> Result<()> {
    write(source, volume, index * GRAIN, vec![byte; 5]).await
}

async fn check(site: &Site, held: &[(CutId, Content)]) {
    let mut site = site.clone();
    site.settings.accept_suspect = true;
    let source = site.start().await.unwrap();
    let now = site.content(&used()).await;
    let acked = source.store().with(|s| s.peers[0].acked.and_then(|c| s.lineage.index_of(c)));
    for (cut, content) in held {
        if source.store().with(|s| s.lineage.index_of(*cut)) < acked {
            continue;
        }
        let known = written_since(&source, *cut).await.unwrap();
        let differ = differing(content, &now);
        assert!(differ.is_subset(&known), "missed {differ:?}");
    }
}

#[test]
fn each_operation_fails_once() {
    for fault in [Fault::Io, Fault::NoSpace] {
        for crash in [Crash::PowerCut, Crash::Kill] {
            let mut last = 0;
            for failing in 0.. {
                let ended = run(async {
                    let site = Site::new(failing).await;
                    let begun = site.machine.operations();
                    site.machine.set_fault_hook(move |op| {
                        if op.number == begun + failing { fault } else { Fault::None }
                    });
                    let held = RefCell::new(Vec::new());
                    drop(live(&site, &held).await);
                    site.machine.clear_fault_hook();
                    let done = site.machine.operations() - begun < failing;
                    site.machine.crash_seeded(crash, failing);
                    check(&site, &held.into_inner()).await;
                    done
                });
                last = failing;
                if ended {
                    break;
                }
            }
            assert!(last > 100, "the life is too short to show anything");
        }
    }
}

/// A sync fails, and the process is killed before it could do anything about it, or a little later: the page
/// cache that the next start finds is not whole.
#[test]
fn each_sync_fails_and_the_process_dies_of_it() {
    for later in [1, 2, 3, 5, 9] {
        for failing in 0.. {
            let ended = run(async {
                let site = Site::new(failing).await;
                let syncs = Cell::new(0);
                let failed_at = Cell::new(u64::MAX);
                let machine = site.machine.clone();
                site.machine.set_fault_hook(move |op| {
                    if op.number >= failed_at.get().saturating_add(later) {
                        machine.crash_seeded(Crash::Kill, failing);
                        return Fault::None;
                    }
                    if op.kind != OpKind::Sync {
                        return Fault::None;
                    }
                    let this = syncs.replace(syncs.get() + 1) == failing;
                    if this {
                        failed_at.set(op.number);
                        return Fault::Io;
                    }
                    Fault::None
                });
                let held = RefCell::new(Vec::new());
                let done = live(&site, &held).await.is_ok();
                site.machine.clear_fault_hook();
                site.machine.crash_seeded(Crash::Kill, failing);
                check(&site, &held.into_inner()).await;
                done
            });
            if ended {
                assert!(failing > 20, "the life is too short to show anything");
                break;
            }
        }
    }
}

#[test]
fn a_failed_base_sync_makes_the_source_suspect_for_good() {
    run(async {
        let site = Site::new(1).await;
        let source = site.start().await.unwrap();
        let made = cut(&source).await.unwrap();
        write_grain(&source, 0, 7, 1).await.unwrap();
        let fails = Rc::new(Cell::new(true));
        let flag = fails.clone();
        site.machine.set_fault_hook(move |op| {
            let base = op.path.starts_with("/volumes") && op.kind == OpKind::Sync;
            if flag.get() && base { Fault::Io } else { Fault::None }
        });
        assert!(source.flush().await.is_err());
        fails.set(false);
        assert!(source.flush().await.is_err(), "a sync that failed was tried again");
        assert!(cut(&source).await.is_err());
        assert!(source.open_layer().contains(VolumeId(0), 7));
        assert!(source.store().with(|s| s.suspect.is_some()));
        drop(source);
        site.machine.crash_seeded(Crash::PowerCut, 1);
        let source = site.start().await.unwrap();
        assert!(source.store().with(|s| s.suspect.is_some()), "suspect until the operator says");
        assert!(written_since(&source, made).await.unwrap().contains(VolumeId(0), 7));
    });
}

#[test]
fn a_failed_durable_write_is_a_failed_sync_but_a_full_disk_is_not() {
    for (fault, suspect) in [(Fault::Io, true), (Fault::NoSpace, false)] {
        run(async {
            let site = Site::new(2).await;
            let source = site.start().await.unwrap();
            site.machine.set_fault_hook(move |op| match op.kind {
                OpKind::WriteDurable if op.path.starts_with("/volumes") => fault,
                _ => Fault::None,
            });
            let change = Change::Data(Bytes::from(vec![1; 512]));
            assert!(source.clone().write(VolumeId(0), 0, change, true).await.is_err());
            assert_eq!(source.flush().await.is_err(), suspect);
            assert_eq!(source.store().with(|s| s.suspect.is_some()), suspect);
        });
    }
}

#[test]
fn a_layer_file_whose_sync_failed_is_left_alone() {
    for closed in [false, true] {
        run(async {
            let site = Site::new(3).await;
            let source = site.start().await.unwrap();
            let made = cut(&source).await.unwrap();
            publish(&source, made).await.unwrap();
            let content = site.content_now(&used());
            write_tail(&source, 0, 0, 9).await.unwrap();
            let open = source.store().with(|s| s.layers.open.unwrap());
            let name = source.tracker.pool().path(open.file);
            let syncs = Rc::new(Cell::new(0));
            let (count, failing) = (syncs.clone(), name.clone());
            site.machine.set_fault_hook(move |op| {
                if op.kind == OpKind::Sync && *op.path == *failing {
                    count.set(count.get() + 1);
                    return Fault::Io;
                }
                Fault::None
            });
            if closed {
                cut(&source).await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(syncs.get(), 1, "a failed sync was tried again");
            assert_eq!(source.crash_excess_bytes(), 0, "its bits are safe elsewhere");
            site.machine.clear_fault_hook();
            site.machine.crash_seeded(Crash::PowerCut, 4);
            check(&site, &[(made, content)]).await;
        });
    }
}

/// The bits of a cut were lost by a failed sync, no fresh file could be made, and the process was killed: a page
/// whose sync failed may be read from the disk again, so its region counts as written.
#[test]
fn bits_that_could_be_saved_nowhere_are_not_trusted_after_a_kill() {
    run(async {
        let site = Site::new(5).await;
        let source = site.start().await.unwrap();
        let made = cut(&source).await.unwrap();
        publish(&source, made).await.unwrap();
        let content = site.content_now(&used());
        write_tail(&source, 0, 1030, 9).await.unwrap();
        site.machine.set_fault_hook(|op| {
            let of_map = op.path.extension().is_some_and(|e| e == "ghm" || e == "new")
                && !op.path.to_string_lossy().contains("state.json");
            let fails = matches!(op.kind, OpKind::Sync | OpKind::Open | OpKind::WriteDurable);
            if of_map && fails { Fault::Io } else { Fault::None }
        });
        assert!(cut(&source).await.is_err());
        site.machine.clear_fault_hook();
        drop(source);
        site.machine.crash(Crash::Kill, &mut |_| 0);
        check(&site, &[(made, content)]).await;
    });
}

/// A run that writes, and whose volumes fail to sync that.
async fn lose_a_sync(site: &Site) {
    let source = site.start().await.unwrap();
    source.flush().await.unwrap();
    for (volume, index) in USED {
        write_tail(&source, volume, index, 7).await.unwrap();
    }
    site.machine.set_fault_hook(|op| match op.kind {
        OpKind::Sync if op.path.starts_with("/volumes") => Fault::Io,
        _ => Fault::None,
    });
    source.flush().await.unwrap_err();
    site.machine.clear_fault_hook();
}

/// What a run lost in a failed sync stays uncertain for the next one, until the machine is booted: a page that
/// reads well may be read from the disk again, as it was before.
#[test]
fn a_stop_after_a_run_that_lost_a_sync_leaves_no_seal_that_the_next_start_refuses() {
    for seed in 0..40 {
        run(async {
            let site = Site::new(seed).await;
            lose_a_sync(&site).await;
            site.machine.crash_seeded(Crash::Kill, 1000 + seed);
            let source = site.start().await.unwrap();
            source.stop().await.unwrap();
            drop(source);
            site.machine.crash_seeded(Crash::Kill, seed);
            let source = site.start().await.expect("a start after a stop in good order");
            source.stop().await.unwrap();
            drop(source);
            // After a boot what is read is what is on the disk.
            site.machine.crash_seeded(Crash::PowerCut, seed);
            let source = site.start().await.unwrap();
            source.stop().await.unwrap();
            assert!(source.store().with(|s| s.run.seal.is_some()));
        });
    }
}

/// The kernel tells of a page that it lost once; a sync in the next process goes well without it. What the
/// peer has then, the disk may not have after a power cut, and the bits have to say so (rule 6).
#[test]
fn a_sync_that_goes_well_after_one_that_was_lost_covers_nothing() {
    let mut lost = 0;
    for seed in 0..40 {
        run(async {
            let mut site = Site::new(seed).await;
            site.settings.accept_suspect = true;
            lose_a_sync(&site).await;
            site.machine.crash_seeded(Crash::Kill, seed);
            let source = site.start().await.unwrap();
            source.flush().await.unwrap();
            let made = cut(&source).await.unwrap();
            let content = site.content_now(&used());
            publish(&source, made).await.unwrap();
            source.acknowledged(PEER, made).await.unwrap();
            drop(source);
            site.machine.crash_seeded(Crash::PowerCut, seed);
            let source = site.start().await.unwrap();
            let differ = differing(&content, &site.content(&used()).await);
            lost += differ.len();
            assert!(differ.is_subset(&written_since(&source, made).await.unwrap()), "seed {seed}");
        });
    }
    assert!(lost > 0, "the disk never lost what the peer has");
}
