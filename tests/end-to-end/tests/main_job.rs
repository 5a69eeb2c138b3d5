//! The main job with real processes: establish, track, dump while an application writes, ship with
//! damage, load one medium after the other, catch up, compare.

use std::fs;
use std::time::Duration;

use end_to_end::{Sites, VolumeWriter, WriterOptions, compare, flip_bit, largest_file};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

#[test]
fn two_media_with_damage_are_loaded_one_after_the_other_and_caught_up() {
    let sites = Sites::new(64 * MIB + 4096, 40 * MIB, "64KiB", 11);
    let primary = sites.serve_primary();
    let before = sites.json(sites.primary(["status", "job"]));
    assert_eq!(text(&before, "/role"), "source");
    assert_eq!(number(&before, "/grain_bytes"), 64 << 10);

    let mut options = WriterOptions::new(sites.socket());
    options.pause = Duration::from_millis(2);
    let writer = VolumeWriter::start(options);
    writer.wait_for_writes(20, SOON);
    let (first, second) = (sites.medium(1), sites.medium(2));
    let mut dump = sites.primary(["dump", "job", "--segment", "4MiB", "--to"]);
    dump.arg(&first).arg("--to").arg(&second);
    sites.ok(dump);
    writer.wait_for_writes(20, SOON);
    let after = sites.json(sites.primary(["status", "job"]));
    assert_eq!(text(&after, "/job/stage"), "done");
    assert_eq!(after.pointer("/job/media").and_then(Value::as_array).map(Vec::len), Some(2));
    assert!(number(&after, "/dirty/grains") > 0, "{after}");
    let plan = sites.json(sites.primary(["plan", "job"]));
    assert!(number(&plan, "/steps/0/amount/bytes") > 0, "{plan}");

    flip_bit(&largest_file(&second));
    let mut load = sites.secondary(["load", "job"]);
    load.arg(&first);
    let one = sites.json(load);
    assert!(number(&one, "/loaded_grains") > 0, "{one}");
    assert!(number(&one, "/waiting_grains") > 0, "{one}");
    assert_eq!(number(&one, "/damaged_grains"), 0, "{one}");
    let mut again = sites.secondary(["load", "job"]);
    again.arg(&first);
    let again = sites.json(again);
    assert_eq!(number(&again, "/loaded_grains"), 0, "a second load writes nothing: {again}");
    let mut load = sites.secondary(["load", "job"]);
    load.arg(&second);
    let two = sites.json(load);
    assert_eq!(number(&two, "/waiting_grains"), 0, "{two}");
    assert!(number(&two, "/damaged_grains") > 0, "{two}");

    let mut once = sites.launch_secondary(&["--once"]);
    assert!(once.wait_for_exit(SOON).success(), "{}", once.stderr());
    let history = writer.stop();
    assert_eq!(history.lost(&sites.source_volume()), Vec::<u64>::new());
    sites.catch_up();
    sites.assert_equal();
    let end = sites.json(sites.secondary(["status", "job"]));
    assert_eq!(text(&end, "/role"), "replica");
    assert_eq!(number(&end, "/damaged/grains") + number(&end, "/not_loaded/grains"), 0, "{end}");
    let both = sites.json(sites.primary(["status", "job"]));
    assert_eq!(text(&end, "/position/cut"), text(&both, "/peers/0/acknowledged"));
    let mut primary = primary;
    assert!(primary.terminate(SOON).success(), "{}", primary.stderr());
}

#[test]
fn what_is_extracted_is_the_volume_at_the_cut() {
    let sites = Sites::new(24 * MIB + 512, 12 * MIB, "64KiB", 12);
    let (first, second) = (sites.medium(1), sites.medium(2));
    let mut dump = sites.primary(["dump", "job", "--to"]);
    dump.arg(&first).arg("--to").arg(&second);
    sites.ok(dump);
    for verb in ["list", "verify"] {
        let mut tool = sites.media_tools([verb]);
        tool.arg(&first).arg(&second);
        sites.ok(tool);
    }
    let mut verify = sites.media_tools(["verify"]);
    verify.arg(&first).arg(&second);
    let proven = sites.json(verify);
    assert_eq!(proven.pointer("/root_digest_proven"), Some(&Value::Bool(true)), "{proven}");
    let to = sites.folder().join("out");
    let mut extract = sites.media_tools(["extract", "--to"]);
    extract.arg(&to).arg(&first).arg(&second);
    let extracted = sites.json(extract);
    assert_eq!(extracted.pointer("/complete"), Some(&Value::Bool(true)), "{extracted}");
    let image = text(&extracted, "/files/0").to_owned();
    assert_eq!(compare(&sites.source_volume(), image.as_ref()), None);

    // The media are sealed: what the volume holds stands nowhere on them in the clear.
    let volume = fs::read(sites.source_volume()).unwrap();
    let probe = &volume[5 * MIB as usize..][..32];
    for medium in [&first, &second] {
        let stored = fs::read(largest_file(medium)).unwrap();
        assert!(!stored.windows(32).any(|window| window == probe), "{}", medium.display());
    }

    // The damage is named, and its exit code is that of damage.
    let damaged = largest_file(&first);
    flip_bit(&damaged);
    let mut verify = sites.media_tools(["verify"]);
    verify.arg(&first).arg(&second);
    let output = sites.end(verify);
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = damaged.file_name().unwrap().to_string_lossy().into_owned();
    assert!(said.contains(&name), "{name} is not named in: {said}");
}
