//! A fixed set of histories, clean and reaching everything that a set of that size has to reach; the
//! same seed gives the same history.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::coverage;
use simulation::plan::{Plan, Scale};
use simulation::run::{catch_panics, play};
use simulation::trace::Coverage;

/// Histories of the fixed set: whole lives.
const HISTORIES: u64 = 500;
/// Small histories of the fixed set.
const SMALL: u64 = 2500;

fn clean(plan: &Plan) -> simulation::run::Outcome {
    let outcome = play(plan, false);
    if let Some(violation) = &outcome.violation {
        let command = plan.command();
        panic!("{}: {}\n{plan}\nreplay: {command}", violation.checker, violation.words);
    }
    outcome
}

/// Plays seeds from 0 on, all of which have to be clean; gives what happened.
fn play_all(histories: u64, scale: Scale) -> Coverage {
    catch_panics();
    let next = AtomicU64::new(0);
    let all = Mutex::new(Coverage::new());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= histories {
                        return;
                    }
                    let plan = Plan::of(seed, scale);
                    let outcome = play(&plan, false);
                    if let Some(violation) = outcome.violation {
                        failed.lock().expect("no panic").push((plan.command(), violation));
                    }
                    coverage::add(&mut all.lock().expect("no panic"), &outcome.coverage);
                }
            });
        }
    });
    assert_eq!(failed.into_inner().expect("no panic"), []);
    all.into_inner().expect("no panic")
}

#[test]
fn a_fixed_set_is_clean_and_reaches_everything() {
    let missing = coverage::missing(&play_all(HISTORIES, Scale::Whole));
    assert!(missing.is_empty(), "these never happened in {HISTORIES} histories: {missing:?}");
}

#[test]
fn a_fixed_set_of_small_ones_is_clean() {
    let coverage = play_all(SMALL, Scale::Small);
    for checked in ["checked: no change missed", "checked: replica consistent", "verdict: delta"] {
        let count = coverage.get(checked).copied().unwrap_or(0);
        assert!(count > SMALL / 2, "{checked}: {count} times in {SMALL} histories");
    }
}

#[test]
fn the_same_seed_is_the_same_history() {
    catch_panics();
    let mut hashes = BTreeSet::new();
    for seed in 0..12 {
        let plan = Plan::new(seed);
        let (first, second) = (clean(&plan), clean(&plan));
        assert_eq!(first.hash, second.hash, "seed {seed} is not deterministic");
        assert_eq!(first.coverage, second.coverage, "seed {seed}");
        hashes.insert(first.hash);
    }
    assert_eq!(hashes.len(), 12, "histories of different seeds are the same");
}

#[test]
fn a_step_left_out_changes_no_other() {
    let plan = Plan::new(3);
    let shorter = plan.without(&BTreeSet::from([2]));
    assert_eq!(shorter.steps.len() + 1, plan.steps.len());
    for step in &shorter.steps {
        let same = plan.steps.iter().find(|other| other.number == step.number).unwrap();
        assert_eq!((format!("{:?}", step.act), step.seed), (format!("{:?}", same.act), same.seed));
    }
    assert!(shorter.command().ends_with("--seed 3 --without 2"), "{}", shorter.command());
}
