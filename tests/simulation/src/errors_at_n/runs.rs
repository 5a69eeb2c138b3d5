//! All runs: every scenario, every target, every N, every blow, every mode.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Blow, Case, Mode, Ran, SCENARIOS, Stages, Target, play};
use crate::coverage;
use crate::plan::Site;
use crate::run::take_panic;
use crate::trace::Coverage;
use crate::world::Violation;

const TARGETS: [Target; 3] =
    [Target::Disk(Site::Source), Target::Disk(Site::Replica), Target::Link];

/// A run in which a promise did not hold.
#[derive(Clone, Debug)]
pub struct Failed {
    /// Which scenario, by its place in the list.
    pub scenario: usize,
    /// What failed in it.
    pub case: Case,
    /// What is wrong.
    pub violation: Violation,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Operations or pieces of the scenario.
    pub places: u64,
    /// Runs.
    pub runs: u64,
}

/// What came of all.
#[derive(Default)]
pub struct Report {
    /// By scenario and target.
    pub counts: BTreeMap<(usize, &'static str), Counts>,
    /// The first of each scenario and target.
    pub failed: Vec<Failed>,
    /// How often each thing happened.
    pub coverage: Coverage,
}

fn name(target: Target) -> &'static str {
    match target {
        Target::Disk(Site::Source) => "disk of the source",
        Target::Disk(Site::Replica) => "disk of the replica",
        Target::Link => "link",
    }
}

fn on_clock<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Plays one case; a panic is a violation.
pub fn one(stages: &Stages, scenario: usize, case: Case, printed: bool) -> Ran {
    drop(take_panic());
    let played = catch_unwind(AssertUnwindSafe(|| {
        on_clock(play(stages, &SCENARIOS[scenario], case, printed))
    }));
    let panic = take_panic().map(|words| Violation { checker: "panic", words });
    match played {
        Ok(mut ran) => {
            ran.outcome.violation = ran.outcome.violation.or(panic);
            ran
        }
        Err(_) => Ran::panicked(panic),
    }
}

/// Sets the stages.
pub fn stages() -> Stages {
    on_clock(Stages::set())
}

/// The runs of one scenario and target, for every N.
fn every_n(stages: &Stages, scenario: usize, target: Target, report: &Mutex<Report>) {
    let mut counts = Counts::default();
    let mut seen = Coverage::new();
    let mut failed = None;
    let mut run = |n, blow, mode| {
        let case = Case { target, n, blow, mode };
        let ran = one(stages, scenario, case, false);
        counts.runs += 1;
        coverage::add(&mut seen, &ran.outcome.coverage);
        if let Some(violation) = ran.outcome.violation.clone() {
            failed.get_or_insert(Failed { scenario, case, violation });
        }
        ran
    };
    let mut n = 0;
    loop {
        let reached = match target {
            Target::Disk(_) => {
                let first = run(n, Blow::Io, Mode::Once);
                if first.reached {
                    run(n, Blow::Io, Mode::Class);
                    run(n, Blow::Io, Mode::All);
                }
                if first.takes_space {
                    run(n, Blow::NoSpace, Mode::Once);
                    run(n, Blow::NoSpace, Mode::All);
                }
                first.reached
            }
            Target::Link => {
                let first = run(n, Blow::Cut, Mode::Once);
                if first.reached {
                    run(n, Blow::Cut, Mode::All);
                    run(n, Blow::Broken, Mode::Once);
                    run(n, Blow::Silent, Mode::Class);
                    run(n, Blow::Corrupt, Mode::Once);
                }
                first.reached
            }
        };
        if !reached {
            break;
        }
        n += 1;
    }
    counts.places = n;
    if let Ok(mut report) = report.lock() {
        report.counts.insert((scenario, name(target)), counts);
        report.failed.extend(failed);
        coverage::add(&mut report.coverage, &seen);
    }
}

/// Plays all of these scenarios, side by side over the cores.
pub fn all(scenarios: &[usize], jobs: usize) -> Report {
    let items: Vec<_> = scenarios.iter().flat_map(|s| TARGETS.map(|target| (*s, target))).collect();
    let (next, report) = (AtomicUsize::new(0), Mutex::new(Report::default()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                let stages = stages();
                while let Some((scenario, target)) = items.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    every_n(&stages, *scenario, *target, &report);
                }
            });
        }
    });
    report.into_inner().unwrap_or_default()
}

impl Report {
    /// All runs.
    pub fn runs(&self) -> u64 {
        self.counts.values().map(|counts| counts.runs).sum()
    }

    /// Operations and pieces of all scenarios.
    pub fn places(&self) -> u64 {
        self.counts.values().map(|counts| counts.places).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((scenario, target), Counts { places, runs }) in &self.counts {
            let scenario = SCENARIOS[*scenario].name;
            writeln!(f, "{places:>6} places {runs:>6} runs  {scenario} / {target}")?;
        }
        for Failed { scenario, case, violation } in &self.failed {
            let scenario = SCENARIOS[*scenario].name;
            writeln!(
                f,
                "FAILS: {scenario}, {case:?}\n  {}: {}",
                violation.checker, violation.words
            )?;
        }
        write!(f, "{} places, {} runs", self.places(), self.runs())
    }
}
