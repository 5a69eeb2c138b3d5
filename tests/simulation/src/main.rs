//! `simulate`: many histories, in parallel over the cores; the failing ones are shrunk and shown with
//! the command that replays them. Started by `cargo xtask sim` and `cargo xtask soak`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use simulation::plan::{Plan, Scale};
use simulation::run::{Outcome, catch_panics, play};
use simulation::shrink::shrink;
use simulation::trace::Coverage;
use simulation::{coverage, crash_points, errors_at_n};

/// What was asked.
#[derive(Debug)]
struct Options {
    seeds: u64,
    first: u64,
    one: Option<u64>,
    trace: bool,
    scale: Scale,
    without: BTreeSet<u32>,
    hours: Option<f64>,
    jobs: usize,
    coverage: bool,
    crash_points: bool,
    errors_at_n: bool,
}

/// A history allocates much and little at a time; see `docs/decisions/0092-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "simulate [--seeds N] [--from S] [--seed S [--without a,b,c] [--trace]]
         [--small] [--hours H] [--jobs N] [--coverage]
simulate --crash-points | --errors-at-n  [--jobs N]

  --seeds N      plays N histories (default 1000) from seed --from on (default 0)
  --seed S       plays one history, twice, and compares the hashes of both
  --without LIST leaves out these steps of its plan
  --trace        prints its plan and every event
  --small        small histories: few grains, requests and acts
  --hours H      plays fresh seeds for so long
  --jobs N       worlds side by side (default: the cores)
  --coverage     fails when something that should happen never did
  --crash-points looks at every crash point of all sequences of up to three actions, at its full depth
  --errors-at-n  lets every operation fail in each of the main scenarios";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(options) => run(&options),
        Err(words) => {
            eprintln!("{words}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        seeds: 1000,
        first: 0,
        one: None,
        trace: false,
        scale: Scale::Whole,
        without: BTreeSet::new(),
        hours: None,
        jobs,
        coverage: false,
        crash_points: false,
        errors_at_n: false,
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|e| format!("{text}: {e}"));
        match argument.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--from" => options.first = number(value()?)?,
            "--seed" => options.one = Some(number(value()?)?),
            "--jobs" => options.jobs = number(value()?)?.max(1) as usize,
            "--hours" => options.hours = Some(value()?.parse().map_err(|e| format!("{e}"))?),
            "--without" => {
                for part in value()?.split(',') {
                    options.without.insert(part.parse().map_err(|e| format!("{part}: {e}"))?);
                }
            }
            "--trace" => options.trace = true,
            "--small" => options.scale = Scale::Small,
            "--coverage" => options.coverage = true,
            "--crash-points" => options.crash_points = true,
            "--errors-at-n" => options.errors_at_n = true,
            other => return Err(format!("{other}: not known")),
        }
    }
    Ok(options)
}

fn run(options: &Options) -> ExitCode {
    catch_panics();
    match options.one {
        _ if options.crash_points => every_crash_point(options.jobs),
        _ if options.errors_at_n => every_error(options.jobs),
        Some(seed) => one(seed, options),
        None => many(options),
    }
}

fn every_crash_point(jobs: usize) -> ExitCode {
    let begun = Instant::now();
    let report = crash_points::walk(crash_points::Depth::FULL, jobs);
    println!("{report} in {:.0} s", begun.elapsed().as_secs_f64());
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn every_error(jobs: usize) -> ExitCode {
    let begun = Instant::now();
    let all: Vec<_> = (0..errors_at_n::SCENARIOS.len()).collect();
    let report = errors_at_n::all(&all, jobs);
    println!("{report} in {:.0} s", begun.elapsed().as_secs_f64());
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let plan = Plan::of(seed, options.scale).without(&options.without);
    print!("{plan}");
    let first = play(&plan, options.trace);
    let second = play(&plan, false);
    println!("trace hash {:016x}", first.hash);
    if first.hash != second.hash {
        println!("NOT DETERMINISTIC: the second time {:016x}", second.hash);
        return ExitCode::FAILURE;
    }
    match first.violation {
        Some(violation) => {
            println!("{}: {}", violation.checker, violation.words);
            ExitCode::FAILURE
        }
        None => {
            println!("every promise held");
            ExitCode::SUCCESS
        }
    }
}

fn many(options: &Options) -> ExitCode {
    let begun = Instant::now();
    let until = options.hours.map(|hours| Duration::from_secs_f64(hours * 3600.0));
    // A soak plays seeds that nobody played before.
    let first = match until {
        Some(_) if options.first == 0 => fresh(),
        _ => options.first,
    };
    let next = AtomicU64::new(first);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Coverage::new());
    let failed = Mutex::new(None::<(u64, Outcome)>);
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                let mut mine = Coverage::new();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let over = match until {
                        Some(until) => begun.elapsed() > until,
                        None => seed - first >= options.seeds,
                    };
                    if over {
                        break;
                    }
                    let outcome = play(&Plan::of(seed, options.scale), false);
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    coverage::add(&mut mine, &outcome.coverage);
                    if count.is_multiple_of(20_000) {
                        let rate = count as f64 / begun.elapsed().as_secs_f64();
                        println!("{count} histories, {rate:.0} a second");
                    }
                    if outcome.violation.is_some() {
                        stop.store(true, Ordering::Relaxed);
                        if let Ok(mut failed) = failed.lock() {
                            // The smallest seed of those under way, for the same report twice.
                            match &*failed {
                                Some((other, _)) if *other < seed => {}
                                _ => *failed = Some((seed, outcome)),
                            }
                        }
                    }
                }
                if let Ok(mut all) = all.lock() {
                    coverage::add(&mut all, &mine);
                }
            });
        }
    });
    let (count, took) = (done.into_inner(), begun.elapsed().as_secs_f64());
    println!(
        "{count} histories from seed {first} in {took:.1} s: {:.0} a second, {:.0} a second a core",
        count as f64 / took,
        count as f64 / took / options.jobs as f64
    );
    if let Ok(Some((seed, outcome))) = failed.into_inner() {
        return report(seed, options.scale, &outcome);
    }
    let all = all.into_inner().unwrap_or_default();
    for (name, count) in &all {
        println!("{count:>12}  {name}");
    }
    let missing = coverage::missing(&all);
    if !missing.is_empty() {
        println!("never happened: {}", missing.join("; "));
        if options.coverage {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn fresh() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs() << 24)
}

fn report(seed: u64, scale: Scale, outcome: &Outcome) -> ExitCode {
    let Some(violation) = &outcome.violation else { return ExitCode::FAILURE };
    println!("\nseed {seed} FAILS\n{}: {}", violation.checker, violation.words);
    let plan = shrink(&Plan::of(seed, scale), violation.checker);
    println!("\nshrunk plan:\n{plan}");
    if let Some(violation) = play(&plan, false).violation {
        println!("{}: {}", violation.checker, violation.words);
    }
    println!("\nreplay: {}", plan.command());
    ExitCode::FAILURE
}
