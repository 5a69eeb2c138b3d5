//! The bench `burst`: an application writes faster than the link and the replica take it; how far the replica
//! falls behind, and how long after the end of the burst until it has everything. One burst fits into the
//! queue of the stream (64 MiB), one does not: then a catch-up takes over. A status is made four times a second:
//! that is the resolution.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::contest::{Case, Unit};
use crate::fio::{self, Pattern, Target};
use crate::options::Options;
use crate::process;
use crate::product::Pair;

const BURSTS: [(&str, u64); 2] = [("48 MiB, fits the queue", 48), ("512 MiB, does not", 512)];
const VOLUME_BYTES: u64 = 1 << 30;
/// The pause before a stream is tried again grows with each that overflowed.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What one turn found.
struct Turn {
    wrote_seconds: f64,
    behind_bytes: u64,
    overflowed: bool,
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    let dir = options.work_dir()?;
    let pair = Pair::sparse(dir.path(), VOLUME_BYTES)?;
    let _source = pair.serve()?;
    pair.seed()?;
    let _replica = pair.serve_replica()?;
    pair.set_mode("async")?;
    let mut turns: [Vec<Turn>; 2] = Default::default();
    let names = BURSTS.map(|(name, _)| name);
    let name = "from the end of a burst until the replica has it";
    let mut case =
        Case::new(name, Unit::Seconds, &[]).compete(&names, options.rounds, |index, round| {
            pair.wait_until_confirmed(PATIENCE)?;
            process::settle(dir.path())?;
            let (turn, seconds) = burst(&pair, BURSTS[index].1 << 20, round)?;
            turns[index].push(turn);
            Ok(seconds)
        })?;
    case.notes = BURSTS.iter().zip(&turns).map(|((name, _), turns)| words(name, turns)).collect();
    Ok(vec![case])
}

fn burst(pair: &Pair, bytes: u64, round: usize) -> Result<(Turn, f64), String> {
    let before = pair.overflows()?;
    let start = Instant::now();
    let ended = AtomicBool::new(false);
    let (wrote, behind_bytes) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| watch(pair, &ended));
        let wrote = write(&pair.socket(), bytes, round).map(|()| start.elapsed().as_secs_f64());
        ended.store(true, Ordering::Relaxed);
        (wrote, watching.join().map_err(|_| "the watching thread failed".to_owned()))
    });
    let (wrote_seconds, behind_bytes) = (wrote?, behind_bytes??);
    // A status that was made before the end says nothing.
    let unix_ms = std::time::UNIX_EPOCH.elapsed().map_err(|e| e.to_string())?.as_millis() as u64;
    process::wait_until("that the replica has it", PATIENCE, Duration::from_millis(20), || {
        let status = pair.status()?;
        Ok(status["unix_ms"].as_u64() > Some(unix_ms) && has_all(&status))
    })?;
    let seconds = start.elapsed().as_secs_f64() - wrote_seconds;
    let overflowed = pair.overflows()? > before;
    Ok((Turn { wrote_seconds, behind_bytes, overflowed }, seconds))
}

/// Confirmed in a stream, or committed.
fn has_all(status: &Value) -> bool {
    let mirror = &status["peers"][0]["mirror"];
    let streamed = mirror["mirroring"] == true && mirror["backlog_bytes"] == 0;
    streamed || status["dirty"]["grains"] == 0
}

fn write(socket: &Path, bytes: u64, round: usize) -> Result<(), String> {
    let size_bytes = VOLUME_BYTES;
    let pattern =
        Pattern { kind: "randwrite", block_bytes: 64 << 10, depth: 8, from_byte: 0, size_bytes };
    fio::write_bytes(Target::Nbd(socket), pattern, bytes, round)
}

/// The most that was not confirmed in any look: what waits in the stream, and without one what is dirty.
fn watch(pair: &Pair, ended: &AtomicBool) -> Result<u64, String> {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        let status = pair.status()?;
        let mirror = &status["peers"][0]["mirror"];
        let behind = match mirror["mirroring"] == true {
            true => &mirror["backlog_bytes"],
            false => &status["dirty"]["bytes"],
        };
        most = most.max(behind.as_u64().ok_or("the status has no such figure")?);
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(most)
}

fn words(name: &str, turns: &[Turn]) -> String {
    let most = turns.iter().map(|turn| turn.behind_bytes).max().unwrap_or_default();
    let slowest = turns.iter().map(|turn| turn.wrote_seconds).fold(0.0, f64::max);
    let overflowed = turns.iter().filter(|turn| turn.overflowed).count();
    format!(
        "{name}: written within {slowest:.1} s; at most {} MB behind; the queue was full in {overflowed} of {} turns",
        most / 1_000_000,
        turns.len()
    )
}
