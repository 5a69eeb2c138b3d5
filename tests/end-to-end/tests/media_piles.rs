//! Disks of several sets in one pile, and who may read them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use end_to_end::Sites;

const MIB: u64 = 1 << 20;

fn dump(sites: &Sites, media: &[u32], more: &[&str]) {
    let mut dump = sites.primary(["dump", "job"]);
    dump.args(more);
    for number in media {
        dump.arg("--to").arg(sites.folder().join(format!("medium-{number}")));
    }
    sites.ok(dump);
}

#[test]
fn a_pile_of_two_sets_is_sorted_and_never_mixed() {
    let sites = Sites::new(8 * MIB, 4 * MIB, "64KiB", 71);
    let _primary = sites.serve_primary();
    dump(&sites, &[1, 2], &[]);
    dump(&sites, &[3], &[]);
    let path = |number: u32| sites.folder().join(format!("medium-{number}"));

    let mut list = sites.media_tools(["list"]);
    list.args([path(3), path(2)]);
    let listed = sites.json(list);
    let sets = listed.pointer("/sets").and_then(|v| v.as_array()).expect("sets").clone();
    assert_eq!(sets.len(), 2, "{listed}");
    for set in &sets {
        let missing = set["missing"].as_array().expect("missing");
        let two = set["media"].as_u64() == Some(2);
        let wanted: Vec<u64> = if two { vec![1] } else { vec![] };
        assert_eq!(missing.iter().filter_map(|n| n.as_u64()).collect::<Vec<_>>(), wanted, "{set}");
        assert_eq!(set["here"].as_array().map(Vec::len), Some(1), "{set}");
    }
    let mut list = sites.media_tools(["list"]);
    list.args([path(3), path(2)]);
    let words = sites.ok(list);
    assert!(words.lines().any(|l| l.contains("1 of 2") && l.contains("not here")), "{words}");

    for verb in ["verify", "inspect", "extract"] {
        let mut mixed = sites.media_tools([verb]);
        mixed.args([path(1), path(2), path(3)]);
        if verb == "extract" {
            mixed.arg("--to").arg(sites.folder().join("out"));
        }
        let output = sites.end(mixed);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{verb}: {words}");
        assert!(words.contains("[several-sets]") && words.contains("medium-3"), "{words}");
        assert!(words.contains("media-tools list"), "{words}");
    }
    let mut load = sites.secondary(["load", "job"]);
    load.args([path(1), path(3)]);
    let output = sites.end(load);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

fn mode(path: &Path) -> u32 {
    let found = path.metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    found.permissions().mode() & 0o777
}

#[test]
fn a_carrier_may_read_what_is_sealed_and_nobody_what_is_not() {
    let sites = Sites::new(8 * MIB, MIB, "64KiB", 72);
    let _primary = sites.serve_primary();
    dump(&sites, &[1], &[]);
    dump(&sites, &[2], &["--no-encryption"]);
    // The agent has the umask of this process.
    let probe = sites.folder().join("probe");
    std::fs::File::create(&probe).expect("a file");
    let umask = 0o666 & !mode(&probe);
    for (number, directory, file) in [(1, 0o755, 0o644), (2, 0o700, 0o600)] {
        let medium = sites.folder().join(format!("medium-{number}"));
        assert_eq!(mode(&medium), directory & !umask, "{}", medium.display());
        let mut files = 0;
        for entry in std::fs::read_dir(&medium).expect("the medium").flatten() {
            assert_eq!(mode(&entry.path()), file & !umask, "{}", entry.path().display());
            files += 1;
        }
        assert!(files >= 5, "{files} files");
    }
}
