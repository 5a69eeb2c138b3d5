//! The bench `history`: what it costs a replica to remember, and how long it takes until its past can be looked
//! at, for a small volume and for a large sparse one. Compared with is our own replica that keeps nothing.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::contest::{Case, Unit};
use crate::fio::{self, Pattern, Target};
use crate::options::Options;
use crate::process;
use crate::product::Pair;

const KEPT: &str = "history kept";
const NONE: &str = "no history";
const RETAIN: [&str; 2] = ["--retain", "1h"];
const SIZES: [(&str, u64); 2] = [("1 GiB", 1 << 30), ("1 TiB sparse", 1 << 40)];
/// In the volume before it is dumped.
const DATA_BYTES: u64 = 64 << 20;
/// Written after the bookmark that is looked at.
const LATER_BYTES: u64 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    Ok(vec![catch_up(options)?, look(options)?])
}

/// A catch-up until everything is in the volumes, over what was written before.
fn catch_up(options: &Options) -> Result<Case, String> {
    let dir = options.work_dir()?;
    let size_bytes = options.volume_mib << 20;
    let pair = Pair::sparse(dir.path(), size_bytes)?;
    let _source = pair.serve()?;
    let whole = Pattern { kind: "write", block_bytes: 1 << 20, depth: 8, from_byte: 0, size_bytes };
    fio::write_bytes(Target::Nbd(&pair.socket()), whole, size_bytes, 1)?;
    pair.seed()?;
    let dirty = size_bytes / 4;
    let writes = Pattern { kind: "randwrite", block_bytes: 64 << 10, ..whole };
    let name = format!("catch-up of {} MB over data, 64 KiB, scattered", dirty / 1_000_000);
    let case = Case::new(name, Unit::Seconds, &[]);
    let mut case = case.compete(&[KEPT, NONE], options.rounds, |index, round| {
        fio::write_bytes(Target::Nbd(&pair.socket()), writes, dirty, round)?;
        process::settle(dir.path())?;
        let mut catch_up = pair.catch_up();
        if index == 0 {
            catch_up.args(RETAIN);
        }
        process::timed(&mut catch_up)
    })?;
    if let (Some(kept), Some(none)) = (case.median(KEPT), case.median(NONE)) {
        case.notes.push(format!("kept / none: {:.2} of the time", kept / none));
    }
    Ok(case)
}

/// From the order to the greeting of the export, at a bookmark from before the last writes.
fn look(options: &Options) -> Result<Case, String> {
    let names = SIZES.map(|(name, _)| name);
    let case = Case::new("a bookmark until it can be looked at", Unit::Seconds, &[]);
    let mut case = case.compete(&names, options.rounds, |index, round| {
        let dir = options.work_dir()?;
        turn(dir.path(), SIZES[index].1, round)
    })?;
    if let (Some(small), Some(large)) = (case.median(names[0]), case.median(names[1])) {
        case.notes.push(format!("1 TiB / 1 GiB: {:.2}; 1.0 is no cost of the size", large / small));
    }
    Ok(case)
}

fn turn(dir: &Path, size_bytes: u64, round: usize) -> Result<f64, String> {
    let pair = Pair::sparse(dir, size_bytes)?;
    let _source = pair.serve()?;
    let writes =
        Pattern { kind: "randwrite", block_bytes: 64 << 10, depth: 8, from_byte: 0, size_bytes };
    fio::write_bytes(Target::Nbd(&pair.socket()), writes, DATA_BYTES, round)?;
    pair.seed()?;
    let _replica = pair.serve_replica_with(&RETAIN)?;
    pair.set_mode("async")?;
    pair.wait_until_confirmed(PATIENCE)?;
    pair.bookmark("mark")?;
    fio::write_bytes(Target::Nbd(&pair.socket()), writes, LATER_BYTES, round + 100)?;
    pair.wait_until_confirmed(PATIENCE)?;
    process::settle(dir)?;

    let socket = dir.join("look.socket");
    let start = Instant::now();
    process::run(&mut pair.look("mark", &socket))?;
    process::wait_until("an NBD greeting", PATIENCE, PAUSE, || Ok(greets(&socket)))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Whether an NBD server answers there.
pub fn greets(socket: &Path) -> bool {
    let mut greeting = [0; 8];
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    if stream.set_read_timeout(Some(PATIENCE)).is_err() {
        return false;
    }
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"NBDMAGIC"
}
