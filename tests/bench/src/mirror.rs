//! The bench `mirror`: 4 KiB random writes while they stream to a replica, in the modes `async` and `sync`,
//! and with the replica connected and idle (`cycle`: what counts as local). Beside it QEMU's storage daemon
//! alone and with a mirror whose writes wait for the other side, each with its own local figure.
//!
//! One pair of ours takes all three turns, so that the files are the same; its replica is reached over TLS on
//! loopback, QEMU's over TCP without. A turn begins when everything from before has been confirmed.

use std::cell::RefCell;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::contest::{Case, Series, Unit, median};
use crate::fio::{self, Course, Pattern, Target};
use crate::nbd::make_sparse;
use crate::options::Options;
use crate::process::{self, Server};
use crate::product::Pair;
use crate::qemu::Daemon;
use crate::round_trip;

const LOCAL: &str = "local";
const ASYNC: &str = "async";
const SYNC: &str = "sync";
const QEMU_LOCAL: &str = "qemu local";
const QEMU_MIRROR: &str = "qemu mirror";
const ROUND_TRIP: &str = "tls round trip";

/// Size of each volume; a hole but for what is written to.
const VOLUME_BYTES: u64 = 1 << 30;
/// What is written to. A catch-up of it fits below what is followed by a stream.
const WRITTEN_BYTES: u64 = 64 << 20;
/// How much longer than a round trip a write in sync mode may take than a local one.
const ALLOWED_US: f64 = 60.0;
/// How long is written before it is measured.
const RAMP_SECONDS: u64 = 1;
/// How long a change of the mode, with its catch-up, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one turn found.
#[derive(Default)]
struct Turn {
    per_second: f64,
    median_us: f64,
    /// In async mode: the same with the time in it until the replica had everything.
    delivered_per_second: f64,
    /// The queue was full in this turn.
    overflowed: bool,
}

/// Runs all cases.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    let dir = options.work_dir()?;
    let sides = Sides::start(options, dir.path())?;
    let mut cases = Vec::new();
    for depth in [1, 32] {
        let turns = RefCell::new(Vec::new());
        let mut names = sides.names();
        if depth == 1 {
            names.push(ROUND_TRIP);
        }
        let name = format!("randwrite 4 KiB, depth {depth}");
        let mut case = Case::new(&name, Unit::RequestsPerSecond, &[]);
        case = case.compete(&names, options.rounds, |index, _| {
            process::settle(dir.path())?;
            let turn = sides.turn(names[index], depth, options.turn_seconds)?;
            let figure = turn.per_second;
            turns.borrow_mut().push((names[index], turn));
            Ok(figure)
        })?;
        let turns = turns.into_inner();
        case.notes = shares(&case, &turns);
        cases.push(case);
        if depth == 1 {
            cases.push(latency(&names, &turns));
        }
    }
    Ok(cases)
}

/// The processes of both makes.
struct Sides {
    ours: Option<Ours>,
    qemu: Daemon,
    qemu_mirror: Daemon,
}

impl Sides {
    fn start(options: &Options, dir: &Path) -> Result<Self, String> {
        let volume = |name: &str, filled: bool| -> Result<_, String> {
            let path = dir.join(name);
            make_sparse(&path, VOLUME_BYTES)?;
            if filled {
                let pattern = Pattern { kind: "write", block_bytes: 1 << 20, ..writes(1) };
                fio::write_bytes(Target::File(&path), pattern, WRITTEN_BYTES, 0)?;
            }
            Ok(path)
        };
        let ours = match options.peers_only {
            true => None,
            false => Some(Ours::start(dir, &volume("source", true)?, &volume("replica", false)?)?),
        };
        let qemu = Daemon::start(dir, "qemu", &volume("qemu.raw", true)?, None)?;
        let (source, remote) = (volume("mirror.raw", true)?, volume("mirror.copy", false)?);
        let qemu_mirror = Daemon::start(dir, "mirror", &source, Some(&remote))?;
        Ok(Self { ours, qemu, qemu_mirror })
    }

    fn names(&self) -> Vec<&'static str> {
        let ours: &[&str] = if self.ours.is_some() { &[LOCAL, ASYNC, SYNC] } else { &[] };
        ours.iter().copied().chain([QEMU_LOCAL, QEMU_MIRROR]).collect()
    }

    fn turn(&self, name: &str, depth: u32, seconds: u64) -> Result<Turn, String> {
        match (name, &self.ours) {
            (ROUND_TRIP, _) => {
                let found = round_trip::for_seconds(seconds)?;
                let (per_second, median_us) = (found.per_second, found.median_us);
                Ok(Turn { per_second, median_us, ..Turn::default() })
            }
            (QEMU_LOCAL, _) => measure(self.qemu.socket(), depth, seconds),
            (QEMU_MIRROR, _) => measure(self.qemu_mirror.socket(), depth, seconds),
            (mode, Some(ours)) => ours.turn(mode, depth, seconds),
            (name, None) => Err(format!("{name} does not take part")),
        }
    }
}

fn writes(depth: u32) -> Pattern {
    let (from_byte, size_bytes) = (0, WRITTEN_BYTES);
    Pattern { kind: "randwrite", block_bytes: 4096, depth, from_byte, size_bytes }
}

fn measure(socket: &Path, depth: u32, seconds: u64) -> Result<Turn, String> {
    let course = Course { per_second: None, ramp_seconds: RAMP_SECONDS, seconds };
    let found = fio::with_latency(Target::Nbd(socket), writes(depth), course)?;
    let (per_second, median_us) = (found.figures.requests_per_second, found.median_us);
    Ok(Turn { per_second, median_us, ..Turn::default() })
}

/// Our pair, seeded and connected.
struct Ours {
    pair: Pair,
    _source: Server,
    _replica: Server,
}

impl Ours {
    fn start(dir: &Path, source: &Path, replica: &Path) -> Result<Self, String> {
        let pair = Pair::init(dir, source, replica)?;
        let server = pair.serve()?;
        pair.seed()?;
        let replica = pair.serve_replica()?;
        Ok(Self { pair, _source: server, _replica: replica })
    }

    fn turn(&self, mode: &str, depth: u32, seconds: u64) -> Result<Turn, String> {
        // Through a stream in all cases: then nothing is left to catch up.
        self.pair.set_mode(if mode == LOCAL { SYNC } else { mode })?;
        self.pair.wait_until_confirmed(PATIENCE)?;
        if mode == LOCAL {
            self.pair.set_mode("cycle=1h")?;
            self.pair.wait("the cycle", PATIENCE, |peer| {
                peer["mirror"]["mirroring"] != true && peer["rule"] == "in-step"
            })?;
        }
        let before = self.pair.overflows()?;
        let mut turn = measure(&self.pair.socket(), depth, seconds)?;
        let ended = Instant::now();
        turn.overflowed = self.pair.overflows()? > before;
        if mode == ASYNC {
            self.pair.wait_until_confirmed(PATIENCE)?;
            // What was written before the clock ran had to be delivered, too.
            let seconds = (seconds + RAMP_SECONDS) as f64;
            let share = seconds / (seconds + ended.elapsed().as_secs_f64());
            turn.delivered_per_second = turn.per_second * share;
        }
        Ok(turn)
    }
}

/// What of its local rate each side keeps.
fn shares(case: &Case, turns: &[(&str, Turn)]) -> Vec<String> {
    let mut notes = Vec::new();
    for (part, whole) in
        [(ASYNC, LOCAL), (SYNC, LOCAL), (QEMU_MIRROR, QEMU_LOCAL), (SYNC, QEMU_MIRROR)]
    {
        if let (Some(a), Some(b)) = (case.median(part), case.median(whole)) {
            notes.push(format!("{part} / {whole}: {:.2}", a / b));
        }
    }
    let streams: Vec<_> = turns.iter().filter(|(name, _)| *name == ASYNC).collect();
    let delivered: Vec<f64> = streams.iter().map(|(_, turn)| turn.delivered_per_second).collect();
    if let Some(delivered) = median(&delivered) {
        let overflowed = streams.iter().filter(|(_, turn)| turn.overflowed).count();
        notes.push(format!(
            "async, with the time until the replica had everything: {delivered:.0} requests/s; the queue \
             was full in {overflowed} of {} turns",
            streams.len()
        ));
    }
    notes
}

/// The same turns by what a write took.
fn latency(names: &[&str], turns: &[(&str, Turn)]) -> Case {
    let mut case = Case::new("the same by the median of a write", Unit::Microseconds, &[]);
    for name in names {
        let figures = turns.iter().filter(|(of, _)| of == name).map(|(_, turn)| turn.median_us);
        case.series.push(Series { name: (*name).to_owned(), figures: figures.collect() });
    }
    let added = |more, less| Some(case.median(more)? - case.median(less)?);
    let mean = |name: &str| {
        let rates: Vec<f64> =
            turns.iter().filter(|(of, _)| *of == name).map(|(_, turn)| turn.per_second).collect();
        median(&rates).map(|rate| 1e6 / rate)
    };
    let mean_added = |more, less| Some(mean(more)? - mean(less)?);
    let mut notes = Vec::new();
    if let (Some(ours), Some(trip)) = (added(SYNC, LOCAL), case.median(ROUND_TRIP)) {
        let verdict = if ours <= trip + ALLOWED_US { "reached" } else { "not reached" };
        notes.push(format!(
            "sync adds {ours:.0} us to a local write; goal: one round trip and {ALLOWED_US:.0} us, {:.0} us: \
             {verdict}",
            trip + ALLOWED_US
        ));
    }
    if let Some(theirs) = added(QEMU_MIRROR, QEMU_LOCAL) {
        notes.push(format!("QEMU's mirror adds {theirs:.0} us, without TLS"));
    }
    for (name, more, less) in [("sync", SYNC, LOCAL), ("QEMU's mirror", QEMU_MIRROR, QEMU_LOCAL)] {
        if let Some(added) = mean_added(more, less) {
            notes.push(format!("by the mean (the rate turned over) {name} adds {added:.0} us"));
        }
    }
    case.notes = notes;
    case
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(median_us: f64) -> Turn {
        Turn { median_us, per_second: 1e6 / median_us, ..Turn::default() }
    }

    #[test]
    fn what_sync_adds_is_judged_by_the_round_trip() {
        let names = [LOCAL, SYNC, ROUND_TRIP];
        for (sync, verdict) in [(190.0, "100 us: reached"), (191.0, "100 us: not reached")] {
            let turns = [(LOCAL, turn(90.0)), (SYNC, turn(sync)), (ROUND_TRIP, turn(40.0))];
            let case = latency(&names, &turns);
            assert!(case.notes[0].ends_with(verdict), "{:?}", case.notes);
            let mean = format!("sync adds {:.0} us", sync - 90.0);
            assert!(case.notes[1].ends_with(&mean), "{:?}", case.notes);
            assert_eq!(case.notes.len(), 2, "QEMU did not take part");
        }
    }

    #[test]
    fn shares_are_of_the_own_local_rate() {
        let mut case = Case::new("x", Unit::RequestsPerSecond, &[]);
        for (name, figure) in [(LOCAL, 8.0), (ASYNC, 4.0), (SYNC, 2.0)] {
            case.series.push(Series { name: name.to_owned(), figures: vec![figure] });
        }
        let slow = Turn { delivered_per_second: 3.0, overflowed: true, ..turn(1.0) };
        let notes = shares(&case, &[(ASYNC, slow)]);
        assert_eq!(notes[..2], ["async / local: 0.50", "sync / local: 0.25"]);
        assert!(notes[2].contains(": 3 requests/s") && notes[2].contains("full in 1 of 1"));
    }
}
