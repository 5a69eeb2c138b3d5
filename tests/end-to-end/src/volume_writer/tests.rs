//! The history by itself, and the writer against a real server that is killed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use super::{History, Verdict, VolumeWriter, WriterOptions};
use crate::{Process, Tool};

const BLOCK: usize = 512;
const SOON: Duration = Duration::from_secs(60);

fn fill(byte: u8, blocks: usize) -> Vec<u8> {
    vec![byte; blocks * BLOCK]
}

/// A volume of 8 zero blocks and its history.
fn fresh(path: &Path) -> (History, File) {
    std::fs::write(path, fill(0, 8)).unwrap();
    let mut history = History::default();
    history.begin(BLOCK as u64);
    history.initial(0, &fill(0, 8));
    (history, File::options().write(true).open(path).unwrap())
}

#[test]
fn what_was_flushed_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let (mut history, file) = fresh(&path);
    let first = history.sent(2, &fill(1, 2));
    history.answer(first, false);
    assert!(history.lost(&path).is_empty(), "not flushed, not there: fine");
    history.flushed(history.newest());
    assert_eq!(history.lost(&path), [1024, 1536]);
    file.write_all_at(&fill(1, 2), 1024).unwrap();
    assert!(history.lost(&path).is_empty());
    history.sent(3, &fill(2, 1));
    file.write_all_at(&fill(2, 1), 1536).unwrap();
    assert!(history.lost(&path).is_empty(), "a write that was not answered may be there");
    file.write_all_at(&fill(0, 1), 1536).unwrap();
    assert_eq!(history.lost(&path), [1536]);
}

#[test]
fn an_instant_is_told_from_a_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let (mut history, file) = fresh(&path);
    for (block, byte) in [(0, 1), (1, 2), (0, 3)] {
        let number = history.sent(block, &fill(byte, 1));
        history.answer(number, false);
    }
    assert_eq!(history.judge(&path), Verdict::Instant(0..=0));
    file.write_all_at(&fill(1, 1), 0).unwrap();
    assert_eq!(history.judge(&path), Verdict::Instant(1..=1));
    file.write_all_at(&fill(3, 1), 0).unwrap();
    assert_eq!(history.judge(&path), Verdict::Mixed { late: 0, early: 512 });
    file.write_all_at(&fill(2, 1), 512).unwrap();
    assert_eq!(history.judge(&path), Verdict::Instant(3..=3));
    history.sent(1, &fill(9, 1));
    assert_eq!(history.judge(&path), Verdict::Instant(3..=4), "not answered: there or not");
    file.write_all_at(&fill(7, 1), 0).unwrap();
    assert_eq!(history.judge(&path), Verdict::Foreign { offset: 0 });
}

#[test]
fn the_same_bytes_written_twice_are_any_of_both_instants() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    let (mut history, file) = fresh(&path);
    // Block 0: zeros, 1, zeros again. Block 1: 2 in between, then 3.
    for (block, byte) in [(0, 1), (1, 2), (0, 0), (1, 3)] {
        let number = history.sent(block, &fill(byte, 1));
        history.answer(number, false);
    }
    assert_eq!(history.judge(&path), Verdict::Instant(0..=0));
    file.write_all_at(&fill(2, 1), 512).unwrap();
    assert_eq!(history.judge(&path), Verdict::Instant(3..=3));
    file.write_all_at(&fill(1, 1), 0).unwrap();
    assert_eq!(history.judge(&path), Verdict::Instant(2..=2));
    file.write_all_at(&fill(3, 1), 512).unwrap();
    assert!(matches!(history.judge(&path), Verdict::Mixed { .. }));
    file.write_all_at(&fill(0, 1), 0).unwrap();
    assert_eq!(history.judge(&path), Verdict::Instant(4..=4));
}

fn serve(folder: &Path) -> Process {
    let nbdkit = Tool::require("nbdkit", "nbdkit");
    let socket = folder.join("socket");
    if socket.exists() {
        std::fs::remove_file(&socket).unwrap();
    }
    let mut command = nbdkit.command();
    command.args(["--foreground", "--unix"]).arg(&socket).arg("file").arg(folder.join("volume"));
    let mut process = Process::start(command, folder, "nbdkit");
    process.wait_for_socket(&socket, SOON);
    process
}

#[test]
fn a_server_that_is_killed_again_and_again_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    crate::random_image(&path, 2 << 20, 4);
    let mut server = serve(folder.path());
    let options =
        WriterOptions { span_bytes: 1 << 20, ..WriterOptions::new(folder.path().join("socket")) };
    let writer = VolumeWriter::start(options.clone());
    for _ in 0..3 {
        writer.wait_for_writes(60, SOON);
        server.kill_9();
        server = serve(folder.path());
    }
    writer.wait_for_writes(20, SOON);
    assert!(writer.connections() >= 4);
    let history = writer.stop();
    assert!(history.newest_flushed() > 0 && history.answered() >= 200);
    assert_eq!(history.newest(), history.newest_flushed(), "a last flush");
    assert!(history.lost(&path).is_empty());
    assert!(matches!(history.judge(&path), Verdict::Instant(_)), "{:?}", history.judge(&path));
    let more = VolumeWriter::resume(options, history);
    more.wait_for_writes(10, SOON);
    let history = more.stop();
    assert!(history.lost(&path).is_empty());
    crate::overwrite(&path, 0, 1 << 20, 99);
    assert!(!history.lost(&path).is_empty());
}
