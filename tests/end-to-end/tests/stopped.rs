//! The status of a site whose agent does not run: what its maps say, and nothing changed by looking.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use end_to_end::{Sites, Tool, VolumeWriter, WriterOptions};
use serde_json::Value;

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {value}"))
}

fn not_known(value: &Value) -> String {
    let all = value.pointer("/not_known").and_then(Value::as_array);
    let all = all.unwrap_or_else(|| panic!("not_known: {value}"));
    all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
}

/// Every file below a folder, with its length and the time of its last change.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a folder").flatten() {
            let meta = entry.metadata().expect("its metadata");
            if meta.is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path(), (meta.len(), meta.modified().expect("a time")));
        }
    }
    found
}

#[test]
fn a_stopped_replica_says_what_it_lacks() {
    let sites = Sites::new(16 * MIB, 8 * MIB, "64KiB", 81);
    let blank = sites.json(sites.secondary(["status", "job"]));
    assert_eq!((&blank["state"], &blank["running"]), (&"empty".into(), &false.into()));
    assert!(blank["explanation"].as_str().unwrap_or_default().contains("empty"), "{blank}");
    let (first, second) = (sites.medium(1), sites.medium(2));
    let mut dump = sites.primary(["dump", "job", "--segment", "1MiB", "--to"]);
    dump.arg(&first).arg("--to").arg(&second);
    sites.ok(dump);
    let mut load = sites.secondary(["load", "job"]);
    load.arg(&first);
    let loaded = sites.json(load);
    let before = files(&sites.folder().join("secondary"));
    let status = sites.json(sites.secondary(["status", "job"]));
    assert_eq!(files(&sites.folder().join("secondary")), before, "looking changed something");
    assert_eq!(number(&status, "/not_loaded/grains"), number(&loaded, "/waiting_grains"));
    assert!(number(&status, "/not_loaded/grains") > 0, "{status}");
    assert_eq!(number(&status, "/not_loaded/bytes"), number(&loaded, "/waiting_grains") << 16);
    assert_eq!(status["state"], "loading", "{status}");
    assert!(not_known(&status).contains("the source has written since"), "{status}");
    let words = sites.ok(sites.secondary(["status", "job"]));
    assert!(words.contains("not known"), "{words}");
}

#[test]
fn a_stopped_source_says_what_its_peers_lack() {
    let sites = Sites::new(16 * MIB, 8 * MIB, "64KiB", 82);
    let fresh = sites.json(sites.primary(["status", "job"]));
    assert_eq!(number(&fresh, "/dirty/grains"), 0, "never served");
    let mut primary = sites.serve_primary();
    sites.ship();
    sites.catch_up();
    let io = Tool::require("qemu-io", "qemu-utils");
    io.run(["-f", "raw", "-c", "write -P 7 1M 192k", &sites.uri()]);
    let running = sites.json(sites.primary(["status", "job"]));
    assert_eq!(number(&running, "/dirty/grains"), 3, "{running}");
    primary.terminate(SOON);
    let folder = sites.folder().join("primary");
    let before = files(&folder);
    let status = sites.json(sites.primary(["status", "job"]));
    assert_eq!(files(&folder), before, "looking changed something");
    assert_eq!(status["state"], "stopped");
    assert_eq!(
        (number(&status, "/dirty/grains"), not_known(&status).as_str()),
        (3, ""),
        "{status}"
    );
}

#[test]
fn a_killed_source_says_what_it_cannot_know() {
    let sites = Sites::new(16 * MIB, 8 * MIB, "64KiB", 83);
    let mut primary = sites.serve_primary();
    let writer = VolumeWriter::start(WriterOptions::new(sites.socket()));
    writer.wait_for_writes(20, SOON);
    primary.kill_9();
    drop(writer);
    let status = sites.json(sites.primary(["status", "job"]));
    assert!(number(&status, "/dirty/grains") > 0, "{status}");
    assert!(not_known(&status).contains("did not stop cleanly"), "{status}");
}
