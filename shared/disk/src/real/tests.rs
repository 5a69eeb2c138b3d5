//! What only the real disk has: modes, locks, the page cache, holes of a real file system.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use bytes::Bytes;

use super::*;
use crate::{Extent, FileKind, OpenMode};

fn on_disk<F: Future<Output = ()>>(test: impl FnOnce(Context, PathBuf) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let path = dir.path().canonicalize().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test(context(), path));
}

#[test]
fn written_is_read_inline_and_waiting() {
    on_disk(|ctx, dir| async move {
        let path = dir.join("a");
        let file = ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.kind(), FileKind::Regular);
        let data: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        file.write_at(7, data.clone().into()).await.unwrap();
        assert_eq!(file.read_at(7, data.len()).await.unwrap(), data);
        // Whether the page cache answers is the kernel's choice; what it answers is not.
        let mut buf = vec![0; 4096];
        if file.read_now(&mut buf, 7).unwrap() {
            assert_eq!(buf, data[..4096]);
        }
        if !file.write_now(&[9; 512], 512).unwrap() {
            file.write_at(512, Bytes::from_static(&[9; 512])).await.unwrap();
        }
        assert_eq!(file.read_at(512, 512).await.unwrap(), [9; 512]);
        file.sync_data().await.unwrap();
    });
}

#[test]
fn beyond_the_end_is_named() {
    on_disk(|ctx, dir| async move {
        let file = ctx.storage.open(&dir.join("a"), OpenMode::CreateNew).await.unwrap();
        file.write_durable(0, Bytes::from_static(b"hello")).await.unwrap();
        let error = file.read_at(3, 3).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("at 3"), "{error}");
        assert!(!file.read_now(&mut [0; 3], 3).unwrap());
    });
}

#[test]
fn an_exclusive_file_is_held_until_it_is_dropped() {
    on_disk(|ctx, dir| async move {
        let path = dir.join("a");
        drop(ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap());
        let held = ctx.storage.open(&path, OpenMode::Exclusive).await.unwrap();
        let error = ctx.storage.open(&path, OpenMode::Exclusive).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("in use"), "{error}");
        // Those who do not ask for the lock are not kept out.
        ctx.storage.open(&path, OpenMode::Read).await.unwrap();
        drop(held);
        ctx.storage.open(&path, OpenMode::Exclusive).await.unwrap();
    });
}

#[test]
fn a_dropped_future_does_not_stop_its_write() {
    on_disk(|ctx, dir| async move {
        let path = dir.join("a");
        let file = ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap();
        let data = Bytes::from(vec![5; 8 << 20]);
        {
            let mut write = file.write_at(0, data);
            // One poll starts it; whether it is done by then does not matter.
            std::future::poll_fn(|cx| {
                drop(write.as_mut().poll(cx));
                std::task::Poll::Ready(())
            })
            .await;
        }
        drop(file);
        let grown = async {
            while std::fs::metadata(&path).unwrap().len() < 8 << 20 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), grown).await.unwrap();
    });
}

#[test]
fn holes_are_seen_and_made() {
    on_disk(|ctx, dir| async move {
        let path = dir.join("a");
        let file = ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap();
        file.set_len(16 << 20).await.unwrap();
        file.write_at(4 << 20, vec![1; 4 << 20].into()).await.unwrap();
        let extents = file.extents(0, 16 << 20, 100).await.unwrap();
        let expected = [(0, 4, false), (4, 4, true), (8, 8, false)].map(|(at, len, data)| Extent {
            offset: at << 20,
            len: len << 20,
            data,
        });
        assert_eq!(extents, expected);
        assert_eq!(file.extents(0, 16 << 20, 1).await.unwrap(), expected[..1]);
        file.zero(5 << 20, 1 << 20, true).await.unwrap();
        assert_eq!(file.read_at(5 << 20, 1 << 20).await.unwrap(), vec![0; 1 << 20]);
        let extents = file.extents(4 << 20, 4 << 20, 100).await.unwrap();
        assert_eq!(extents.iter().map(|e| e.data).collect::<Vec<_>>(), [true, false, true]);
        // Beyond the end nothing grows.
        file.zero((16 << 20) - 100, 1 << 20, false).await.unwrap();
        assert_eq!(file.len().unwrap(), 16 << 20);
    });
}

#[test]
fn zeros_of_odd_ranges_touch_nothing_else() {
    on_disk(|ctx, dir| async move {
        let file = ctx.storage.open(&dir.join("a"), OpenMode::CreateNew).await.unwrap();
        for punch in [false, true] {
            file.write_at(0, vec![7; 20_000].into()).await.unwrap();
            file.zero(4_097, 9_001, punch).await.unwrap();
            let mut expected = vec![7; 20_000];
            expected[4_097..4_097 + 9_001].fill(0);
            assert_eq!(file.read_at(0, 20_000).await.unwrap(), expected);
        }
    });
}

#[test]
fn directories_are_private_and_names_are_listed() {
    on_disk(|ctx, dir| async move {
        let deep = dir.join("x/y/z");
        ctx.storage.create_dir(&deep).await.unwrap();
        ctx.storage.create_dir(&deep).await.unwrap();
        let mode = std::fs::metadata(dir.join("x")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let open = ctx.readable_by_others();
        open.storage.create_dir(&dir.join("open/deep")).await.unwrap();
        open.storage.replace(&dir.join("open/file"), vec![1].into()).await.unwrap();
        let umask = rustix::process::umask(rustix::fs::Mode::empty());
        rustix::process::umask(umask);
        for (name, wanted) in [("open", 0o755), ("open/deep", 0o755), ("open/file", 0o644)] {
            let mode = std::fs::metadata(dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, wanted & !umask.bits(), "{name}");
        }
        std::fs::remove_dir_all(dir.join("open")).unwrap();
        assert_eq!(ctx.storage.exists(&deep).await.unwrap(), Some(FileKind::Directory));
        std::os::unix::fs::symlink(&deep, dir.join("link")).unwrap();
        assert_eq!(ctx.storage.canonical(&dir.join("link")).await.unwrap(), deep);
        let names: Vec<_> = ctx.storage.list(&dir).await.unwrap();
        assert_eq!(names.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["link", "x"]);
        assert!(names[0].is_dir);
        assert!(ctx.storage.free_space(&dir).await.unwrap() > 0);
    });
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_other_end() {
    on_disk(|ctx, dir| async move {
        let path = dir.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        let error = ctx.storage.open(&path, OpenMode::Read).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(ctx.storage.exists(&path).await.is_err());
    });
}

#[test]
fn offloaded_work_comes_back_and_so_does_its_panic() {
    on_disk(|ctx, _| async move {
        assert_eq!(ctx.offload(|| 6 * 7).await, 42);
        assert!(ctx.offload.width() >= 1);
        let job = tokio::task::spawn_local(async move {
            ctx.offload(|| std::panic::resume_unwind(Box::new("on purpose"))).await;
        });
        assert!(job.await.unwrap_err().is_panic());
    });
}
