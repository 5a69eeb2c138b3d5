//! A link that breaks again and again during one catch-up: what had arrived stays, so that in total
//! little more passes than what differs.

use std::time::Duration;

use end_to_end::{Direction, Sites, Tool, VolumeWriter, WriterOptions, wait_for};
use serde_json::json;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(90);

#[test]
fn a_link_that_is_cut_carries_each_grain_about_once() {
    let (sites, proxy) = Sites::through_proxy(96 * MIB, 2 * MIB, "64KiB", 21);
    let mut primary = sites.serve_primary();
    sites.ship();
    assert!(primary.terminate(SOON).success());

    // Random blocks all over the volume, so that most grains are dirty and none compresses.
    let primary = sites.serve_primary();
    let mut options = WriterOptions::new(sites.socket());
    options.block_bytes = 64 << 10;
    let writer = VolumeWriter::start(options);
    writer.wait_for_writes(120, SOON);
    let history = writer.stop();
    let status = sites.json(sites.primary(["status", "job"]));
    let dirty = status.pointer("/dirty/bytes").and_then(|n| n.as_u64()).expect("dirty bytes");
    assert!(dirty > 16 * MIB, "{dirty}");

    proxy.set_rate(Some(12 * MIB));
    let mut once = sites.launch_secondary(&["--once", "--in-step", "0"]);
    let passed = || proxy.bytes(Direction::FromTarget);
    let mut cuts = 0;
    for part in 1..=4 {
        let goal = dirty * part / 6;
        wait_for("bytes over the link", SOON, || (passed() > goal).then_some(()));
        assert!(once.try_exit().is_none(), "ended early: {}", once.stderr());
        proxy.cut();
        proxy.heal();
        cuts += 1;
    }
    proxy.set_rate(None);
    let status = once.wait_for_exit(SOON);
    assert!(status.success(), "{status}: {}", once.stderr());
    assert_eq!(history.lost(&sites.replica_volume()), Vec::<u64>::new());
    sites.assert_equal();
    assert!(proxy.connections() > cuts, "{} connections", proxy.connections());
    let share = passed() as f64 / dirty as f64;
    assert!(share < 1.2, "{} bytes for {dirty} dirty ones: {share:.2}", passed());
    drop(primary);
}

/// What repeats itself travels short where that was chosen, or where the link is thin; and meanwhile the status
/// says when the replica will be in step.
#[test]
fn a_thin_link_carries_less_than_what_changed_and_the_end_is_foreseen() {
    for (number, how) in ["off", "19", "auto"].into_iter().enumerate() {
        let (sites, proxy) = Sites::through_proxy(64 * MIB, 2 * MIB, "64KiB", 22);
        let primary = sites.serve_primary_with(&["--compress", how]);
        sites.ship();
        let changed = 24 * MIB;
        let io = Tool::require("qemu-io", "qemu-utils");
        let write = format!("write -P {} 8M 24M", 0x51 + number);
        let written = io.command().args(["-f", "raw", "-c", &write, &sites.uri()]).output();
        assert!(written.expect("qemu-io runs").status.success());
        proxy.set_rate(Some(3 * MIB));
        let mut once = sites.launch_secondary(&["--once", "--in-step", "0"]);
        if how == "off" {
            let foreseen = wait_for("a forecast", SOON, || {
                let status = sites.json(sites.primary(["status", "job"]));
                status.pointer("/peers/0/forecast").filter(|f| !f.is_null()).cloned()
            });
            let figure = |name: &str| foreseen[name].as_u64();
            let (carried, behind) = (figure("carried_bytes_s"), figure("behind_bytes"));
            assert!(carried > Some(MIB / 4) && behind < Some(changed + 3 * MIB), "{foreseen}");
            let shown = sites.ok(sites.primary(["status", "job"]));
            assert!(shown.contains("in step in about"), "{shown}");
        }
        proxy.set_rate(Some(if how == "off" { 64 * MIB } else { 3 * MIB }));
        let status = once.wait_for_exit(SOON);
        assert!(status.success(), "{how}: {status}: {}", once.stderr());
        sites.assert_equal();
        let passed = proxy.bytes(Direction::FromTarget);
        match how {
            "off" => assert!(passed > changed, "{passed}"),
            "auto" => assert!(passed < changed * 4 / 5, "{passed}"),
            _ => assert!(passed < 2 * MIB, "{passed}"),
        }
        drop(primary);
    }
}

/// What the operator says about the pace holds from then on, and what waits for it goes on.
#[test]
fn a_catch_up_goes_as_fast_as_the_operator_says() {
    let sites = Sites::new(64 * MIB, 2 * MIB, "64KiB", 23);
    let primary = sites.serve_primary_with(&["--rate", "512KiB/s"]);
    sites.ship();
    let io = Tool::require("qemu-io", "qemu-utils");
    let written =
        io.command().args(["-f", "raw", "-c", "write -P 7 8M 24M", &sites.uri()]).output();
    assert!(written.expect("qemu-io runs").status.success());
    let mut once = sites.launch_secondary(&["--once", "--in-step", "0"]);
    let peer = |field: &str| {
        let status = sites.json(sites.primary(["status", "job"]));
        status.pointer(&format!("/peers/0/{field}")).and_then(|n| n.as_u64()).unwrap_or(0)
    };
    wait_for("some of it", SOON, || (peer("link_bytes") > MIB).then_some(()));
    // 24 MiB would take 48 s: far more than this test takes until here.
    assert!(once.try_exit().is_none(), "it did not keep to the rate: {}", once.stderr());
    assert!(peer("link_bytes") < 20 * MIB);
    let shown = sites.json(sites.primary(["pace", "job"]));
    assert_eq!(shown["rate_bytes_s"], 512 << 10, "{shown}");
    let set = sites.json(sites.primary(["pace", "job", "--rate", "off", "--give-way", "on"]));
    assert_eq!((&set["rate_bytes_s"], &set["gives_way"]), (&0.into(), &true.into()), "{set}");
    let status = once.wait_for_exit(SOON);
    assert!(status.success(), "{status}: {}", once.stderr());
    sites.assert_equal();
    for wrong in [["--rate", "fast"], ["--hours", "8-18=1MiB/s"]] {
        let wrong = sites.end(sites.primary(["pace", "job"].into_iter().chain(wrong)));
        assert_eq!(wrong.status.code(), Some(2));
    }

    // Hours hold before the rate, whatever the hour is, and are taken away again.
    let hours = ["--hours", "00:00-12:00=3MiB/s", "--hours", "mon-sun 12:00-24:00=3MiB/s"];
    let set =
        sites.json(sites.primary(["pace", "job", "--rate", "1MiB/s"].into_iter().chain(hours)));
    assert_eq!(set["rate_bytes_s"], 3 << 20, "{set}");
    assert_eq!(set["rate_outside_hours_bytes_s"], 1 << 20, "{set}");
    assert!(set["hours_in_force"].as_str().is_some_and(|text| text.ends_with("3MiB/s")), "{set}");
    let none = sites.json(sites.primary(["pace", "job", "--hours", "none"]));
    assert_eq!((&none["rate_bytes_s"], &none["hours"]), (&(1 << 20).into(), &json!([])), "{none}");
    drop(primary);
}
