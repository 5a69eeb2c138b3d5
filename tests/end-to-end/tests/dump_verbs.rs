//! What an operator may ask of a dump: leave it, watch it, cancel it, take it up; hooks around the cut; who
//! may open the media; what happens when there is no room to preserve.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use end_to_end::{Process, Sites, VolumeWriter, WriterOptions, compare, overwrite, wait_for};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn dump(sites: &Sites, more: &[&str]) -> Command {
    let mut dump = sites.primary(["dump", "job", "--to"]);
    dump.arg(sites.medium(1)).args(more);
    dump
}

fn stage(sites: &Sites) -> String {
    let status = sites.json(sites.primary(["status", "job"]));
    let stage = status.pointer("/job/stage").and_then(Value::as_str);
    stage.unwrap_or_else(|| panic!("no job: {status}")).to_owned()
}

/// Names of files below a medium.
fn files(medium: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(medium).expect("the medium");
    entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

fn load(sites: &Sites, more: &[&str]) -> Command {
    let mut load = sites.secondary(["load", "job"]);
    load.arg(sites.medium(1)).args(more);
    load
}

#[test]
fn ctrl_c_leaves_it_running_and_cancel_cleans_up() {
    let sites = Sites::new(64 * MIB, 48 * MIB, "64KiB", 81);
    let _primary = sites.serve_primary();
    let mut watcher = Process::start(dump(&sites, &["--rate", "8MiB"]), sites.folder(), "dump");
    wait_for("the dump to begin", SOON, || {
        files(&sites.medium(1)).iter().any(|name| name.ends_with(".ghs")).then_some(())
    });
    watcher.interrupt();
    let status = watcher.wait_for_exit(SOON);
    let words = watcher.stderr();
    assert!(status.success(), "{status}: {words}");
    for part in ["--watch", "--cancel"] {
        assert!(words.contains(part), "`{part}` is not said: {words}");
    }
    assert_eq!(stage(&sites), "running");
    let second = sites.end(dump(&sites, &[]));
    assert_eq!(second.status.code(), Some(3), "a second dump beside the first");

    sites.ok(sites.primary(["dump", "job", "--cancel"]));
    wait_for("the dump to end", SOON, || (stage(&sites) == "cancelled").then_some(()));
    assert_eq!(files(&sites.medium(1)), Vec::<String>::new(), "cancel leaves nothing behind");
    sites.ok(sites.primary(["dump", "job", "--cancel"]));
    // The disk is as good as new.
    sites.ok(dump(&sites, &[]));
    sites.ok(load(&sites, &[]));
    assert_eq!(compare(&sites.source_volume(), &sites.replica_volume()), None);
}

#[test]
fn a_dump_whose_agent_stops_is_taken_up_and_says_that_it_is_fuzzy() {
    let sites = Sites::new(32 * MIB, 24 * MIB, "64KiB", 82);
    let mut primary = sites.serve_primary();
    let slow = ["--rate", "6MiB", "--segment", "2MiB", "--background"];
    sites.ok(dump(&sites, &slow));
    wait_for("some segments", SOON, || (files(&sites.medium(1)).len() > 5).then_some(()));
    assert!(primary.terminate(SOON).success(), "{}", primary.stderr());
    let half = sites.end(load(&sites, &[]));
    assert!(!half.status.success(), "half a set is not loaded");

    let _primary = sites.serve_primary();
    let ended = || (stage(&sites) == "done").then_some(());
    wait_for("the dump to be taken up and end", SOON, ended);
    let mut inspect = sites.media_tools(["inspect"]);
    inspect.arg(sites.medium(1));
    let set = sites.json(inspect);
    assert!(set.to_string().contains("fuzzy"), "{set}");
    sites.ok(load(&sites, &[]));
    let loaded = sites.json(sites.secondary(["status", "job"]));
    assert_eq!(loaded.pointer("/state").and_then(Value::as_str), Some("inconsistent"), "{loaded}");
    sites.catch_up();
    sites.assert_equal();
}

fn executable(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("its mode");
}

#[test]
fn hooks_run_around_the_cut_and_a_failing_one_ends_the_dump() {
    let sites = Sites::new(16 * MIB, 4 * MIB, "64KiB", 83);
    let _primary = sites.serve_primary();
    let [freeze, thaw, log] = ["freeze", "thaw", "log"].map(|name| sites.folder().join(name));
    executable(&freeze, &format!("echo freeze >> {}", log.display()));
    executable(&thaw, &format!("echo thaw >> {}", log.display()));
    let hooks = [freeze.display().to_string(), thaw.display().to_string()];
    let with_hooks = ["--freeze", &hooks[0], "--thaw", &hooks[1]];
    sites.ok(dump(&sites, &with_hooks));
    assert_eq!(std::fs::read_to_string(&log).expect("the log"), "freeze\nthaw\n");

    executable(&freeze, &format!("echo broken >> {}; exit 7", log.display()));
    let mut again = sites.primary(["dump", "job", "--to"]);
    again.arg(sites.medium(2)).args(with_hooks);
    let failed = sites.end(again);
    let words = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(3), "{words}");
    assert!(words.contains("freeze"), "{words}");
    let ran = std::fs::read_to_string(&log).expect("the log");
    assert_eq!(ran, "freeze\nthaw\nbroken\nthaw\n", "what may be half frozen is thawed");
    assert_eq!(files(&sites.medium(2)), Vec::<String>::new());
}

fn secret(sites: &Sites, name: &str, words: &str) -> PathBuf {
    let path = sites.folder().join(name);
    std::fs::write(&path, format!("{words}\n")).expect("a secret");
    path
}

#[test]
fn a_set_is_opened_by_those_it_was_sealed_for_and_no_others() {
    let sites = Sites::new(16 * MIB, 6 * MIB, "64KiB", 84);
    let _primary = sites.serve_primary();
    let key = sites.folder().join("escrow.key");
    let mut keygen = sites.media_tools(["keygen", "--to"]);
    keygen.arg(&key);
    let escrow = sites.ok(keygen).trim().to_owned();
    let word = secret(&sites, "word", "correct horse");
    let wrong = secret(&sites, "wrong", "battery staple");
    let word = word.display().to_string();
    sites.ok(dump(&sites, &["--recipient", &escrow, "--passphrase-file", &word]));

    // A site that is neither source nor peer, with its own keys.
    let stranger = Sites::unrelated(MIB, 0, 85);
    stranger.ok(stranger.secondary(["identity"]));
    let open = |with: &[&Path]| {
        let mut extract = stranger.media_tools(["extract", "--to"]);
        extract.arg(stranger.folder().join("out")).arg(sites.medium(1)).args(with);
        stranger.end(extract)
    };
    let refused = open(&[]);
    assert!(!refused.status.success());
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("key"), "{words}");
    assert!(!open(&["--passphrase-file".as_ref(), &wrong]).status.success());
    for with in [["--passphrase-file".as_ref(), word.as_ref()], ["--key".as_ref(), key.as_path()]] {
        let opened = open(&with);
        assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
        let image = std::fs::read_dir(stranger.folder().join("out"))
            .expect("the output")
            .map(|entry| entry.expect("an entry").path())
            .next()
            .expect("an image");
        assert_eq!(compare(&sites.source_volume(), &image), None);
        std::fs::remove_dir_all(stranger.folder().join("out")).expect("the output");
    }
    // Without any key the files and the signature can be checked.
    let mut verify = stranger.media_tools(["verify", "--files-only"]);
    verify.arg(sites.medium(1));
    stranger.ok(verify);
}

#[test]
fn an_open_set_warns_and_is_still_signed() {
    let sites = Sites::new(16 * MIB, 6 * MIB, "64KiB", 86);
    let _primary = sites.serve_primary();
    let output = sites.end(dump(&sites, &["--no-encryption", "--compress", "off"]));
    assert!(output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("warning") && words.contains("can read them"), "{words}");
    // One byte of the content changed by somebody on the way.
    let segment = end_to_end::largest_file(&sites.medium(1));
    let length = segment.metadata().expect("the segment").len();
    overwrite(&segment, length / 2, 1, 87);
    let answer = sites.json(load(&sites, &[]));
    let damaged = answer.pointer("/damaged_grains").and_then(Value::as_u64);
    assert!(damaged.is_some_and(|grains| grains > 0), "{answer}");
    sites.catch_up();
    sites.assert_equal();
}

/// A dump so slow, with so little room, under a writer so fast that preserving must overflow.
fn overflow(sites: &Sites, what: &str) -> std::process::Output {
    let mut options = WriterOptions::new(sites.socket());
    options.block_bytes = 64 << 10;
    let writer = VolumeWriter::start(options);
    writer.wait_for_writes(5, SOON);
    let tiny = ["--rate", "6MiB", "--preserve-buffer", "256KiB", "--preserve-wait", "50ms"];
    let mut command = dump(sites, &tiny);
    command.args(["--preserve", what]);
    let output = sites.end(command);
    writer.wait_for_writes(5, SOON);
    let history = writer.stop();
    assert_eq!(history.lost(&sites.source_volume()), Vec::<u64>::new());
    output
}

#[test]
fn without_room_to_preserve_the_dump_goes_on_fuzzy() {
    let sites = Sites::new(24 * MIB, 16 * MIB, "64KiB", 88);
    let _primary = sites.serve_primary();
    let output = overflow(&sites, "fuzzy");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && words.contains("fuzzy"), "{words}");
    sites.ok(load(&sites, &[]));
    sites.catch_up();
    sites.assert_equal();
}

#[test]
fn without_room_to_preserve_the_dump_throttles_the_application() {
    let sites = Sites::new(24 * MIB, 16 * MIB, "64KiB", 89);
    let _primary = sites.serve_primary();
    let output = overflow(&sites, "throttle");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !words.contains("fuzzy"), "{words}");
    sites.ok(load(&sites, &[]));
    let loaded = sites.json(sites.secondary(["status", "job"]));
    assert_eq!(loaded.pointer("/state").and_then(Value::as_str), Some("consistent"), "{loaded}");
    sites.catch_up();
    sites.assert_equal();
}

#[test]
fn without_room_to_preserve_the_dump_is_given_up() {
    let sites = Sites::new(24 * MIB, 16 * MIB, "64KiB", 90);
    let _primary = sites.serve_primary();
    let output = overflow(&sites, "abort");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{words}");
    sites.ok(sites.primary(["dump", "job", "--cancel"]));
    assert_eq!(files(&sites.medium(1)), Vec::<String>::new());
    sites.ok(dump(&sites, &[]));
}
