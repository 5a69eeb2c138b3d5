//! The bench `interference`: what an application that asks for a steady number of writes notices of a catch-up,
//! with a source that gives way to it (`pace --give-way on`) and with one that does not.

use std::cell::RefCell;
use std::process::{Child, Command, Stdio};

use crate::contest::{Case, Series, Unit};
use crate::fio::{self, Pattern, Target};
use crate::nbd::{fill, make_sparse};
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

/// What one turn found.
struct Turn {
    name: &'static str,
    median_us: f64,
    /// The catch-up was over before the turn.
    ended_early: bool,
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    let dir = options.work_dir()?;
    let size_bytes = options.volume_mib << 20;
    if size_bytes <= 2 * OWN_BYTES {
        return Err(format!("--volume-mib {} is too small, 1024 is enough", options.volume_mib));
    }
    let (source, replica) = (dir.path().join("source.raw"), dir.path().join("replica.raw"));
    make_sparse(&source, size_bytes)?;
    fill(&source, size_bytes)?;
    make_sparse(&replica, size_bytes)?;
    let pair = Pair::init(dir.path(), &source, &replica)?;
    let _source = pair.serve()?;
    pair.seed()?;
    process::run(&mut pair.catch_up())?;
    let turns = RefCell::new(Vec::new());
    let name = format!("p99 of {PER_SECOND} writes of 4 KiB a second");
    let mut case = Case::new(name, Unit::Microseconds, &[]);
    case = case.compete(&NAMES, options.rounds, |index, round| {
        let name = NAMES[index];
        let running = match name {
            ALONE => None,
            _ => Some(begin(&pair, options, size_bytes, name == GIVING_WAY, round)?),
        };
        process::settle(dir.path())?;
        let own = Pattern {
            kind: "randwrite",
            block_bytes: 4096,
            depth: DEPTH,
            from_byte: 0,
            size_bytes: OWN_BYTES,
        };
        let target = pair.socket();
        let found =
            fio::with_latency(Target::Nbd(&target), own, Some(PER_SECOND), options.turn_seconds)?;
        let ended_early = running.map(|child| end(&pair, child)).transpose()?.unwrap_or(false);
        turns.borrow_mut().push(Turn { name, median_us: found.median_us, ended_early });
        Ok(found.p99_us)
    })?;
    let turns = turns.into_inner();
    for part in [FULL, GIVING_WAY] {
        if let (Some(a), Some(b)) = (case.median(part), case.median(ALONE)) {
            let of = turns.iter().filter(|turn| turn.name == part);
            let early = of.clone().filter(|turn| turn.ended_early).count();
            case.notes.push(format!(
                "{part}: {:.1} times alone; over before the turn ended in {early} of {}",
                a / b,
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

/// Writes to all that the application does not write to, and has the replica catch up.
fn begin(
    pair: &Pair,
    options: &Options,
    size_bytes: u64,
    gives_way: bool,
    round: usize,
) -> Result<Child, String> {
    let writes = Pattern {
        kind: "write",
        block_bytes: 1 << 20,
        depth: 4,
        from_byte: OWN_BYTES,
        size_bytes: size_bytes - OWN_BYTES,
    };
    fio::write_bytes(Target::Nbd(&pair.socket()), writes, size_bytes - OWN_BYTES, round)?;
    process::settle(&options.base_dir())?;
    pair.give_way(gives_way)?;
    let mut command: Command = pair.catch_up();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|e| format!("the catch-up: {e}"))
}

/// Waits for it, at full speed; whether it was over already.
fn end(pair: &Pair, mut child: Child) -> Result<bool, String> {
    let over = child.try_wait().map_err(|e| e.to_string())?.is_some();
    pair.give_way(false)?;
    let status = child.wait().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("the catch-up ended with {status}"));
    }
    Ok(over)
}
