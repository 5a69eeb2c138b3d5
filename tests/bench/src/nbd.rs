//! The bench `nbd`: requests on an export over a Unix socket, tracking on, against `nbdkit file`,
//! `qemu-nbd`, and a loop that does the system calls and nothing else. Every contender has a file of
//! its own, filled, in the page cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contest::{Case, OURS, Unit};
use crate::fio::{self, Pattern, Target};
use crate::options::Options;
use crate::process::{self, Server};
use crate::product::{self, Pair};

const NBDKIT: &str = "nbdkit file";
const QEMU_NBD: &str = "qemu-nbd";
const FLOOR: &str = "syscalls only";

/// Ratios that DESIGN asks for: random requests at depth 32, and all others.
const GOALS_DEEP: &[(&str, f64)] = &[(NBDKIT, 1.5), (QEMU_NBD, 2.0), (FLOOR, 0.85)];
const GOALS_OTHER: &[(&str, f64)] = &[(NBDKIT, 1.0), (QEMU_NBD, 1.0)];

/// One contender that serves.
struct Contender {
    name: &'static str,
    socket: PathBuf,
    // Held so that the server lives as long as the contender.
    _server: Server,
}

/// Runs all cases.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    let dir = options.work_dir()?;
    let contenders = start(options, dir.path())?;
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
    let size_bytes = options.volume_mib << 20;
    let mut cases = Vec::new();
    for (kind, block_bytes, depth) in [
        ("randwrite", 4096, 32),
        ("randread", 4096, 32),
        ("randwrite", 4096, 1),
        ("randread", 4096, 1),
        ("write", 1 << 20, 8),
        ("read", 1 << 20, 8),
    ] {
        let pattern = Pattern { kind, block_bytes, depth, from_byte: 0, size_bytes };
        let is_small = block_bytes == 4096;
        let unit = if is_small { Unit::RequestsPerSecond } else { Unit::MegabytesPerSecond };
        let goals = if is_small && depth == 32 { GOALS_DEEP } else { GOALS_OTHER };
        let name = format!("{kind} {} KiB, depth {depth}", block_bytes >> 10);
        let case = Case::new(name, unit, goals).compete(&names, options.rounds, |index, _| {
            process::settle(dir.path())?;
            let target = Target::Nbd(&contenders[index].socket);
            let figures = fio::for_seconds(target, pattern, options.turn_seconds)?;
            Ok(match unit {
                Unit::RequestsPerSecond => figures.requests_per_second,
                _ => figures.bytes_per_second / 1e6,
            })
        })?;
        cases.push(case);
    }
    Ok(cases)
}

fn start(options: &Options, dir: &Path) -> Result<Vec<Contender>, String> {
    let mut contenders = Vec::new();
    let size_bytes = options.volume_mib << 20;
    let volume = |name: &str| -> Result<PathBuf, String> {
        let path = dir.join(name);
        fill(&path, size_bytes)?;
        Ok(path)
    };
    if !options.peers_only {
        let replica = dir.join("ours.replica");
        make_sparse(&replica, size_bytes)?;
        let pair = Pair::init(dir, &volume("ours.raw")?, &replica)?;
        let server = pair.serve()?;
        contenders.push(Contender { name: OURS, socket: pair.socket(), _server: server });
    }
    let socket = dir.join("nbdkit.socket");
    let mut nbdkit = Command::new("nbdkit");
    nbdkit.args(["--foreground", "--exit-with-parent", "--unix"]).arg(&socket);
    nbdkit.arg("file").arg(volume("nbdkit.raw")?);
    let server = Server::start(&mut nbdkit, &socket)?;
    contenders.push(Contender { name: NBDKIT, socket, _server: server });

    let socket = dir.join("qemu.socket");
    let mut qemu = Command::new("qemu-nbd");
    qemu.args(["--persistent", "--shared=8", "--format=raw", "--socket"]).arg(&socket);
    qemu.arg(volume("qemu.raw")?);
    let server = Server::start(&mut qemu, &socket)?;
    contenders.push(Contender { name: QEMU_NBD, socket, _server: server });
    let socket = dir.join("floor.socket");
    let mut floor = product::binary("floor");
    floor.arg(volume("floor.raw")?).arg(&socket);
    let server = Server::start(&mut floor, &socket)?;
    contenders.push(Contender { name: FLOOR, socket, _server: server });
    Ok(contenders)
}

/// Makes a file full of bytes that do not compress.
pub fn fill(path: &Path, size_bytes: u64) -> Result<(), String> {
    let pattern =
        Pattern { kind: "write", block_bytes: 1 << 20, depth: 1, from_byte: 0, size_bytes };
    fio::write_bytes(Target::File(path), pattern, size_bytes, 0)
}

/// Makes a file that is one hole.
pub fn make_sparse(path: &Path, size_bytes: u64) -> Result<(), String> {
    let file = std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
    file.set_len(size_bytes).map_err(|e| format!("{}: {e}", path.display()))
}
