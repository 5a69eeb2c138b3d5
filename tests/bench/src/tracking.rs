//! The bench `tracking`: what it costs to record every write, and what the application notices of a dump.
//!
//! Compared with is our own server on our own disk without tracking, so that nothing but the tracking
//! differs. *Cold* writes go where nothing was written since the last cut: each touches a new grain, and
//! now and then a new region, whose record is synced before the write. *Warm* ones go where the bits stand.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::contest::{Case, OURS, Unit};
use crate::fio::{self, Pattern, Target};
use crate::nbd::{fill, make_sparse};
use crate::options::Options;
use crate::process::{self, Server};
use crate::product::{self, Pair};

const UNTRACKED: &str = "untracked";
const UNDISTURBED: &str = "no dump";
/// Where warm writes go.
const WARM_BYTES: u64 = 1 << 30;

/// Runs all cases.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    let mut cases = cost(options)?;
    cases.push(beside_a_dump(options)?);
    Ok(cases)
}

fn requests(socket: &Path, pattern: Pattern, seconds: u64) -> Result<f64, String> {
    Ok(fio::for_seconds(Target::Nbd(socket), pattern, seconds)?.requests_per_second)
}

fn random_writes(depth: u32, from_byte: u64, size_bytes: u64) -> Pattern {
    Pattern { kind: "randwrite", block_bytes: 4096, depth, from_byte, size_bytes }
}

/// Starts our server without tracking on `volume`.
fn untracked(volume: &Path, dir: &Path) -> Result<(PathBuf, Server), String> {
    let socket = dir.join("untracked.socket");
    let mut command = product::binary("untracked");
    command.arg(volume).arg(&socket);
    let server = Server::start(&mut command, &socket)?;
    Ok((socket, server))
}

fn cost(options: &Options) -> Result<Vec<Case>, String> {
    let dir = options.work_dir()?;
    let size_bytes = options.sparse_gib << 30;
    let volume = |name: &str| {
        let path = dir.path().join(name);
        make_sparse(&path, size_bytes).map(|()| path)
    };
    let pair = Pair::init(dir.path(), &volume("ours.raw")?, &volume("ours.replica")?)?;
    let _server = pair.serve()?;
    let (plain, _plain_server) = untracked(&volume("untracked.raw")?, dir.path())?;
    let sockets = [pair.socket(), plain];
    let names = [OURS, UNTRACKED];
    let warm_bytes = WARM_BYTES.min(size_bytes / 2);

    let mut cases = Vec::new();
    for depth in [1, 32] {
        // Each round of each depth has a stretch of its own, where nothing was written before.
        let stretches = 2 * options.rounds as u64 + 1;
        let stretch = ((size_bytes - warm_bytes) / stretches) & !0xf_ffff;
        let case = Case::new(
            format!("first writes, 4 KiB over {} GiB, depth {depth}", stretch >> 30),
            Unit::RequestsPerSecond,
            &[(UNTRACKED, 0.90)],
        );
        let case = case.compete(&names, options.rounds, |index, round| {
            process::settle(dir.path())?;
            let number = round as u64 + if depth == 1 { 0 } else { options.rounds as u64 };
            let pattern = random_writes(depth, warm_bytes + number * stretch, stretch);
            requests(&sockets[index], pattern, options.turn_seconds)
        })?;
        cases.push(case);
    }
    let warm_up =
        Pattern { kind: "write", block_bytes: 1 << 20, ..random_writes(4, 0, warm_bytes) };
    for socket in &sockets {
        fio::write_bytes(Target::Nbd(socket), warm_up, warm_bytes, 0)?;
    }
    for depth in [1, 32] {
        let case = Case::new(
            format!("steady state, 4 KiB over {} MiB, depth {depth}", warm_bytes >> 20),
            Unit::RequestsPerSecond,
            &[(UNTRACKED, 0.97)],
        );
        let case = case.compete(&names, options.rounds, |index, _| {
            process::settle(dir.path())?;
            let pattern = random_writes(depth, 0, warm_bytes);
            requests(&sockets[index], pattern, options.turn_seconds)
        })?;
        cases.push(case);
    }
    Ok(cases)
}

/// Random writes of an application while a dump runs (its rate is not limited), and without.
fn beside_a_dump(options: &Options) -> Result<Case, String> {
    let dir = options.work_dir()?;
    let size_bytes = options.volume_mib << 20;
    let pair = Pair::sparse(dir.path(), size_bytes)?;
    fill(&pair.source_volume(), size_bytes)?;
    let _server = pair.serve()?;
    let target = dir.path().join("target");
    let pattern = random_writes(8, 0, size_bytes);
    let case = Case::new(
        "4 KiB random writes at depth 8 during a dump",
        Unit::RequestsPerSecond,
        &[(UNDISTURBED, 0.7)],
    );
    case.compete(&[OURS, UNDISTURBED], options.rounds, |index, _| {
        process::settle(dir.path())?;
        if index == 1 {
            return requests(&pair.socket(), pattern, options.turn_seconds);
        }
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let dumps = scope.spawn(|| dump_again_and_again(&pair, &target, &over));
            // The first cut and the first records.
            std::thread::sleep(Duration::from_millis(300));
            let measured = requests(&pair.socket(), pattern, options.turn_seconds);
            over.store(true, Ordering::Relaxed);
            dumps.join().map_err(|_| "the dumps panicked".to_owned())??;
            measured
        })
    })
}

/// One dump after the other until `over`; the last one is finished.
fn dump_again_and_again(pair: &Pair, target: &Path, over: &AtomicBool) -> Result<(), String> {
    while !over.load(Ordering::Relaxed) {
        process::run(&mut pair.dump(target))?;
        std::fs::remove_dir_all(target).map_err(|e| format!("target: {e}"))?;
    }
    Ok(())
}
