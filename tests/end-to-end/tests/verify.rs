//! `verify` with real processes: a byte that was changed behind the agent's back is named at both sites and
//! healed by a repair, which keeps it; and the page about it, command by command.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use end_to_end::{Process, Sites, wait_for};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const GRAIN: u64 = 64 << 10;
const SOON: Duration = Duration::from_secs(60);
/// In the middle of a grain that holds data.
const WRONG: u64 = 3 * MIB + 5;

fn follow(sites: &Sites) -> Process {
    let secondary = sites.launch_secondary(&["--interval", "1s", "--in-step", "0"]);
    wait_in_step(sites);
    secondary
}

fn secondary_status(sites: &Sites) -> Value {
    sites.json(sites.secondary(["status", "job"]))
}

fn wait_in_step(sites: &Sites) {
    wait_for("the replica to be in step", SOON, || {
        (secondary_status(sites)["state"] == "current").then_some(())
    });
}

/// Flips all bits of a byte of the replica's volume, behind its agent's back.
fn damage(sites: &Sites) {
    let file = fs::File::options().read(true).write(true).open(sites.replica_volume());
    let file = file.expect("the replica's volume");
    let mut byte = [0];
    file.read_exact_at(&mut byte, WRONG).expect("a byte");
    file.write_all_at(&[!byte[0]], WRONG).expect("a byte");
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn shown(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}{}", words(output)))
}

fn expected_place() -> String {
    let first = WRONG / GRAIN * GRAIN;
    format!("bytes {first}..{} of volume source", first + GRAIN)
}

fn found(sites: &Sites, command: Command) -> Value {
    let output = sites.end(with_json(command));
    assert_eq!(output.status.code(), Some(19), "{}", words(&output));
    assert!(words(&output).contains("\"differs\""), "{}", words(&output));
    let found = shown(&output);
    assert_eq!((&found["different_grains"], &found["kept"]), (&1.into(), &Value::Null), "{found}");
    assert_eq!(found["places"][0], expected_place());
    found
}

fn with_json(mut command: Command) -> Command {
    command.arg("--json");
    command
}

#[test]
fn a_byte_changed_behind_its_back_is_named_at_both_sites_and_healed() {
    let (sites, _primary) = Sites::in_step(81);
    let _secondary = follow(&sites);
    let right = sites.json(sites.secondary(["verify", "job"]));
    assert_eq!((&right["share"], &right["different_grains"]), (&1.0.into(), &0.into()), "{right}");
    assert_eq!(secondary_status(&sites)["verified"], right);
    let primary = sites.json(sites.primary(["status", "job"]));
    assert_eq!(primary.pointer("/peers/0/verified"), Some(&right), "{primary}");

    damage(&sites);
    let before = fs::read(sites.replica_volume()).expect("the replica's volume");
    let wrong = found(&sites, sites.secondary(["verify", "job"]));
    let asked = found(&sites, sites.primary(["verify", "job"]));
    assert_eq!(wrong["places"], asked["places"]);
    let after = fs::read(sites.replica_volume()).expect("the replica's volume");
    assert!(before == after, "something was written");
    for status in [sites.primary(["status", "job"]), sites.secondary(["status", "job"])] {
        let text = sites.ok(status);
        assert!(text.contains("1 grain differs from the source"), "{text}");
        assert!(text.contains(&expected_place()) && text.contains(" ago"), "{text}");
    }

    let repaired = sites.json(sites.secondary(["verify", "job", "--repair"]));
    let count = |name: &str| repaired[name].as_u64();
    assert_eq!((count("different_grains"), count("repaired_grains")), (Some(1), Some(1)));
    sites.assert_equal();
    let first = (WRONG / GRAIN * GRAIN) as usize;
    let index = PathBuf::from(repaired["kept"].as_str().expect("a path"));
    assert!(index.starts_with(sites.folder()), "{}", index.display());
    assert!(kept(&index) == before[first..first + GRAIN as usize], "what is kept");
    let text = sites.ok(sites.secondary(["status", "job"]));
    assert!(text.contains("repaired") && !text.contains("differs"), "{text}");
    let again = sites.json(sites.primary(["verify", "job", "--repair"]));
    assert_eq!((&again["share"], &again["kept"]), (&1.0.into(), &Value::Null), "{again}");
}

/// The bytes of the one piece that an index names.
fn kept(index: &Path) -> Vec<u8> {
    let text = fs::read(index).expect("the index");
    let index_of: Value = serde_json::from_slice(&text).expect("the index is JSON");
    assert_eq!(index_of["pieces"].as_array().map(Vec::len), Some(1), "{index_of}");
    let piece = &index_of["pieces"][0];
    assert_eq!((&piece["volume"], &piece["at"]), (&"source".into(), &0.into()), "{index_of}");
    assert_eq!(piece["offset"], WRONG / GRAIN * GRAIN);
    let data = index.with_file_name(index_of["data"].as_str().expect("a name"));
    fs::read(data).expect("the data")
}

#[test]
fn without_the_other_site_it_says_so_and_a_broken_link_ends_it() {
    let (sites, proxy) = Sites::through_proxy(16 * MIB, 8 * MIB, "64KiB", 82);
    let _primary = sites.serve_primary();
    sites.ship();
    let refused = sites.end(sites.secondary(["verify", "job"]));
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert!(words(&refused).contains("[not-running]"), "{}", words(&refused));
    let refused = sites.end(sites.primary(["verify", "job"]));
    assert_eq!(refused.status.code(), Some(3), "{}", words(&refused));
    assert!(words(&refused).contains("[not-connected]"), "{}", words(&refused));

    let _secondary = follow(&sites);
    damage(&sites);
    let runs = || secondary_status(&sites).pointer("/verifying/doing").is_some();
    let slow = || {
        wait_for("nothing to run", SOON, || (!runs()).then_some(()));
        let command = sites.secondary(["verify", "job", "--rate", "64KiB", "--repair"]);
        let running = Process::start(command, sites.folder(), "verify");
        wait_for("it to run", SOON, || runs().then_some(()));
        let busy = words(&sites.end(sites.secondary(["verify", "job"])));
        assert!(busy.contains("a verification is under way here already"), "{busy}");
        running
    };
    let mut running = slow();
    let text = sites.ok(sites.secondary(["status", "job"]));
    assert!(text.contains("compares: ") && text.contains(" grains, "), "{text}");
    sites.ok(sites.primary(["verify", "job", "--stop"]));
    let status = running.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(3), "{}", running.stderr());
    assert!(running.stderr().contains("[cancelled]"), "{}", running.stderr());
    let mut running = slow();
    proxy.cut();
    let status = running.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(6), "{}", running.stderr());
    assert!(running.stderr().contains("[link]"), "{}", running.stderr());
    let refused = sites.end(sites.secondary(["verify", "job"]));
    assert!(words(&refused).contains("the source is not connected"), "{}", words(&refused));
    assert_eq!(refused.status.code(), Some(3));
    let shown = secondary_status(&sites);
    let differs = |s: &Value| s.pointer("/verified/different_grains") == Some(&1.into());
    assert!(!differs(&shown), "nothing came of it: {shown}");

    proxy.heal();
    wait_in_step(&sites);
    assert_eq!(found(&sites, sites.secondary(["verify", "job"]))["repaired_grains"], 0);
}

#[test]
fn it_runs_by_itself_when_it_is_due() {
    let (sites, _primary) = Sites::in_step(84);
    let _secondary = sites.launch_secondary(&["--verify-every", "1s", "--verify-rate", "1GiB"]);
    let verified = |share: &dyn Fn(f64) -> bool| {
        wait_for("a verification", SOON, || {
            let status = secondary_status(&sites);
            status.pointer("/verified/share")?.as_f64().filter(|s| share(*s)).map(|_| status)
        })
    };
    verified(&|share| share == 1.0);
    damage(&sites);
    let status = verified(&|share| share < 1.0);
    assert_eq!(status.pointer("/verified/places/0"), Some(&expected_place().into()), "{status}");
    let words = status["explanation"].as_str().unwrap_or_default();
    assert!(words.contains("1 grain differs from the source"), "{words}");
}

/// `docs/operations/verify.md`, command by command.
#[test]
fn the_page_on_verify_is_right() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/verify.md");
    let page = fs::read_to_string(path).expect("the page");
    let (sites, _primary) = Sites::in_step(83);
    let _secondary = follow(&sites);
    let mut ran = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
        println!("{line}");
        ran += 1;
        if line.contains("--repair") {
            damage(&sites);
            found(&sites, sites.secondary(["verify", "job"]));
        }
        let words: Vec<String> =
            line.split_whitespace().skip(1).map(|word| word.replace("NAME", "job")).collect();
        let at_secondary = line.starts_with("secondary-agent");
        let command = if at_secondary { sites.secondary(&words) } else { sites.primary(&words) };
        let said = sites.ok(command);
        if line.contains(" --stop") {
            assert!(said.contains("no verification is under way"), "{said}");
            continue;
        }
        let sign = if line.contains(" status ") { "equal by digests" } else { "proven equal" };
        assert!(said.contains(sign) && said.contains("100.00 %"), "{line}: {said}");
    }
    sites.assert_equal();
    assert!(ran >= 6, "only {ran} commands were found");
}
