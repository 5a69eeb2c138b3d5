//! The model as a whole: what a crash may keep and what it must keep, faults, recordings.

use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::{Context, File, FileKind, OpenMode};

fn block_on<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

async fn create(ctx: &Context, path: &str) -> Rc<dyn File> {
    ctx.storage.open(Path::new(path), OpenMode::CreateNew).await.unwrap()
}

async fn content(ctx: &Context, path: &str) -> Option<Vec<u8>> {
    ctx.storage.read_all(Path::new(path), 1 << 30).await.ok()
}

/// Crashes `machine`'s disk as it is now with many seeds; what each leaves at `path`.
async fn outcomes(machine: &SimMachine, kind: Crash, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let start = machine.snapshot();
    let mut found = BTreeSet::new();
    for seed in 0..300 {
        machine.restore(&start);
        machine.crash_seeded(kind, seed);
        found.insert(content(&machine.context(), path).await);
    }
    found
}

#[test]
fn what_was_synced_survives_and_what_was_not_may_tear() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        let file = create(&ctx, "/a").await;
        ctx.storage.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![1; 1024].into()).await.unwrap();
        file.sync_data().await.unwrap();
        let sure = outcomes(&machine, Crash::PowerCut, "/a").await;
        assert_eq!(sure, BTreeSet::from([Some(vec![1; 1024])]));

        let ctx = machine.context();
        let file = ctx.storage.open(Path::new("/a"), OpenMode::ReadWrite).await.unwrap();
        file.write_at(0, vec![2; 1024].into()).await.unwrap();
        let found = outcomes(&machine, Crash::PowerCut, "/a").await;
        let sectors = |a: u8, b: u8| Some([[a; 512], [b; 512]].concat());
        let expected = [sectors(1, 1), sectors(1, 2), sectors(2, 1), sectors(2, 2)];
        assert_eq!(found, BTreeSet::from(expected));
    });
}

#[test]
fn a_sector_never_holds_a_later_write_without_the_earlier() {
    block_on(async {
        let machine = SimMachine::new(1);
        let file = create(&machine.context(), "/a").await;
        file.set_len(512).await.unwrap();
        file.sync_data().await.unwrap();
        machine.context().storage.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, Bytes::from_static(b"A")).await.unwrap();
        file.write_at(1, Bytes::from_static(b"B")).await.unwrap();
        let found = outcomes(&machine, Crash::PowerCut, "/a").await;
        let starts: BTreeSet<_> = found.iter().map(|c| c.as_ref().unwrap()[..2].to_vec()).collect();
        assert_eq!(starts, BTreeSet::from([b"\0\0".to_vec(), b"A\0".to_vec(), b"AB".to_vec()]));
    });
}

#[test]
fn write_durable_is_durable_and_nothing_else_is_promised() {
    block_on(async {
        let machine = SimMachine::new(1);
        let file = create(&machine.context(), "/a").await;
        machine.context().storage.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![1; 512].into()).await.unwrap();
        file.write_durable(512, vec![2; 512].into()).await.unwrap();
        let found = outcomes(&machine, Crash::PowerCut, "/a").await;
        let sectors = |a: u8| Some([[a; 512], [2; 512]].concat());
        assert_eq!(found, BTreeSet::from([sectors(0), sectors(1)]));
    });
}

#[test]
fn a_killed_process_loses_nothing_written_but_all_it_held() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        let boot = ctx.clock.boot_id();
        drop(create(&ctx, "/a").await);
        let file = ctx.storage.open(Path::new("/a"), OpenMode::Exclusive).await.unwrap();
        file.write_at(0, Bytes::from_static(b"kept")).await.unwrap();
        machine.crash_seeded(Crash::Kill, 0);
        assert!(file.len().is_err());
        assert!(file.write_now(b"late", 0).is_err());
        assert!(ctx.storage.exists(Path::new("/a")).await.is_err());
        let ctx = machine.context();
        assert_eq!(ctx.clock.boot_id(), boot);
        assert_eq!(content(&ctx, "/a").await.unwrap(), b"kept");
        ctx.storage.open(Path::new("/a"), OpenMode::Exclusive).await.unwrap();
        machine.crash_seeded(Crash::PowerCut, 0);
        assert_ne!(machine.context().clock.boot_id(), boot);
    });
}

#[test]
fn names_need_their_directory_synced() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        let file = create(&ctx, "/a").await;
        file.write_durable(0, Bytes::from_static(b"a")).await.unwrap();
        let found = outcomes(&machine, Crash::PowerCut, "/a").await;
        assert_eq!(found, BTreeSet::from([None, Some(b"a".to_vec())]));
    });
}

#[test]
fn replace_leaves_the_old_or_the_new_at_every_crash_point() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        ctx.storage.create_dir(Path::new("/d/e")).await.unwrap();
        let path = Path::new("/d/e/state");
        let (old, new) = (vec![b'o'; 700], vec![b'n'; 1500]);
        ctx.storage.replace(path, old.clone().into()).await.unwrap();
        machine.record();
        ctx.storage.replace(path, new.clone().into()).await.unwrap();
        let recording = machine.recording().unwrap();
        assert_eq!(recording.steps().len(), 5, "{:?}", recording.steps());
        let both = BTreeSet::from([Some(old.clone()), Some(new.clone())]);
        for count in 0..=recording.steps().len() {
            machine.restore(&recording.after(count));
            let found = outcomes(&machine, Crash::PowerCut, "/d/e/state").await;
            assert!(found.is_subset(&both), "after {count} steps");
            if count == recording.steps().len() {
                assert_eq!(found, BTreeSet::from([Some(new.clone())]));
            }
        }
    });
}

#[test]
fn a_shorter_file_that_grew_again_never_shows_what_was_cut_off() {
    block_on(async {
        let machine = SimMachine::new(1);
        let file = create(&machine.context(), "/a").await;
        file.write_at(0, vec![1; 2048].into()).await.unwrap();
        file.sync_data().await.unwrap();
        machine.context().storage.sync_dir(Path::new("/")).await.unwrap();
        file.set_len(512).await.unwrap();
        file.write_at(1536, vec![3; 512].into()).await.unwrap();
        let found = outcomes(&machine, Crash::PowerCut, "/a").await;
        let one = [1; 512];
        let expected = BTreeSet::from([
            Some([one; 4].concat()),
            Some(one.to_vec()),
            Some([one, [0; 512], [0; 512], [0; 512]].concat()),
            Some([one, [0; 512], [0; 512], [3; 512]].concat()),
        ]);
        assert_eq!(found, expected);
    });
}

#[test]
fn after_a_failed_sync_a_good_one_proves_nothing() {
    block_on(async {
        let machine = SimMachine::new(1);
        let file = create(&machine.context(), "/a").await;
        file.write_at(0, vec![1; 1024].into()).await.unwrap();
        file.sync_data().await.unwrap();
        machine.context().storage.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![2; 1024].into()).await.unwrap();
        machine.set_fault_hook(|op| match op.kind {
            OpKind::Sync => Fault::Io,
            _ => Fault::None,
        });
        assert_eq!(file.sync_data().await.unwrap_err().raw_os_error(), Some(5));
        machine.clear_fault_hook();
        file.sync_data().await.unwrap();
        assert_eq!(file.read_at(0, 1024).await.unwrap(), [2; 1024]);
        // Written again and synced, the second half is safe; the first may come back as it was.
        file.write_at(512, vec![3; 512].into()).await.unwrap();
        file.sync_data().await.unwrap();
        let sectors = |a: u8, b: u8| Some([[a; 512], [b; 512]].concat());
        let expected = BTreeSet::from([sectors(1, 3), sectors(2, 3)]);
        assert_eq!(outcomes(&machine, Crash::Kill, "/a").await, expected);
        assert_eq!(outcomes(&machine, Crash::PowerCut, "/a").await, expected);
    });
}

#[test]
fn faults_hit_the_operation_that_the_hook_names() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        let file = create(&ctx, "/a").await;
        let target = machine.operations() + 1;
        machine.set_fault_hook(move |op| match op.number {
            n if n == target => Fault::NoSpace,
            _ => Fault::None,
        });
        file.write_at(0, Bytes::from_static(b"x")).await.unwrap();
        let error = file.write_at(1, Bytes::from_static(b"y")).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 1);
        machine.set_fault_hook(|op| match op.kind {
            OpKind::WriteNow => Fault::NotNow,
            _ => Fault::Io,
        });
        assert!(!file.write_now(b"z", 0).unwrap());
        assert!(file.read_at(0, 1).await.is_err());
        assert!(ctx.storage.list(Path::new("/")).await.is_err());
    });
}

#[test]
fn room_runs_out_and_comes_back() {
    block_on(async {
        let machine = SimMachine::new(1);
        machine.set_capacity(8 * 4096);
        let ctx = machine.context();
        let file = create(&ctx, "/a").await;
        file.set_len(1 << 40).await.unwrap();
        file.allocate(0, 4 * 4096).await.unwrap();
        file.write_at(0, vec![1; 4 * 4096].into()).await.unwrap();
        let free = || async { ctx.storage.free_space(Path::new("/")).await.unwrap() };
        assert_eq!(free().await, 4 * 4096);
        let full = file.write_at(1 << 30, vec![1; 5 * 4096].into()).await.unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        file.zero(0, 2 * 4096, true).await.unwrap();
        assert_eq!(free().await, 6 * 4096);
        let other = create(&ctx, "/b").await;
        other.write_at(0, vec![1; 4096].into()).await.unwrap();
        ctx.storage.remove(Path::new("/b")).await.unwrap();
        assert_eq!(free().await, 5 * 4096);
        drop(other);
        assert_eq!(free().await, 6 * 4096);
    });
}

#[test]
fn a_write_under_way_outlives_its_future_and_may_tear_at_a_crash() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        let file = create(&ctx, "/a").await;
        file.write_at(0, vec![1; 1024].into()).await.unwrap();
        machine.set_latency(Duration::from_millis(10)..Duration::from_millis(20));
        let write = file.write_at(0, vec![2; 1024].into());
        assert!(tokio::time::timeout(Duration::from_nanos(1), write).await.is_err());
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(file.read_at(0, 1024).await.unwrap(), [2; 1024]);

        let mut found = BTreeSet::new();
        for seed in 0..100 {
            let file = machine.context().storage.open(Path::new("/a"), OpenMode::ReadWrite).await;
            let file = file.unwrap();
            file.write_at(0, vec![1; 1024].into()).await.unwrap();
            let write = file.write_at(0, vec![2; 1024].into());
            assert!(tokio::time::timeout(Duration::from_nanos(1), write).await.is_err());
            machine.crash_seeded(Crash::Kill, seed);
            tokio::time::sleep(Duration::from_millis(30)).await;
            found.insert(content(&machine.context(), "/a").await.unwrap());
        }
        assert_eq!(found.len(), 4, "old, new and both tears");
    });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let run = |seed| {
        block_on(async move {
            let machine = SimMachine::new(seed);
            machine.set_latency(Duration::ZERO..Duration::from_millis(5));
            let ctx = machine.context();
            let file = create(&ctx, "/a").await;
            let mut answers = Vec::new();
            for i in 0..50u8 {
                answers.push(file.write_now(&[i; 100], u64::from(i) * 50).unwrap());
                file.write_at(u64::from(i) * 70, vec![i; 600].into()).await.unwrap();
            }
            machine.crash_seeded(Crash::PowerCut, seed);
            let bytes: [u8; 16] = ctx.random();
            (answers, content(&machine.context(), "/a").await, ctx.unix_ms(), bytes)
        })
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn devices_have_a_fixed_length_and_bits_rot() {
    block_on(async {
        let machine = SimMachine::new(1);
        machine.add_block_device("/dev/disk", 1 << 20);
        let ctx = machine.context();
        let path = Path::new("/dev/disk");
        assert_eq!(ctx.storage.exists(path).await.unwrap(), Some(FileKind::Block));
        let disk = ctx.storage.open(path, OpenMode::Exclusive).await.unwrap();
        assert!(ctx.storage.open(path, OpenMode::Exclusive).await.is_err());
        let error = disk.set_len(5).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        assert!(disk.write_at((1 << 20) - 1, Bytes::from_static(b"xy")).await.is_err());
        let extents = disk.extents(0, 1 << 20, 9).await.unwrap();
        assert!(extents.len() == 1 && extents[0].data);
        disk.write_durable(0, Bytes::from_static(&[0x80])).await.unwrap();
        machine.flip(path, 0, 7).unwrap();
        assert_eq!(disk.read_at(0, 1).await.unwrap(), [0]);
    });
}

#[test]
fn the_clock_follows_paused_time_and_jumps() {
    block_on(async {
        let machine = SimMachine::new(1);
        let ctx = machine.context();
        let start = ctx.unix_ms();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(ctx.unix_ms() - start, 3_600_000);
        machine.clock().jump_ms(-600_000);
        assert_eq!(ctx.unix_ms() - start, 3_000_000);
        assert_eq!(ctx.offload(|| 5).await, 5);
    });
}

proptest::proptest! {
    /// The sentence of the module's table, checked against a history kept beside it: each sector
    /// holds what it held at the last sync or at some instant since.
    #[test]
    fn every_sector_holds_one_of_its_instants(
        acts in proptest::collection::vec((0..12u8, 0..4_000u64, 1..1_500u64), 1..40),
        seed: u64,
    ) {
        block_on(async {
            let machine = SimMachine::new(seed);
            let file = create(&machine.context(), "/a").await;
            machine.context().storage.sync_dir(Path::new("/")).await.unwrap();
            file.set_len(6_144).await.unwrap();
            file.sync_data().await.unwrap();
            let mut instants = vec![BTreeSet::from([vec![0; 512]]); 12];
            for (i, (act, at, len)) in acts.into_iter().enumerate() {
                let data = Bytes::from(vec![i as u8 + 1; len as usize]);
                match act {
                    0..6 => file.write_at(at, data).await.unwrap(),
                    6 => file.write_durable(at, data).await.unwrap(),
                    7..10 => file.zero(at, len, act == 7).await.unwrap(),
                    _ => file.sync_data().await.unwrap(),
                }
                let touched = at / 512..(at + len).div_ceil(512);
                for (index, sector) in instants.iter_mut().enumerate() {
                    if act >= 10 || (act == 6 && touched.contains(&(index as u64))) {
                        sector.clear();
                    }
                    sector.insert(file.read_at(index as u64 * 512, 512).await.unwrap());
                }
            }
            machine.crash_seeded(Crash::PowerCut, seed);
            let found = content(&machine.context(), "/a").await.unwrap();
            for (sector, instants) in found.chunks(512).zip(instants) {
                assert!(instants.contains(sector));
            }
        });
    }
}
