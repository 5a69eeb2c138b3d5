//! Volumes of every kind an administrator has: block devices, sparse files, sizes that are no multiple of
//! the grain, several in one consistency group.

use std::path::Path;

use end_to_end::{
    LoopDevice, Mounted, Sites, Tool, VolumeWriter, WriterOptions, compare, random_image,
    sparse_image,
};

const MIB: u64 = 1 << 20;
const SOON: std::time::Duration = std::time::Duration::from_secs(60);

/// `init` at both sites with `volumes`: alias, path at the source, path at the replica.
fn relate(sites: &Sites, volumes: &[(&str, &Path, &Path)]) {
    let identity = sites.ok(sites.secondary(["identity"]));
    let address = sites.address().to_string();
    let mut init = sites.primary(["init", "job", "--grain", "64KiB", "--address", &address]);
    init.args(["--peer", identity.trim(), "--ticket"]).arg(sites.ticket());
    let mut other = sites.secondary(["init", "job", "--ticket"]);
    other.arg(sites.ticket());
    for (alias, source, replica) in volumes {
        init.arg("--volume").arg(format!("{alias}={}", source.display()));
        other.arg("--volume").arg(format!("{alias}={}", replica.display()));
    }
    sites.ok(init);
    sites.ok(other);
}

#[test]
fn a_group_of_devices_and_files_arrives_whole() {
    let sites = Sites::unrelated(MIB, 0, 61);
    let [disk, disk_there, file, file_there] =
        ["disk", "disk-there", "file", "file-there"].map(|name| sites.folder().join(name));
    random_image(&disk, 20 * MIB + 512, 62);
    // A used disk at the replica: where the source has zeros it must not keep what it held.
    random_image(&disk_there, 20 * MIB + 512, 63);
    overwrite_zeros(&disk, 4 * MIB, 3 * MIB);
    sparse_image(&file, 3 * MIB + 12_345, 4, 100_000, 64);
    sparse_image(&file_there, 3 * MIB + 12_345, 0, 0, 0);
    let (here, there) = (LoopDevice::new(&disk), LoopDevice::new(&disk_there));
    relate(&sites, &[("disk", here.device(), there.device()), ("log", &file, &file_there)]);
    let mut primary = sites.serve_primary();

    let busy = |export: &str, seed: u64| {
        let mut options = WriterOptions::new(sites.socket());
        options.block_bytes = 512;
        options.export = export.to_owned();
        options.seed = seed;
        VolumeWriter::start(options)
    };
    let writers = [busy("disk", 65), busy("log", 66)];
    writers.iter().for_each(|writer| writer.wait_for_writes(20, SOON));
    let mut dump = sites.primary(["dump", "job", "--to"]);
    dump.arg(sites.medium(1));
    sites.ok(dump);
    writers.iter().for_each(|writer| writer.wait_for_writes(20, SOON));
    let mut load = sites.secondary(["load", "job"]);
    load.arg(sites.medium(1));
    sites.ok(load);
    let histories = writers.map(VolumeWriter::stop);
    sites.catch_up();
    assert_eq!(compare(here.device(), there.device()), None);
    assert_eq!(compare(&file, &file_there), None);
    assert_eq!(histories[0].lost(there.device()), Vec::<u64>::new());
    assert_eq!(histories[1].lost(&file_there), Vec::<u64>::new());
    assert!(primary.terminate(SOON).success(), "{}", primary.stderr());
}

fn overwrite_zeros(path: &Path, offset: u64, len: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).expect("the image opens");
    file.write_all_at(&vec![0; len as usize], offset).expect("zeros are written");
}

#[test]
fn a_device_in_use_by_another_is_not_taken() {
    let sites = Sites::unrelated(MIB, 0, 67);
    let image = sites.folder().join("image");
    sparse_image(&image, 32 * MIB, 0, 0, 0);
    let device = LoopDevice::new(&image);
    let make = Tool::require("mke2fs", "e2fsprogs");
    make.run(["-q".as_ref(), "-t".as_ref(), "ext4".as_ref(), device.device().as_os_str()]);
    let there = sites.folder().join("there");
    sparse_image(&there, 32 * MIB, 0, 0, 0);
    relate(&sites, &[("disk", device.device(), &there)]);
    let root = sites.folder().join("root");
    let mounted = Mounted::new(device.device(), &root, "");
    let mut refused = sites.launch_primary();
    let status = refused.wait_for_exit(SOON);
    let words = refused.stderr();
    assert_eq!(status.code(), Some(3), "{words}");
    assert!(words.contains("in use") || words.contains("busy"), "{words}");
    mounted.unmount();
    drop(sites.serve_primary());
}
