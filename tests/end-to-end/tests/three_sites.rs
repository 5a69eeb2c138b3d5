//! A source with two replicas, each with its own mode: after a failover the other one follows the promoted
//! site by the delta, and so does the old source.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use end_to_end::{
    Process, Sites, Tool, VolumeWriter, WriterOptions, binary, compare, sparse_image, wait_for,
};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, SOON, || done().then_some(()));
}

/// The third site: an agent of its own beside the two.
struct Third<'a> {
    sites: &'a Sites,
}

impl Third<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("secondary-agent"));
        command.arg("--state-dir").arg(self.sites.folder().join("third")).args(arguments);
        command.current_dir(self.sites.folder());
        command
    }

    fn volume(&self) -> PathBuf {
        self.sites.folder().join("third.img")
    }

    fn status(&self) -> Value {
        self.sites.json(self.command(&["status", "job"]))
    }
}

/// The page on several replicas, and which of its commands were run. What stands in capitals is what the
/// operator fills in.
struct Page {
    left: Vec<String>,
}

impl Page {
    fn open() -> Page {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/replicas.md");
        let page = std::fs::read_to_string(path).expect("the page is there");
        let commands = page.lines().filter_map(|line| line.strip_prefix("    "));
        Page { left: commands.map(str::to_owned).collect() }
    }

    /// The words of the next command of the page, which is to be this one, filled in.
    fn next(&mut self, command: &str, filled: &[(&str, &str)]) -> Vec<String> {
        let at = self.left.iter().position(|line| line == command);
        self.left.remove(at.unwrap_or_else(|| panic!("`{command}` is not on the page")));
        let fill = |word: &str| {
            let known = filled.iter().find(|(name, _)| *name == word);
            known.map_or(word, |(_, value)| *value).to_owned()
        };
        command.split_whitespace().skip(1).map(fill).collect()
    }
}

fn fingerprint(sites: &Sites, identity: &str) -> String {
    let listed = sites.json(sites.primary(["peer", "list", "job"]));
    let peers = listed["peers"].as_array().expect("peers").clone();
    let one = peers.iter().find(|p| p["identity"] == identity).expect("it is a peer");
    one["fingerprint"].as_str().expect("a fingerprint").to_owned()
}

fn io(socket: &Path, command: &str) -> bool {
    let uri = format!("nbd+unix:///?socket={}", socket.display());
    let tool = Tool::require("qemu-io", "qemu-utils");
    let output = tool.command().args(["-f", "raw", "-c", command, "-c", "flush", &uri]).output();
    output.expect("qemu-io runs").status.success()
}

#[test]
fn after_a_failover_the_third_site_follows_the_promoted_one_by_the_delta() {
    let sites = Sites::new(32 * MIB, 16 * MIB, "64KiB", 91);
    let third = Third { sites: &sites };
    let mut primary = sites.serve_primary_with(&["--epoch", "1s"]);
    let mut page = Page::open();
    let words = page.next("secondary-agent identity", &[]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let identity = sites.ok(third.command(&words)).trim().to_owned();
    let second = sites.ok(sites.secondary(["identity"])).trim().to_owned();

    // Taken in while the primary runs; the same media seed both.
    let here = sites.address().to_string();
    let ticket = sites.folder().join("third.ticket");
    let ticket = ticket.display().to_string();
    let filled = |address, ticket| {
        [("NAME", "job"), ("IDENTITY", &*identity), ("HOST:PORT", address), ("FILE", ticket)]
    };
    let line = "primary-agent peer add NAME IDENTITY --address HOST:PORT --ticket FILE";
    let added = sites.json(sites.primary(page.next(line, &filled(&here, &ticket))));
    assert_eq!(added["added"], true, "{added}");
    sparse_image(&third.volume(), 32 * MIB, 0, 0, 0);
    let mut init = third.command(&["init", "job", "--ticket"]);
    init.arg(&ticket).arg("--volume").arg(third.volume());
    sites.ok(init);
    sites.ship();
    let mut load = third.command(&["load", "job"]);
    load.arg(sites.medium(1));
    sites.ok(load);

    let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
    let there = free.expect("a free port").to_string();
    let away = sites.folder().join("nbd-secondary.sock");
    let nbd = format!("unix:{}", away.display());
    let flags = ["--nbd", nbd.as_str(), "--listen", there.as_str(), "--in-step", "0"];
    let mut secondary = sites.launch_secondary(&flags);
    let follows = third.command(&["serve", "job", "--max-pause", "1s", "--in-step", "0"]);
    let mut follower = Process::start(follows, sites.folder(), "third");
    let (near, far) = (fingerprint(&sites, &second), fingerprint(&sites, &identity));
    sites.ok(sites.primary(["mode", "job", &near, "sync"]));
    let listed = sites.primary(page.next("primary-agent peer list NAME", &[("NAME", "job")]));
    assert!(sites.ok(listed).contains(&far));
    let named = [("NAME", "job"), ("PEER", far.as_str())];
    sites.ok(sites.primary(page.next("primary-agent mode NAME PEER async", &named)));
    let at_primary = || sites.json(sites.primary(["status", "job"]));
    wait_until("both stream", || at_primary()["state"] == "mirroring");
    let mut options = WriterOptions::new(sites.socket());
    options.block_bytes = 4096;
    let writer = VolumeWriter::start(options);
    writer.wait_for_writes(800, SOON);
    let history = writer.stop();
    wait_until("all are equal", || {
        [sites.replica_volume(), third.volume()]
            .iter()
            .all(|copy| compare(&sites.source_volume(), copy).is_none())
    });

    wait_until("a cut that both have", || at_primary().pointer("/dirty/grains") == Some(&0.into()));

    // The primary dies. The second site takes over, takes the third one in, and goes on.
    primary.kill_9();
    wait_until("the secondary notices", || {
        let status = sites.json(sites.secondary(["status", "job"]));
        status.pointer("/peers/0/connected") == Some(&Value::Bool(false))
    });
    sites.ok(sites.secondary(["promote", "job"]));
    secondary.wait_for_line("job is served", SOON);
    assert_eq!(history.lost(&sites.replica_volume()), Vec::<u64>::new());
    assert!(io(&away, "write -P 41 3M 256k"));
    let other = sites.folder().join("other.img");
    sparse_image(&other, MIB, 0, 0, 0);
    let mut init = sites.primary(["init", "other", "--ticket", "other.ticket", "--volume"]);
    init.arg(&other);
    sites.ok(init);
    let refused = |ticket: &str, told: &[&str], why: &str| {
        let words = [&["follow", "job", "--ticket", ticket], told].concat();
        let output = sites.end(third.command(&words));
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(why), "{words}");
    };
    let first = sites.json(sites.primary(["identity"]));
    let first = first["fingerprint"].as_str().expect("a fingerprint").to_owned();
    refused("other.ticket", &["--fingerprint", &first], "another relationship");
    let ticket = sites.folder().join("again.ticket");
    let ticket = ticket.display().to_string();
    let line = "secondary-agent peer add NAME IDENTITY --address HOST:PORT --ticket FILE";
    sites.ok(sites.secondary(page.next(line, &filled(&there, &ticket))));
    // Anybody can make a ticket.
    refused("again.ticket", &[], "is that the new source?");
    refused("again.ticket", &["--fingerprint", &first], "not by");
    let told = [("NAME", "job"), ("FILE", ticket.as_str()), ("FINGERPRINT", near.as_str())];
    let line = "secondary-agent follow NAME --ticket FILE --fingerprint FINGERPRINT";
    let words = page.next(line, &told);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    sites.ok(third.command(&words));
    wait_until("the third one is equal", || {
        compare(&sites.replica_volume(), &third.volume()).is_none()
    });
    let peer = |status: &Value, fingerprint: &str| {
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        peers.into_iter().find(|p| p["fingerprint"] == fingerprint).expect("a peer")
    };
    let seen = peer(&sites.json(sites.secondary(["status", "job"])), &far);
    assert_eq!(seen["rule"], "delta", "{seen}");
    let moved = seen["wire"]["sent_bytes"].as_u64().expect("bytes");
    assert!(moved < 3 * MIB, "{moved} bytes of 16 MiB went to the third site");

    // The old primary comes back as the second replica of the promoted site.
    let mut primary = sites.launch_primary();
    wait_until("it has heard of it", || {
        at_primary().pointer("/peers/0/rule").is_some_and(Value::is_string)
    });
    sites.ok(sites.primary(["rejoin", "job", "--discard-local"]));
    primary.wait_for_line("job is a replica now", SOON);
    assert!(io(&away, "write -P 42 9M 64k"));
    wait_until("all are equal again", || {
        [sites.source_volume(), third.volume()]
            .iter()
            .all(|copy| compare(&sites.replica_volume(), copy).is_none())
    });

    // A peer that is forgotten is not let in any more; the last one stays.
    sites.ok(sites.secondary(page.next("primary-agent peer remove NAME PEER", &named)));
    assert_eq!(page.left, Vec::<String>::new(), "commands that nobody has run");
    wait_until("it is turned away", || {
        let status = third.status();
        status.pointer("/peers/0/last_error").is_some_and(Value::is_string)
    });
    let last = sites.json(sites.secondary(["peer", "list", "job"]));
    let last = last.pointer("/peers/0/fingerprint").and_then(Value::as_str).expect("one is left");
    let kept = sites.end(sites.secondary(["peer", "remove", "job", last]));
    let words = String::from_utf8_lossy(&kept.stderr).into_owned();
    assert!(!kept.status.success() && words.contains("the only peer"), "{words}");
    wait_until("it still follows", || {
        let status = sites.json(sites.secondary(["status", "job"]));
        status.pointer("/peers/0/connected") == Some(&Value::Bool(true))
    });
    drop((primary, secondary, follower.terminate(SOON)));
}
