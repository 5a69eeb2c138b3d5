//! The past of a replica with real processes: bookmarks, points, views over NBD, drills, going back for good.

use std::path::{Path, PathBuf};
use std::time::Duration;

use end_to_end::{Process, Sites, Tool, Verdict, VolumeWriter, WriterOptions, compare, wait_for};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(90);

fn serve_secondary(sites: &Sites, more: &[&str]) -> Process {
    let nbd = format!("unix:{}", sites.folder().join("nbd-secondary.sock").display());
    let mut all = vec!["--nbd", &nbd, "--interval", "1s"];
    all.extend(more);
    sites.launch_secondary(&all)
}

/// A pair that mirrors, whose replica remembers.
fn remembering(seed: u64) -> (Sites, Process, Process) {
    let sites = Sites::new(32 * MIB, 8 * MIB, "64KiB", seed);
    let primary = sites.serve_primary_with(&["--epoch", "1s"]);
    sites.ship();
    let secondary = serve_secondary(&sites, &["--retain", "1h"]);
    mirror(&sites);
    (sites, primary, secondary)
}

fn mirror(sites: &Sites) {
    wait_until("the secondary runs", || at_secondary(sites)["running"] == true);
    sites.ok(sites.primary(["mode", "job", "async"]));
    wait_until("mirroring", || at_primary(sites)["state"] == "mirroring");
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

/// An application that answers for what it was told.
fn application(sites: &Sites, seed: u64) -> VolumeWriter {
    let mut options = WriterOptions::new(sites.socket());
    options.seed = seed;
    options.block_bytes = 512;
    options.pause = Duration::from_millis(2);
    VolumeWriter::start(options)
}

fn points(sites: &Sites) -> Vec<Value> {
    let answer = sites.json(sites.secondary(["points", "job", "--all"]));
    answer["points"].as_array().cloned().unwrap_or_default()
}

fn labels(sites: &Sites) -> Vec<String> {
    let label = |point: &Value| point["label"].as_str().map(str::to_owned);
    points(sites).iter().filter_map(label).collect()
}

/// Opens a view in the background. Gives its number and its socket.
fn open(sites: &Sites, name: &str, more: &[&str]) -> (String, PathBuf) {
    let socket = sites.folder().join(format!("{name}.sock"));
    let text = socket.display().to_string();
    let mut all = vec!["export", "job", "--socket", &text, "--background"];
    all.extend(more);
    let view = sites.json(sites.secondary(&all));
    (view["id"].to_string(), socket)
}

fn end(sites: &Sites, id: &str) -> Value {
    sites.json(sites.secondary(["export", "job", "--end", id]))
}

/// Copies what a view shows into a file, as anybody would.
fn copied(sites: &Sites, socket: &Path, name: &str) -> PathBuf {
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let copy = sites.folder().join(name);
    let tool = Tool::require("qemu-img", "qemu-utils");
    let done = tool.command().args(["convert", "-f", "raw", "-O", "raw", &uri]).arg(&copy).output();
    let done = done.expect("qemu-img runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    copy
}

fn io(socket: &Path, command: &str) -> bool {
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let tool = Tool::require("qemu-io", "qemu-utils");
    let output = tool.command().args(["-f", "raw", "-c", command, &uri]).output();
    let output = output.expect("qemu-io runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success() && !text.contains("failed") && !text.contains("rror")
}

#[test]
fn a_bookmark_is_looked_at_while_writes_go_on_and_after_a_kill() {
    let (sites, _primary, mut secondary) = remembering(171);
    let writer = application(&sites, 1);
    writer.wait_for_writes(400, SOON);
    let before = writer.history().answered();
    sites.ok(sites.primary(["bookmark", "job", "before-upgrade"]));
    let after = writer.history().newest();
    writer.wait_for_writes(after + 400, SOON);
    wait_until("the bookmark is a point", || labels(&sites) == ["before-upgrade"]);
    let (id, socket) = open(&sites, "look", &["--at", "before-upgrade"]);
    let first = copied(&sites, &socket, "first.raw");
    writer.wait_for_writes(after + 800, SOON);
    let second = copied(&sites, &socket, "second.raw");
    assert_eq!(compare(&first, &second), None, "a view stands still");
    let shown = at_secondary(&sites);
    assert_eq!(shown.pointer("/past/views/0/label"), Some(&"before-upgrade".into()), "{shown}");
    let report = end(&sites, &id);
    assert!(report["read_bytes"].as_u64() > Some(8 * MIB), "{report}");
    assert!(!socket.exists() && report["ended_unix_ms"].is_u64());

    secondary.kill_9();
    let _secondary = serve_secondary(&sites, &["--retain", "1h"]);
    wait_until("the secondary runs", || at_secondary(&sites)["running"] == true);
    assert_eq!(labels(&sites), ["before-upgrade"]);
    let (_, socket) = open(&sites, "again", &["--at", "label:before-upgrade"]);
    let third = copied(&sites, &socket, "third.raw");
    assert_eq!(compare(&first, &third), None, "a crash changes nothing of the past");
    let history = writer.stop();
    match history.judge(&first) {
        Verdict::Instant(writes) => assert!(
            *writes.end() >= before && *writes.start() <= after,
            "as of {writes:?}, made between {before} and {after}"
        ),
        other => panic!("the bookmark is no point in time: {other:?}"),
    }
}

#[test]
fn every_point_is_a_point_in_time_and_a_time_finds_it() {
    let (sites, _primary, _secondary) = remembering(172);
    let writer = application(&sites, 2);
    wait_until("some points", || points(&sites).len() > 6);
    let list = points(&sites);
    let (early, late) = (&list[1], &list[5]);
    let cut = |point: &Value| point["cut"].as_str().unwrap().to_owned();
    let (_, first) = open(&sites, "early", &["--at", &cut(early)]);
    let (_, second) = open(&sites, "late", &["--at", &cut(late)]);
    let (_, now) = open(&sites, "now", &[]);
    let early = copied(&sites, &first, "early.raw");
    let late = copied(&sites, &second, "late.raw");
    let now = copied(&sites, &now, "now.raw");
    writer.wait_for_writes(10, SOON);
    let history = writer.stop();
    let mut last = 0;
    for copy in [&early, &late, &now] {
        let Verdict::Instant(writes) = history.judge(copy) else {
            panic!("{} is no point in time", copy.display())
        };
        assert!(*writes.end() >= last, "{writes:?} after {last}");
        last = *writes.start();
    }
    assert!(compare(&early, &late).is_some() && compare(&late, &now).is_some());
    // What nobody can go back to is said so.
    for (at, words) in [("2001-01-01 00:00", "oldest"), ("nothing-of-the-kind", "no bookmark")] {
        let socket = sites.folder().join("refused.sock");
        let text = socket.display().to_string();
        let refused = sites.end(sites.secondary(["export", "job", "--at", at, "--socket", &text]));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains(words), "{told}");
    }
}

#[test]
fn a_drill_writes_what_is_thrown_away() {
    let (sites, _primary, _secondary) = remembering(173);
    wait_until("both volumes equal", || {
        compare(&sites.source_volume(), &sites.replica_volume()).is_none()
    });
    let report = sites.folder().join("drill.json");
    let socket = sites.folder().join("drill.sock");
    let (report_text, socket_text) = (report.display().to_string(), socket.display().to_string());
    let words = ["export", "job", "--writable", "--socket", &socket_text, "--report", &report_text];
    let mut drill = Process::start(sites.secondary(words), sites.folder(), "drill");
    drill.wait_for_socket(&socket, SOON);
    assert!(io(&socket, "write -P 0xee 1M 64k"));
    assert!(io(&socket, "write -P 0xee 5M 4k"));
    assert!(io(&socket, "read -P 0xee 1M 64k"));
    let (_, other) = open(&sites, "other", &[]);
    assert!(!io(&other, "read -P 0xee 1M 64k"), "another look sees nothing of it");
    assert!(!io(&other, "write -P 1 0 4k"), "a look cannot be written");
    assert_eq!(compare(&sites.source_volume(), &sites.replica_volume()), None);
    drill.interrupt();
    assert!(drill.wait_for_exit(SOON).success());
    let kept: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert_eq!(kept["writes"], 2, "{kept}");
    assert_eq!(kept["written_bytes"], 68 << 10, "{kept}");
    assert!(kept["ready_us"].as_u64() > Some(0) && kept["latest"] == true, "{kept}");
    assert!(!socket.exists());
    assert_eq!(at_secondary(&sites).pointer("/past/views").unwrap().as_array().unwrap().len(), 1);
}

#[test]
fn a_look_that_nobody_asks_for_any_more_ends() {
    let (sites, _primary, _secondary) = remembering(174);
    let socket = sites.folder().join("left.sock");
    let text = socket.display().to_string();
    let words = ["export", "job", "--socket", &text];
    let mut looks = Process::start(sites.secondary(words), sites.folder(), "left");
    looks.wait_for_socket(&socket, SOON);
    looks.kill_9();
    wait_until("it is ended", || !socket.exists());
}

#[test]
fn a_replica_is_promoted_at_a_bookmark_and_the_old_primary_follows_there() {
    let (sites, mut primary, mut secondary) = remembering(175);
    let writer = application(&sites, 5);
    writer.wait_for_writes(300, SOON);
    let before = writer.history().answered();
    sites.ok(sites.primary(["bookmark", "job", "clean"]));
    let after = writer.history().newest();
    writer.wait_for_writes(after + 600, SOON);
    wait_until("some points", || points(&sites).len() > 4);
    primary.kill_9();
    let history = writer.stop();
    wait_until("the secondary notices", || {
        at_secondary(&sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
    let shown = sites.json(sites.secondary(["promote", "job", "--at", "clean", "--dry-run"]));
    assert_eq!(shown.pointer("/point/label"), Some(&"clean".into()), "{shown}");
    assert!(shown.pointer("/goes_back/grains").and_then(Value::as_u64) > Some(0), "{shown}");
    assert_eq!(at_secondary(&sites)["role"], "replica");
    sites.ok(sites.secondary(["promote", "job", "--at", "clean"]));
    secondary.wait_for_line("job is served", SOON);
    match history.judge(&sites.replica_volume()) {
        Verdict::Instant(writes) => assert!(
            *writes.end() >= before && *writes.start() <= after,
            "as of {writes:?}, made between {before} and {after}"
        ),
        other => panic!("the bookmark is no point in time: {other:?}"),
    }
    let mut primary = sites.serve_primary_with(&["--epoch", "1s"]);
    wait_until("the old primary is told", || {
        at_primary(&sites).pointer("/peers/0/rule").is_some_and(Value::is_string)
    });
    sites.ok(sites.primary(["rejoin", "job", "--discard-local"]));
    primary.wait_for_line("job is a replica now", SOON);
    wait_until("both volumes equal", || {
        compare(&sites.source_volume(), &sites.replica_volume()).is_none()
    });
}

/// `docs/operations/history.md`, command by command.
#[test]
fn the_page_on_history_is_right() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/history.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let sites = Sites::new(32 * MIB, 8 * MIB, "64KiB", 176);
    // Seeded, as the page before this one has it.
    let mut primary = sites.serve_primary();
    sites.ship();
    sites.catch_up();
    assert!(primary.terminate(SOON).success());
    let mut running = Vec::new();
    let mut ran = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
        println!("{line}");
        ran += 1;
        let own = |name: &str| sites.folder().join(name).display().to_string();
        let line = line
            .replace("/run/NAME.sock", &sites.socket().display().to_string())
            .replace("/run/NAME-copy.sock", &own("copy.sock"))
            .replace("/run/NAME-look.sock", &own("look.sock"))
            .replace("/run/NAME-drill.sock", &own("drill.sock"))
            .replace("drill.json", &own("drill.json"))
            .replace("0.0.0.0:7420", &sites.address().to_string())
            .replace("--epoch 5s", "--epoch 1s")
            .replace("NAME", "job");
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        if line.contains("-agent serve ") {
            let at_secondary = line.starts_with("secondary");
            let command =
                if at_secondary { sites.secondary(&words) } else { sites.primary(&words) };
            let name = if at_secondary { "secondary" } else { "primary" };
            let mut process = Process::start(command, sites.folder(), name);
            let sign = if at_secondary { "follows its primary" } else { "is served" };
            process.wait_for_line(sign, SOON);
            running.push(process);
            continue;
        }
        if line.contains(" points ") && ran < 8 {
            wait_until("some points", || {
                assert!(io(&sites.socket(), "write -P 5 3M 1M"));
                points(&sites).len() > 2
            });
        }
        let said = match words[0] {
            _ if line.starts_with("secondary-agent") => sites.ok(sites.secondary(&words)),
            _ if line.starts_with("primary-agent") => sites.ok(sites.primary(&words)),
            _ => {
                let export = line.split("nbd+unix:///?").nth(1).expect("an export").trim();
                let text = line.replace(
                    &format!("nbd+unix:///?{export}"),
                    &format!("'nbd+unix:///?{export}'"),
                );
                let mut shell = std::process::Command::new("sh");
                shell.args(["-c", &text]);
                sites.ok(shell)
            }
        };
        assert!(!said.trim().is_empty(), "{line} says nothing");
        if line.contains(" bookmark ") {
            wait_until("the bookmark is a point", || labels(&sites) == ["before-upgrade"]);
            assert!(io(&sites.socket(), "write -P 6 3M 1M"));
        }
        if line.contains("promote") {
            assert!(said.contains("goes back to") && said.contains("before-upgrade"), "{said}");
        }
    }
    assert!(sites.folder().join("drill.json").exists());
    assert!(ran >= 14, "only {ran} commands were found");
    for process in &mut running {
        assert!(process.terminate(SOON).success(), "{}", process.stderr());
    }
}
