//! Who and what is refused, in words and with its own exit code, and that nothing moves then.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use end_to_end::{Sites, Tool, allocated_bytes, compare, overwrite};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_stranger_gets_nothing() {
    let sites = Sites::new(16 * MIB, MIB, "64KiB", 41);
    let primary = sites.serve_primary();
    let mut client = Tool::require("openssl", "openssl").command();
    client.args(["s_client", "-tls1_3", "-ign_eof", "-connect"]).arg(sites.address().to_string());
    let output = client.stdin(Stdio::null()).output().expect("openssl runs");
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &said(&output);
    assert!(text.contains("no peer certificate available"), "{text}");
    assert!(text.contains("Cipher is (NONE)"), "{text}");
    drop(primary);
}

#[test]
fn a_secondary_with_an_unpinned_key_is_refused() {
    let sites = Sites::new(16 * MIB, MIB, "64KiB", 42);
    let _primary = sites.serve_primary();
    let stranger = Sites::unrelated(16 * MIB, MIB, 43);
    stranger.ok(stranger.secondary(["identity"]));
    // The ticket is no secret; the replica can be made, but not brought to life.
    stranger.ok(stranger.replica_init(&sites.ticket()));
    let words = refused_by_the_other_side(&stranger, 4);
    assert!(words.contains("not pinned at the other side"), "{words}");
    assert!(words.contains("[not-pinned]") && words.contains("primary-agent init"), "{words}");
}

#[test]
fn a_ticket_of_another_relationship_opens_nothing() {
    let sites = Sites::new(16 * MIB, MIB, "64KiB", 44);
    let _primary = sites.serve_primary();
    // Its ticket names a primary of its own, but leads to ours.
    let lost = Sites::unrelated(16 * MIB, MIB, 45);
    let identity = lost.ok(lost.secondary(["identity"]));
    let address = sites.address().to_string();
    let mut init = lost.primary(["init", "job", "--address", &address, "--peer", identity.trim()]);
    init.arg("--ticket").arg(lost.ticket()).arg("--volume").arg(lost.source_volume());
    lost.ok(init);
    lost.ok(lost.replica_init(&lost.ticket()));
    let words = refused_by_the_other_side(&lost, 4);
    assert!(words.contains("[stranger]") && words.contains("compare the fingerprint"), "{words}");
}

/// `serve --once --compare` ends in words, and the volume is as empty as it was.
fn refused_by_the_other_side(site: &Sites, exit: i32) -> String {
    let mut once = site.launch_secondary(&["--once", "--compare"]);
    let status = once.wait_for_exit(SOON);
    let words = once.stderr();
    assert_eq!(status.code(), Some(exit), "{words}");
    assert!(words.contains("error: "), "{words}");
    assert_eq!(allocated_bytes(&site.replica_volume()), 0, "something was written");
    words
}

#[test]
fn another_size_of_volume_is_refused_at_init() {
    let sites = Sites::new(16 * MIB, MIB, "64KiB", 44);
    let other = Sites::unrelated(15 * MIB, MIB, 45);
    let made = other.end(other.replica_init(&sites.ticket()));
    assert!(!made.status.success());
    assert!(said(&made).contains("size") || said(&made).contains("bytes"), "{}", said(&made));
}

#[test]
fn a_second_process_on_the_same_relationship_is_refused() {
    let (sites, _primary) = Sites::in_step(46);
    let second = sites.end(sites.primary(["serve", "job"]));
    assert_eq!(second.status.code(), Some(3), "{}", said(&second));
    let mut secondary = sites.launch_secondary::<&str>(&[]);
    secondary.wait_for_line("follows its primary", SOON);
    let second = sites.end(sites.secondary(["serve", "job", "--once"]));
    assert_eq!(second.status.code(), Some(3), "{}", said(&second));
}

#[test]
fn unknown_names_and_flags_have_their_exit_codes() {
    let sites = Sites::unrelated(MIB, MIB, 47);
    let code = |command: Command| sites.end(command).status.code();
    assert_eq!(code(sites.primary(["serve", "nobody"])), Some(3));
    assert_eq!(code(sites.secondary(["serve", "nobody"])), Some(3));
    assert_eq!(code(sites.primary(["serve"])), Some(2));
    assert_eq!(code(sites.primary(["serve", "job", "--no-such-flag"])), Some(2));
}

#[test]
fn a_replica_changed_behind_its_back_is_named_and_healed_by_a_comparison() {
    let (sites, _primary) = Sites::in_step(48);
    overwrite(&sites.replica_volume(), 0, 6 * MIB, 49);
    assert!(compare(&sites.source_volume(), &sites.replica_volume()).is_some());
    let mut refused = sites.launch_secondary(&["--once"]);
    let status = refused.wait_for_exit(SOON);
    let words = refused.stderr();
    assert_eq!(status.code(), Some(3), "{words}");
    assert!(words.contains("[volume]") && words.contains("the grain at byte 0"), "{words}");
    let healing = &["--once", "--compare", "--accept-touched", "--in-step", "0"];
    let mut healed = sites.launch_secondary(healing);
    let status = healed.wait_for_exit(SOON);
    assert!(status.success(), "{status}: {}", healed.stderr());
    sites.assert_equal();
}

#[test]
fn a_plan_asks_the_primary_and_moves_nothing() {
    let (sites, primary_agent) = Sites::in_step(49);
    let io = Tool::require("qemu-io", "qemu-utils");
    io.run(["-f", "raw", "-c", "write -P 9 1M 256k", "-c", "flush", &sites.uri()]);
    let plan = sites.json(sites.secondary(["plan", "job"]));
    assert_eq!(plan["rule"], "delta", "{plan}");
    assert_eq!(plan["estimated_grains"], 4, "{plan}");
    assert!(compare(&sites.source_volume(), &sites.replica_volume()).is_some(), "it moved");
    let words = sites.ok(sites.secondary(["plan", "job"]));
    assert!(words.contains("brought up to the other by itself"), "{words}");
    assert!(!words.contains('{'), "raw JSON is for programs: {words}");
    let primary = sites.json(sites.primary(["status", "job"]));
    assert_eq!(primary.pointer("/peers/0/last_error"), Some(&serde_json::Value::Null), "{primary}");
    // Nobody to ask.
    drop(primary_agent);
    let alone = sites.end(sites.secondary(["plan", "job"]));
    assert_eq!(alone.status.code(), Some(6), "{}", said(&alone));
    assert!(said(&alone).contains("error"), "{}", said(&alone));
}

#[test]
fn a_replica_that_holds_nothing_is_refused_with_the_code_of_the_rule() {
    let sites = Sites::new(16 * MIB, MIB, "64KiB", 50);
    let _primary = sites.serve_primary();
    let mut once = sites.launch_secondary(&["--once"]);
    let status = once.wait_for_exit(SOON);
    let words = once.stderr();
    assert_eq!(status.code(), Some(11), "{words}");
    for part in ["no-ancestor", "load", "--compare"] {
        assert!(words.contains(part), "`{part}` is not said: {words}");
    }
    assert_eq!(allocated_bytes(&sites.replica_volume()), 0, "something was written");
}

/// The primary's machine is put back to an image of itself from before the last catch-up: the replica holds
/// what the source never heard of. Neither is overwritten until the operator says which.
#[test]
fn a_source_put_back_to_an_older_image_is_refused_by_both() {
    let (sites, mut primary) = Sites::in_step(51);
    assert!(primary.terminate(SOON).success(), "{}", primary.stderr());
    let (state, volume) = (sites.folder().join("primary"), sites.source_volume());
    let (old_state, old_volume) = (sites.folder().join("old"), sites.folder().join("old.img"));
    let cp = Tool::require("cp", "coreutils");
    // With their times, as an image of a whole machine has them.
    cp.run(["--archive".as_ref(), state.as_os_str(), old_state.as_os_str()]);
    cp.run(["--archive".as_ref(), volume.as_os_str(), old_volume.as_os_str()]);
    let mut primary = sites.serve_primary();
    let io = Tool::require("qemu-io", "qemu-utils");
    io.run(["-f", "raw", "-c", "write -P 5 2M 512k", "-c", "flush", &sites.uri()]);
    sites.catch_up();
    primary.terminate(SOON);
    std::fs::remove_dir_all(&state).unwrap();
    cp.run(["--archive".as_ref(), old_state.as_os_str(), state.as_os_str()]);
    cp.run(["--archive".as_ref(), old_volume.as_os_str(), volume.as_os_str()]);

    let mut primary = sites.serve_primary();
    let before = std::fs::read(sites.replica_volume()).unwrap();
    let mut once = sites.launch_secondary(&["--once"]);
    let status = once.wait_for_exit(SOON);
    let words = once.stderr();
    assert_eq!(status.code(), Some(14), "{words}");
    assert!(words.contains("ahead") && words.contains("the source"), "{words}");
    assert_eq!(std::fs::read(sites.replica_volume()).unwrap(), before, "something was written");
    let told = sites.json(sites.primary(["status", "job"]));
    assert_eq!(told.pointer("/peers/0/rule").and_then(|r| r.as_str()), Some("ahead"), "{told}");
    // The operator names the replica as the loser.
    let mut healed = sites.launch_secondary(&["--once", "--compare", "--in-step", "0"]);
    let status = healed.wait_for_exit(SOON);
    assert!(status.success(), "{status}: {}", healed.stderr());
    sites.assert_equal();
    primary.terminate(SOON);
}
