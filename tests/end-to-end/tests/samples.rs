//! The check at attach with real processes: a replica that was changed where the source wrote nothing
//! is found by samples, nothing is written, and a comparison heals it.

use std::fs;
use std::time::Duration;

use end_to_end::{Sites, compare, overwrite, wait_for};

const MIB: u64 = 1 << 20;
const GRAIN: u64 = 64 << 10;
const SOON: Duration = Duration::from_secs(30);
/// More than any sampling misses: every second grain of the data is wrong.
const WRONG: std::ops::Range<u64> = 4..12;

/// Changes the replica's volume behind its back, away from the grains that a seal always looks at.
fn touch(sites: &Sites) {
    overwrite(
        &sites.replica_volume(),
        WRONG.start * MIB / 2,
        (WRONG.end - WRONG.start) * MIB / 2,
        7,
    );
    assert!(compare(&sites.source_volume(), &sites.replica_volume()).is_some());
}

/// `serve --once` finds the mismatch, says where and what to do, and wrote nothing.
fn found_by_samples(sites: &Sites, arguments: &[&str]) {
    let before = fs::read(sites.replica_volume()).expect("the replica's volume");
    let mut once = sites.launch_secondary(arguments);
    let status = once.wait_for_exit(SOON);
    let words = once.stderr();
    assert_eq!(status.code(), Some(19), "{words}");
    assert!(words.contains("[fingerprint]") && words.contains("--compare"), "{words}");
    let place = words.split("at bytes ").nth(1).and_then(|rest| rest.split(' ').next());
    let place = place.unwrap_or_else(|| panic!("no place in: {words}"));
    let ends: Vec<u64> = place.split("..").filter_map(|n| n.parse().ok()).collect();
    assert_eq!(ends.len(), 2, "{place}: {words}");
    assert_eq!(ends[1] - ends[0], GRAIN, "{words}");
    assert!(ends[0] >= WRONG.start * MIB / 2 && ends[1] <= WRONG.end * MIB / 2, "{words}");
    assert!(words.contains("of volume source"), "{words}");
    let after = fs::read(sites.replica_volume()).expect("the replica's volume");
    assert!(before == after, "something was written");
}

fn healed(sites: &Sites) {
    let mut once =
        sites.launch_secondary(&["--once", "--compare", "--accept-touched", "--in-step", "0"]);
    let status = once.wait_for_exit(SOON);
    assert!(status.success(), "{status}: {}", once.stderr());
    sites.assert_equal();
    // Nothing is left of it: the next attach is an ordinary one.
    sites.catch_up();
}

#[test]
fn a_replica_changed_behind_its_back_is_found_by_samples_and_healed_by_a_comparison() {
    let (sites, _primary) = Sites::in_step(61);
    touch(&sites);
    found_by_samples(&sites, &["--once", "--accept-touched"]);
    healed(&sites);
}

#[test]
fn a_replica_killed_hard_has_no_seal_and_is_found_by_samples() {
    let (sites, _primary) = Sites::in_step(62);
    let mut secondary = sites.launch_secondary::<&str>(&[]);
    wait_for("the replica to be in step", SOON, || {
        let status = sites.json(sites.secondary(["status", "job"]));
        (status.pointer("/state")?.as_str()? == "current").then_some(())
    });
    secondary.kill_9();
    touch(&sites);
    found_by_samples(&sites, &["--once"]);
    healed(&sites);
}

#[test]
fn the_primary_says_it_too_and_goes_on() {
    let (sites, _primary) = Sites::in_step(63);
    touch(&sites);
    found_by_samples(&sites, &["--once", "--accept-touched"]);
    let status = sites.json(sites.primary(["status", "job"]));
    let error = status.pointer("/peers/0/last_error").and_then(|v| v.as_str()).unwrap_or_default();
    assert!(error.contains("samples differ"), "{status}");
}
