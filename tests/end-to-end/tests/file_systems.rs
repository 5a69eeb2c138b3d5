//! Real file systems on our export, as an administrator has them: `nbdfuse` and a loop device, xfs and
//! ext4, mounted and written to while the volume is dumped. At the other site the loaded replica mounts
//! (its journal is replayed) and checks clean before the first catch-up already, and after it every file
//! is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use end_to_end::{
    FileTree, FileWriter, FuseExport, LoopDevice, Mounted, Sites, Tool, first_difference,
    make_files, read_files, wait_for,
};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

/// What differs between the file systems.
struct FileSystem {
    make: fn(&Path),
    /// Fails when the (unmounted) device is not clean; changes nothing.
    check: fn(&Path),
    /// For a copy of a mounted one: xfs refuses two of the same id.
    mount_options: &'static str,
}

const XFS: FileSystem = FileSystem {
    make: |device| {
        let make = Tool::require("mkfs.xfs", "xfsprogs");
        make.run(["-q".as_ref(), "-K".as_ref(), device.as_os_str()]);
    },
    check: |device| {
        let check = Tool::require("xfs_repair", "xfsprogs");
        check.run(["-n".as_ref(), device.as_os_str()]);
    },
    mount_options: "nouuid",
};

const EXT4: FileSystem = FileSystem {
    make: |device| {
        let make = Tool::require("mke2fs", "e2fsprogs");
        make.run(["-q".as_ref(), "-t".as_ref(), "ext4".as_ref(), device.as_os_str()]);
    },
    check: |device| {
        let check = Tool::require("e2fsck", "e2fsprogs");
        check.run(["-f".as_ref(), "-n".as_ref(), device.as_os_str()]);
    },
    mount_options: "",
};

/// A copy of the replica's volume: a look at it must not change it.
fn copy_of_replica(sites: &Sites) -> PathBuf {
    let copy = sites.folder().join("copy.img");
    let cp = Tool::require("cp", "coreutils");
    cp.run(["--sparse=always".as_ref(), sites.replica_volume().as_os_str(), copy.as_os_str()]);
    copy
}

/// Mounts a copy of the replica, so that its journal is replayed, reads every file, unmounts and checks it.
fn files_at_replica(sites: &Sites, kind: &FileSystem) -> FileTree {
    let copy = copy_of_replica(sites);
    let device = LoopDevice::new(&copy);
    let mounted =
        Mounted::new(device.device(), &sites.folder().join("replica"), kind.mount_options);
    let files = read_files(mounted.root());
    mounted.unmount();
    (kind.check)(device.device());
    files
}

fn below(tree: &FileTree, folder: &str) -> FileTree {
    let kept = tree.iter().filter(|(name, _)| name.starts_with(folder));
    kept.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

fn outside(tree: &FileTree, folder: &str) -> FileTree {
    let kept = tree.iter().filter(|(name, _)| !name.starts_with(folder));
    kept.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

fn seeded_dumped_loaded_caught_up(kind: &FileSystem, seed: u64) {
    let sites = Sites::new(320 * MIB, 0, "64KiB", seed);
    let _primary = sites.serve_primary();
    let fuse = FuseExport::new(&sites.uri(), &sites.folder().join("fuse"));
    let device = LoopDevice::new(fuse.file());
    (kind.make)(device.device());
    let mounted = Mounted::new(device.device(), &sites.folder().join("source"), "");
    make_files(mounted.root(), 60, 400_000, seed);
    let before = read_files(mounted.root());

    let writer = FileWriter::start(mounted.root(), seed);
    let goes_on = |more: u64| {
        let count = writer.count();
        wait_for("the writer", SOON, || (writer.count() >= count + more).then_some(()));
    };
    goes_on(5);
    let mut dump = sites.primary(["dump", "job", "--rate", "30MiB", "--to"]);
    dump.arg(sites.medium(1)).arg("--to").arg(sites.medium(2));
    let during = writer.count();
    let dumped = sites.json(dump);
    assert!(writer.count() > during, "nothing was written during the dump");
    assert_eq!(dumped.pointer("/fuzzy"), Some(&serde_json::Value::Bool(false)), "{dumped}");
    goes_on(5);

    // Nothing was frozen: what was loaded is what a power cut would have left, at one instant.
    let mut load = sites.secondary(["load", "job"]);
    load.arg(sites.medium(1)).arg(sites.medium(2));
    sites.ok(load);
    let loaded = files_at_replica(&sites, kind);
    assert_eq!(first_difference(&before, &outside(&loaded, "busy")), None);

    // Caught up while the application goes on, then to the last byte.
    let mut once = sites.launch_secondary(&["--once"]);
    assert!(once.wait_for_exit(SOON).success(), "{}", once.stderr());
    goes_on(5);
    writer.stop();
    make_files(&mounted.root().join("later"), 10, 100_000, seed + 1);
    let after = read_files(mounted.root());
    assert!(!below(&after, "busy").is_empty());
    mounted.unmount();
    drop(device);
    drop(fuse);
    sites.catch_up();
    sites.assert_equal();
    assert_eq!(first_difference(&after, &files_at_replica(&sites, kind)), None);
}

#[test]
fn xfs_arrives_whole() {
    seeded_dumped_loaded_caught_up(&XFS, 51);
}

#[test]
fn ext4_arrives_whole() {
    seeded_dumped_loaded_caught_up(&EXT4, 52);
}
