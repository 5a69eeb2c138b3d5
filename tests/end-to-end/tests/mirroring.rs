//! Writes that stream, with real processes: what each mode keeps when a site dies or the link breaks, and
//! how it goes on by itself.

use std::path::PathBuf;
use std::time::Duration;

use end_to_end::{Process, Proxy, Sites, Verdict, VolumeWriter, WriterOptions, compare, wait_for};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(90);

fn nbd_of_secondary(sites: &Sites) -> PathBuf {
    sites.folder().join("nbd-secondary.sock")
}

fn serve_secondary(sites: &Sites) -> Process {
    let nbd = format!("unix:{}", nbd_of_secondary(sites).display());
    sites.launch_secondary(&["--nbd", &nbd, "--interval", "1s"])
}

/// A pair that is seeded and connected through a proxy, with a seed of its own.
fn seeded(seed: u64) -> (Sites, Proxy, Process, Process) {
    let (sites, proxy) = Sites::through_proxy(32 * MIB, 8 * MIB, "64KiB", seed);
    let primary = sites.serve_primary_with(&["--epoch", "1s"]);
    sites.ship();
    let secondary = serve_secondary(&sites);
    wait_until("the secondary runs", || at_secondary(&sites)["running"] == true);
    (sites, proxy, primary, secondary)
}

fn at_primary(sites: &Sites) -> Value {
    sites.json(sites.primary(["status", "job"]))
}

fn at_secondary(sites: &Sites) -> Value {
    sites.json(sites.secondary(["status", "job"]))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, SOON, || done().then_some(()));
}

fn wait_for_state(sites: &Sites, state: &str) {
    wait_until(state, || at_primary(sites)["state"] == state);
}

fn set_mode(sites: &Sites, words: &[&str]) {
    let all: Vec<&str> = ["mode", "job"].iter().chain(words).copied().collect();
    sites.ok(sites.primary(&all));
}

fn wait_until_alone(sites: &Sites) {
    wait_until("the secondary notices", || {
        at_secondary(sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
}

/// An application that answers for what it was told.
fn application(sites: &Sites, seed: u64) -> VolumeWriter {
    let mut options = WriterOptions::new(sites.socket());
    options.seed = seed;
    options.block_bytes = 512;
    options.pause = Duration::from_millis(1);
    VolumeWriter::start(options)
}

#[test]
fn in_sync_mode_a_primary_that_dies_takes_nothing_with_it() {
    let (sites, proxy, mut primary, mut secondary) = seeded(81);
    proxy.set_delay(Duration::from_millis(2));
    set_mode(&sites, &["sync"]);
    wait_for_state(&sites, "mirroring");
    assert!(at_secondary(&sites).pointer("/peers/0/mode") == Some(&"sync, continues alone".into()));
    let writer = application(&sites, 1);
    writer.wait_for_writes(1500, SOON);
    primary.kill_9();
    let history = writer.stop();
    wait_until_alone(&sites);
    sites.ok(sites.secondary(["promote", "job"]));
    secondary.wait_for_line("job is served", SOON);
    let judged = history.judge(&sites.replica_volume());
    match judged {
        Verdict::Instant(writes) => assert!(
            *writes.end() >= history.answered(),
            "as of {writes:?}, and {} were answered",
            history.answered()
        ),
        other => panic!("the copy is no point in time: {other:?}"),
    }
    assert_eq!(history.lost(&sites.replica_volume()), Vec::<u64>::new());
}

#[test]
fn in_async_mode_the_copy_is_the_primary_a_moment_ago() {
    let (sites, proxy, mut primary, mut secondary) = seeded(82);
    proxy.set_delay(Duration::from_millis(10));
    set_mode(&sites, &["async"]);
    wait_for_state(&sites, "mirroring");
    let writer = application(&sites, 2);
    writer.wait_for_writes(2000, SOON);
    primary.kill_9();
    let history = writer.stop();
    wait_until_alone(&sites);
    let shown = sites.json(sites.secondary(["promote", "job", "--dry-run"]));
    assert_eq!(shown["consistent"], true, "{shown}");
    sites.ok(sites.secondary(["promote", "job"]));
    secondary.wait_for_line("job is served", SOON);
    match history.judge(&sites.replica_volume()) {
        Verdict::Instant(writes) => assert!(*writes.end() > 0, "nothing of it is there"),
        other => panic!("the copy is no point in time: {other:?}"),
    }
    // Home again: what the old primary wrote beyond gives way, and both are equal.
    let mut primary = sites.serve_primary_with(&["--epoch", "1s"]);
    wait_until("the old primary is told", || {
        matches!(at_primary(&sites)["state"].as_str(), Some("fenced" | "alone"))
            && at_primary(&sites).pointer("/peers/0/rule").is_some_and(Value::is_string)
    });
    sites.ok(sites.primary(["rejoin", "job", "--discard-local"]));
    primary.wait_for_line("job is a replica now", SOON);
    wait_until("the mode has come with the role", || at_secondary(&sites)["state"] == "mirroring");
    wait_until("both volumes equal", || {
        compare(&sites.source_volume(), &sites.replica_volume()).is_none()
    });
    sites.ok(sites.secondary(["switchover", "job"]));
    primary.wait_for_line("job is the source now", SOON);
    wait_for_state(&sites, "mirroring");
}

#[test]
fn links_and_sites_that_come_and_go_end_in_mirroring_again() {
    let (sites, proxy, mut primary, mut secondary) = seeded(83);
    set_mode(&sites, &["sync"]);
    wait_for_state(&sites, "mirroring");
    let writer = application(&sites, 3);
    for round in 0..3 {
        writer.wait_for_writes(200, SOON);
        proxy.cut();
        wait_for_state(&sites, "alone");
        writer.wait_for_writes(200, SOON);
        proxy.heal();
        wait_for_state(&sites, "mirroring");
        if round == 0 {
            secondary.kill_9();
            wait_for_state(&sites, "alone");
            secondary = serve_secondary(&sites);
            wait_for_state(&sites, "mirroring");
        }
        if round == 1 {
            primary.kill_9();
            primary = sites.serve_primary_with(&["--epoch", "1s"]);
            wait_for_state(&sites, "mirroring");
        }
    }
    let history = writer.stop();
    assert_eq!(history.lost(&sites.source_volume()), Vec::<u64>::new());
    wait_until("both volumes equal", || {
        compare(&sites.source_volume(), &sites.replica_volume()).is_none()
    });
}

#[test]
fn a_link_that_is_too_thin_falls_behind_and_comes_back() {
    let (sites, proxy, _primary, _secondary) = seeded(84);
    set_mode(&sites, &["async"]);
    wait_for_state(&sites, "mirroring");
    proxy.set_rate(Some(300 << 10));
    let mut options = WriterOptions::new(sites.socket());
    options.block_bytes = 64 << 10;
    let writer = VolumeWriter::start(options);
    wait_until("it is behind", || {
        at_primary(&sites).pointer("/peers/0/mirror/mirroring") == Some(&Value::Bool(false))
            || at_primary(&sites).pointer("/peers/0/mirror/backlog_bytes").and_then(Value::as_u64)
                > Some(MIB)
    });
    let history = writer.stop();
    proxy.set_rate(None);
    wait_for_state(&sites, "mirroring");
    wait_until("both volumes equal", || {
        compare(&sites.source_volume(), &sites.replica_volume()).is_none()
    });
    assert_eq!(history.lost(&sites.replica_volume()), Vec::<u64>::new());
}

#[test]
fn wrong_words_and_the_wrong_site_are_answered() {
    let (sites, _proxy, _primary, _secondary) = seeded(85);
    let refused = |command| {
        let ended = sites.end(command);
        assert!(!ended.status.success());
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    let words = refused(sites.primary(["mode", "job", "synk"]));
    assert!(words.contains("no such mode") && words.contains("async"), "{words}");
    let words = refused(sites.primary(["mode", "job", "nobody", "async"]));
    assert!(words.contains("no peer begins with nobody"), "{words}");
    let words = refused(sites.secondary(["mode", "job", "async"]));
    assert!(words.contains("source"), "{words}");
    let shown = sites.ok(sites.primary(["mode", "job"]));
    assert!(shown.contains("cycle"), "{shown}");
    set_mode(&sites, &["cycle=7m"]);
    assert!(sites.ok(sites.primary(["mode", "job"])).contains("cycle=7m"));
}

/// `docs/operations/modes.md`, command by command.
#[test]
fn the_page_on_modes_is_right() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/modes.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (sites, _proxy, _primary, _secondary) = seeded(86);
    let mut ran = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
        println!("{line}");
        let line = line.replace("NAME", "job");
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let command = match line.starts_with("secondary-agent") {
            true => sites.secondary(&words),
            false => sites.primary(&words),
        };
        assert!(!sites.ok(command).trim().is_empty(), "{line} says nothing");
        ran += 1;
        let streams = line.contains(" mode job sync") || line.ends_with(" mode job async");
        if streams {
            wait_for_state(&sites, "mirroring");
        }
        if line.contains("cycle") {
            wait_for_state(&sites, "behind");
        }
    }
    assert!(ran >= 9, "only {ran} commands were found");
}
