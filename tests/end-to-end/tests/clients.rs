//! The clients of others against `primary-agent serve`.

use std::path::Path;

use end_to_end::{Process, Sites, Tool, compare, random_image};

const MIB: u64 = 1 << 20;

fn served(seed: u64) -> (Sites, Process) {
    let sites = Sites::new(32 * MIB, 8 * MIB, "64KiB", seed);
    let primary = sites.serve_primary();
    (sites, primary)
}

#[test]
fn nbdinfo_shows_what_was_written_as_dirty() {
    let (sites, _primary) = served(31);
    let mut dump = sites.primary(["dump", "job", "--to"]);
    dump.arg(sites.medium(1));
    sites.ok(dump);
    let io = Tool::require("qemu-io", "qemu-utils");
    let write = "write -P 7 1M 64k";
    io.run(["-f", "raw", "-c", write, "-c", "flush", &sites.uri()]);
    let info = Tool::require("nbdinfo", "libnbd-bin");
    let map = info.text(["--map=grainhaul:dirty", &sites.uri()]);
    let dirty: Vec<Vec<&str>> = map
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(2).is_some_and(|flags| *flags != "0"))
        .collect();
    assert!(!dirty.is_empty(), "{map}");
    let covers = |fields: &Vec<&str>| {
        let number = |i: usize| fields[i].parse::<u64>().unwrap();
        number(0) <= MIB && number(0) + number(1) >= MIB + (64 << 10)
    };
    assert!(dirty.iter().any(covers), "{map}");
    info.run(["--list", &sites.uri()]);
}

#[test]
fn qemu_img_and_nbdcopy_copy_both_ways() {
    let (sites, _primary) = served(32);
    let [image, back] = ["image", "back"].map(|name| sites.folder().join(name));
    random_image(&image, 32 * MIB, 33);
    let text = |path: &Path| path.display().to_string();
    let qemu = Tool::require("qemu-img", "qemu-utils");
    qemu.run(["convert", "-n", "-f", "raw", "-O", "raw", &text(&image), &sites.uri()]);
    qemu.run(["compare", "-f", "raw", "-F", "raw", &text(&image), &sites.uri()]);
    assert_eq!(compare(&image, &sites.source_volume()), None);
    qemu.run(["convert", "-f", "raw", "-O", "raw", &sites.uri(), &text(&back)]);
    assert_eq!(compare(&image, &back), None);
    random_image(&image, 32 * MIB, 34);
    let copy = Tool::require("nbdcopy", "libnbd-bin");
    copy.run(["--flush", &text(&image), &sites.uri()]);
    assert_eq!(compare(&image, &sites.source_volume()), None);
    std::fs::remove_file(&back).unwrap();
    copy.run([&sites.uri(), &text(&back)]);
    assert_eq!(compare(&image, &back), None);
}

#[test]
fn qemu_io_writes_zeroes_and_discards() {
    let (sites, _primary) = served(35);
    let io = Tool::require("qemu-io", "qemu-utils");
    let commands = [
        "write -P 9 512 8704",
        "read -P 9 512 8704",
        "write -z 1024 512",
        "read -P 0 1024 512",
        "write -z -u 2M 1M",
        "read -P 0 2M 1M",
        "write -f -P 3 4M 4k",
        "read -P 3 4M 4k",
        "discard 6M 1M",
        "flush",
    ];
    let mut arguments = vec!["-f".to_owned(), "raw".to_owned()];
    for command in commands {
        arguments.extend(["-c".to_owned(), command.to_owned()]);
    }
    arguments.push(sites.uri());
    let text = io.text(arguments);
    assert!(!text.contains("failed") && !text.contains("verification"), "{text}");
}

#[test]
fn fio_finds_what_it_wrote() {
    let (sites, _primary) = served(36);
    let uri = format!("--uri={}", sites.uri());
    let mut fio = Tool::require("fio", "fio").command();
    fio.current_dir(sites.folder()).args(["--name=job", "--ioengine=nbd"]).arg(uri).args([
        "--rw=randwrite",
        "--bs=4k",
        "--iodepth=16",
        "--size=8m",
        "--verify=crc32c",
        "--do_verify=1",
        "--verify_fatal=1",
        "--fsync=64",
    ]);
    sites.ok(fio);
}

#[test]
fn qemu_img_map_sees_what_is_allocated() {
    let (sites, _primary) = served(37);
    let io = Tool::require("qemu-io", "qemu-utils");
    io.run(["-f", "raw", "-c", "write -P 5 20M 1M", "-c", "flush", &sites.uri()]);
    let qemu = Tool::require("qemu-img", "qemu-utils");
    let text = qemu.text(["map", "-f", "raw", "--output=json", &sites.uri()]);
    let map: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let holds_data = |at: u64| {
        let extent = map.iter().find(|extent| {
            let (start, length) = (extent["start"].as_u64().unwrap(), &extent["length"]);
            (start..start + length.as_u64().unwrap()).contains(&at)
        });
        extent.unwrap_or_else(|| panic!("{at} is in no extent: {text}"))["data"] == true
    };
    assert!(holds_data(0) && holds_data(8 * MIB - 1), "{text}");
    assert!(holds_data(20 * MIB) && holds_data(21 * MIB - 1), "{text}");
    assert!(!holds_data(12 * MIB) && !holds_data(31 * MIB), "{text}");
}

/// Single requests as only a library client sends them: each flag by itself, and those that are wrong.
#[test]
fn nbdsh_sends_every_request() {
    let (sites, _primary) = served(38);
    let script = sites.folder().join("requests.py");
    std::fs::write(&script, include_str!("clients/requests.py")).unwrap();
    // Debian's own interpreter: another python3 in the search path does not see its modules.
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.arg(&script).arg(sites.socket());
    let said = sites.ok(python);
    assert_eq!(said.trim(), "done");
}
