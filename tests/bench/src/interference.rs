//! The bench `interference`: what an application that asks for a steady number of writes notices of a catch-up,
//! with a source that gives way to it (`pace --give-way on`) and with one that does not.

use std::cell::RefCell;
use std::process::{Child, Command, Stdio};

use crate::contest::{Case, Series, Unit, median};
use crate::fio::{self, Course, Pattern, Target};
use crate::nbd::fill;
use crate::options::Options;
use crate::process;
use crate::product::Pair;

const ALONE: &str = "alone";
const FULL: &str = "catch-up";
const GIVING_WAY: &str = "catch-up, giving way";
const NAMES: [&str; 3] = [ALONE, FULL, GIVING_WAY];

/// What the application writes to, at the beginning of the volume.
const OWN_BYTES: u64 = 256 << 20;
/// Requests a second that it asks for, at most four at a time.
const PER_SECOND: u32 = 2000;
const DEPTH: u32 = 4;
/// Until what gives way has found out how much.
const RAMP_SECONDS: u64 = 3;

/// What one turn found.
struct Turn {
    name: &'static str,
    median_us: f64,
    /// Requests a second that it got.
    per_second: f64,
    /// The catch-up was over before the turn was.
    ended_early: bool,
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    let dir = options.work_dir()?;
    // A catch-up has to last longer than a turn with its ramp.
    let size_bytes = 2 * (options.volume_mib << 20);
    let own_bytes = OWN_BYTES.min(size_bytes / 4);
    let pair = Pair::sparse(dir.path(), size_bytes)?;
    fill(&pair.source_volume(), size_bytes)?;
    let _source = pair.serve()?;
    pair.seed()?;
    process::run(&mut pair.catch_up())?;
    let turns = RefCell::new(Vec::new());
    let name = format!("p99 of {PER_SECOND} writes of 4 KiB a second");
    let mut case = Case::new(name, Unit::Microseconds, &[]);
    case = case.compete(&NAMES, options.rounds, |index, round| {
        let name = NAMES[index];
        let rest = Pattern {
            kind: "write",
            block_bytes: 1 << 20,
            depth: 4,
            from_byte: own_bytes,
            size_bytes: size_bytes - own_bytes,
        };
        if name != ALONE {
            fio::write_bytes(Target::Nbd(&pair.socket()), rest, rest.size_bytes, round)?;
        }
        process::settle(dir.path())?;
        let running = match name {
            ALONE => None,
            _ => Some(CatchUp::begin(&pair, name == GIVING_WAY)?),
        };
        let own = Pattern {
            kind: "randwrite",
            block_bytes: 4096,
            depth: DEPTH,
            from_byte: 0,
            size_bytes: own_bytes,
        };
        let course = Course {
            per_second: Some(PER_SECOND),
            ramp_seconds: RAMP_SECONDS.min(options.turn_seconds),
            seconds: options.turn_seconds,
        };
        let found = fio::with_latency(Target::Nbd(&pair.socket()), own, course)?;
        let ended_early = running.map(CatchUp::end).transpose()?.unwrap_or(false);
        let (median_us, per_second) = (found.median_us, found.figures.requests_per_second);
        turns.borrow_mut().push(Turn { name, median_us, per_second, ended_early });
        Ok(found.p99_us)
    })?;
    let turns = turns.into_inner();
    for part in [FULL, GIVING_WAY] {
        if let (Some(a), Some(b)) = (case.median(part), case.median(ALONE)) {
            let of = turns.iter().filter(|turn| turn.name == part);
            let early = of.clone().filter(|turn| turn.ended_early).count();
            let rates: Vec<f64> = of.clone().map(|turn| turn.per_second).collect();
            case.notes.push(format!(
                "{part}: {:.1} times alone, at {:.0} writes a second; over before the turn was in {early} of {}",
                a / b,
                median(&rates).unwrap_or_default(),
                of.count()
            ));
        }
    }
    let mut medians = Case::new("the same by the median", Unit::Microseconds, &[]);
    for name in NAMES {
        let of = turns.iter().filter(|turn| turn.name == name).map(|turn| turn.median_us);
        medians.series.push(Series { name: name.to_owned(), figures: of.collect() });
    }
    Ok(vec![case, medians])
}

/// The replica catches up; ends when it is dropped.
struct CatchUp<'a> {
    pair: &'a Pair,
    child: Child,
}

impl CatchUp<'_> {
    fn begin(pair: &Pair, gives_way: bool) -> Result<CatchUp<'_>, String> {
        pair.give_way(gives_way)?;
        let mut command: Command = pair.catch_up();
        command.args(["--journal-max", "64GiB"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("the catch-up: {e}"))?;
        Ok(CatchUp { pair, child })
    }

    /// Waits for it, at full speed; whether it was over already.
    fn end(mut self) -> Result<bool, String> {
        let over = self.child.try_wait().map_err(|e| e.to_string())?.is_some();
        self.pair.give_way(false)?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if !status.success() {
            return Err(format!("the catch-up ended with {status}"));
        }
        Ok(over)
    }
}

impl Drop for CatchUp<'_> {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
