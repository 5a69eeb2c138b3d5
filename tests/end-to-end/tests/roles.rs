//! Changing roles with real processes: failover, failback, a planned switchover, a split brain.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use end_to_end::{Process, Sites, Tool, compare, wait_for};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);

fn secondary_socket(sites: &Sites) -> PathBuf {
    sites.folder().join("nbd-secondary.sock")
}

fn serve_secondary(sites: &Sites) -> Process {
    let nbd = format!("unix:{}", secondary_socket(sites).display());
    sites.launch_secondary(&["--nbd", &nbd, "--interval", "1s", "--in-step", "0"])
}

/// One command of qemu-io on an export; whether it did what it was told.
fn io(socket: &std::path::Path, command: &str) -> bool {
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let tool = Tool::require("qemu-io", "qemu-utils");
    let output = tool.command().args(["-f", "raw", "-c", command, "-c", "flush", &uri]).output();
    let output = output.expect("qemu-io runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success() && !text.contains("failed") && !text.contains("error")
}

fn status(sites: &Sites, command: Command) -> Value {
    sites.json(command)
}

fn primary_status(sites: &Sites) -> Value {
    status(sites, sites.primary(["status", "job"]))
}

fn secondary_status(sites: &Sites) -> Value {
    status(sites, sites.secondary(["status", "job"]))
}

fn status_of(sites: &Sites, site: usize) -> Value {
    if site == 0 { primary_status(sites) } else { secondary_status(sites) }
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, Duration::from_secs(90), || done().then_some(()));
}

fn wait_in_step(sites: &Sites) {
    wait_until("both volumes equal", || {
        compare(&sites.source_volume(), &sites.replica_volume()).is_none()
    });
}

#[test]
fn failover_and_failback() {
    let (sites, mut primary) = Sites::in_step(61);
    let mut secondary = serve_secondary(&sites);
    secondary.wait_for_line("follows its primary", SOON);
    assert!(io(&sites.socket(), "write -P 17 1M 256k"));
    wait_in_step(&sites);

    let connected = sites.end(sites.secondary(["promote", "job"]));
    assert!(!connected.status.success(), "the primary is there");
    let words = String::from_utf8_lossy(&connected.stderr).into_owned();
    assert!(words.contains("the source is connected"), "{words}");

    // The primary dies, for good as it seems.
    primary.kill_9();
    wait_until("the secondary notices", || {
        secondary_status(&sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
    let shown = status(&sites, sites.secondary(["promote", "job", "--dry-run"]));
    assert_eq!(
        (&shown["consistent"], &shown["promoted"]),
        (&true.into(), &false.into()),
        "{shown}"
    );
    assert_eq!(secondary_status(&sites)["role"], "replica");
    let done = status(&sites, sites.secondary(["promote", "job"]));
    assert_eq!(done["promoted"], true, "{done}");
    secondary.wait_for_line("job is the source now", SOON);
    secondary.wait_for_line("job is served", SOON);
    assert!(io(&secondary_socket(&sites), "read -P 17 1M 256k"), "the data is there");
    assert!(io(&secondary_socket(&sites), "write -P 18 2M 128k"));

    // It comes back, and learns that it is not the source any more, before anyone has written there.
    let mut primary = sites.serve_primary();
    wait_until("the old primary is fenced", || primary_status(&sites)["state"] == "fenced");
    assert!(!io(&sites.socket(), "write -P 66 0 64k"), "a fenced source takes no write");
    sites.ok(sites.primary(["rejoin", "job"]));
    primary.wait_for_line("job is a replica now", SOON);
    wait_in_step(&sites);
    let now = primary_status(&sites);
    assert_eq!(now["role"], "replica", "{now}");

    // Home again, planned; what is written meanwhile is either refused or on both sides.
    assert!(io(&secondary_socket(&sites), "write -P 19 3M 64k"));
    sites.ok(sites.secondary(["switchover", "job"]));
    primary.wait_for_line("job is the source now", SOON);
    secondary.wait_for_line("job is a replica now", SOON);
    wait_until("nothing is lost", || io(&sites.socket(), "read -P 19 3M 64k"));
    assert!(io(&sites.socket(), "write -P 20 4M 64k"));
    wait_in_step(&sites);
    assert_eq!(secondary_status(&sites)["role"], "replica");
    assert_eq!(primary_status(&sites)["role"], "source");
}

/// `docs/operations/roles.md`, command by command, with what happens between them.
#[test]
fn the_page_on_roles_is_right() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/roles.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (sites, primary) = Sites::in_step(64);
    drop(primary);
    let mut running: [Option<Process>; 2] = [None, None];
    let mut ran = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
        println!("{line}");
        ran += 1;
        let site = usize::from(line.starts_with("secondary-agent"));
        if line.contains("--dry-run") {
            // "The source is gone", with nothing that the replica does not have.
            wait_in_step(&sites);
            running[0].as_mut().expect("it runs").kill_9();
            wait_until("the secondary notices", || {
                secondary_status(&sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
            });
        }
        if line.contains(" rejoin NAME --discard-local") {
            split(&sites, &mut running);
        } else if line.contains(" rejoin ") {
            wait_until("it is fenced", || primary_status(&sites)["state"] == "fenced");
        }
        if line.contains(" switchover ") {
            wait_in_step(&sites);
            wait_until("they are connected", || {
                status_of(&sites, site).pointer("/peers/0/connected") == Some(&Value::Bool(true))
            });
        }
        let line = line
            .replace("/run/NAME.sock", &sites.socket().display().to_string())
            .replace("/run/NAME-copy.sock", &secondary_socket(&sites).display().to_string())
            .replace("0.0.0.0:7420", &sites.address().to_string())
            .replace("NAME", "job");
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let command = if site == 0 { sites.primary(&words) } else { sites.secondary(&words) };
        if line.contains(" serve ") {
            let name = if site == 0 { "primary" } else { "secondary" };
            running[site] = Some(Process::start(command, sites.folder(), name));
            wait_until("it runs", || status_of(&sites, site)["running"] == true);
            continue;
        }
        assert!(!sites.ok(command).trim().is_empty(), "{line} says nothing");
        if line.contains(" switchover ") || line.ends_with("promote job") {
            let (socket, written) = match line.contains("secondary-agent switchover") {
                true => (sites.socket(), "write -P 41 1M 64k"),
                false => (secondary_socket(&sites), "write -P 42 2M 64k"),
            };
            wait_until("the other site serves", || io(&socket, written));
        }
    }
    wait_in_step(&sites);
    assert!(ran >= 14, "only {ran} commands were found");
}

/// Makes a split brain: the primary, being the source, is stopped for a while.
fn split(sites: &Sites, running: &mut [Option<Process>; 2]) {
    wait_in_step(sites);
    let primary = running[0].as_mut().expect("it runs");
    primary.suspend();
    wait_until("the secondary notices", || {
        secondary_status(sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
    sites.ok(sites.secondary(["promote", "job"]));
    wait_until("it serves", || io(&secondary_socket(sites), "write -P 51 3M 64k"));
    running[0].as_mut().expect("it runs").resume();
    assert!(io(&sites.socket(), "write -P 52 4M 64k"));
    wait_until("both sites know", || {
        let rule = |status: Value| status.pointer("/peers/0/rule").cloned();
        let both = [rule(primary_status(sites)), rule(secondary_status(sites))];
        both.iter().all(|rule| *rule == Some("split-brain".into()))
    });
}

#[test]
fn a_stopped_replica_is_promoted_and_then_served() {
    let (sites, primary) = Sites::in_step(62);
    drop(primary);
    let done = status(&sites, sites.secondary(["promote", "job"]));
    assert_eq!(done["promoted"], true, "{done}");
    assert_eq!(secondary_status(&sites)["role"], "source");
    let again = sites.end(sites.secondary(["promote", "job"]));
    assert!(!again.status.success(), "it is the source already");
    let mut secondary = serve_secondary(&sites);
    secondary.wait_for_line("job is served", SOON);
    assert!(io(&secondary_socket(&sites), "write -P 5 0 64k"));
    let load = sites.end({
        let mut load = sites.secondary(["load", "job"]);
        load.arg(sites.medium(1));
        load
    });
    assert!(!load.status.success(), "a source loads nothing");
}

#[test]
fn a_split_brain_changes_nothing_until_the_loser_is_named() {
    let (sites, proxy) = Sites::through_proxy(16 * MIB, 8 * MIB, "64KiB", 63);
    let primary = sites.serve_primary();
    sites.ship();
    let mut secondary = serve_secondary(&sites);
    wait_in_step(&sites);

    // Nobody reaches the other; somebody promotes the replica by mistake, and both are written.
    proxy.cut();
    wait_until("the link is gone", || {
        secondary_status(&sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
    sites.ok(sites.secondary(["promote", "job"]));
    secondary.wait_for_line("job is served", SOON);
    assert!(io(&sites.socket(), "write -P 31 1M 192k"));
    assert!(io(&secondary_socket(&sites), "write -P 32 5M 128k"));
    proxy.heal();
    wait_until("both sites know", || {
        let rule = |status: Value| status.pointer("/peers/0/rule").cloned();
        let both = [rule(primary_status(&sites)), rule(secondary_status(&sites))];
        both.iter().all(|rule| *rule == Some("split-brain".into()))
    });
    // Neither was stopped, and nothing moved.
    assert!(io(&sites.socket(), "read -P 31 1M 192k") && io(&sites.socket(), "write -P 31 0 64k"));
    assert!(io(&secondary_socket(&sites), "read -P 32 5M 128k"));

    let refused = sites.end(sites.secondary(["rejoin", "job"]));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("--discard-local"), "{words}");
    assert!(words.contains("[local-writes]") && words.contains("2 grains"), "{words}");
    let aside = sites.folder().join("aside");
    let mut rejoin = sites.secondary(["rejoin", "job", "--discard-local", "--keep-overwritten"]);
    rejoin.arg(&aside);
    let answer = sites.json(rejoin);
    let kept = std::path::PathBuf::from(answer["kept"].as_str().expect("where it is"));
    secondary.wait_for_line("job is a replica now", SOON);
    wait_in_step(&sites);
    assert!(io(&sites.socket(), "read -P 31 1M 192k"), "the winner's data");

    // What it gave up is there, byte for byte, and nothing else.
    assert!(kept.starts_with(&aside), "{}", kept.display());
    let out = sites.folder().join("given-up");
    let read = || {
        let mut command = sites.media_tools(["kept"]);
        command.arg(&kept);
        command
    };
    let mut written = read();
    written.arg("--to").arg(&out);
    let report = sites.json(written);
    assert_eq!((&report["bytes"], &report["why"]), (&(128 << 10).into(), &"rejoin".into()));
    let image = std::fs::read(report["files"][0].as_str().expect("an image")).expect("it is there");
    let at = 5 << 20;
    assert_eq!(image.len(), at + (128 << 10));
    assert!(image[..at].iter().all(|b| *b == 0) && image[at..].iter().all(|b| *b == 32));
    // Damage is named, and what is whole is not lost with it.
    end_to_end::flip_bit(&kept.with_extension("data"));
    let damaged = sites.end(read());
    let words = String::from_utf8_lossy(&damaged.stderr).into_owned();
    assert_eq!(damaged.status.code(), Some(5), "{words}");
    assert!(words.contains("its digest does not fit"), "{words}");
    drop(primary);
}

#[test]
fn a_source_that_died_waits_for_its_peer_where_that_was_asked_for() {
    let (sites, mut primary) = Sites::in_step(65);
    let mut secondary = serve_secondary(&sites);
    wait_in_step(&sites);
    let wait_for_peer = ["--require-peer", "at-start"];
    // After a clean stop, and while the peer is away, it serves.
    secondary.kill_9();
    assert!(primary.terminate(SOON).success());
    let mut primary = sites.serve_primary_with(&wait_for_peer);
    assert!(io(&sites.socket(), "write -P 71 1M 64k"));
    // After a death it serves when the peer says that it follows, and not before.
    primary.kill_9();
    let mut primary = sites.launch_primary_with(&wait_for_peer);
    wait_until("it waits", || primary_status(&sites)["state"] == "waiting");
    assert!(!io(&sites.socket(), "write -P 66 1M 64k"), "nobody knows what the peer did");
    let mut secondary = serve_secondary(&sites);
    primary.wait_for_line("job is served", SOON);
    wait_until("it serves", || io(&sites.socket(), "read -P 71 1M 64k"));
    wait_in_step(&sites);
    // Where the peer was promoted it never does.
    primary.kill_9();
    wait_until("the secondary notices", || {
        secondary_status(&sites).pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
    sites.ok(sites.secondary(["promote", "job"]));
    secondary.wait_for_line("job is served", SOON);
    let mut primary = sites.launch_primary_with(&wait_for_peer);
    wait_until("it has heard of it", || {
        primary_status(&sites).pointer("/peers/0/rule").is_some_and(Value::is_string)
    });
    assert_eq!(primary_status(&sites)["state"], "waiting");
    assert!(!io(&sites.socket(), "write -P 66 1M 64k"));
    // What it had not synced counts as written since: it cannot know better.
    sites.ok(sites.primary(["rejoin", "job", "--discard-local"]));
    primary.wait_for_line("job is a replica now", SOON);
    wait_in_step(&sites);
}
