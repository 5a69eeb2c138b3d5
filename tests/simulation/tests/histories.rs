//! A fixed set of histories, clean and reaching everything that a set of that size has to reach; the
//! same seed gives the same history.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::coverage;
use simulation::plan::Plan;
use simulation::run::{catch_panics, play};
use simulation::trace::Coverage;

/// Histories of the fixed set.
const HISTORIES: u64 = 500;

fn clean(plan: &Plan) -> simulation::run::Outcome {
    let outcome = play(plan, false);
    if let Some(violation) = &outcome.violation {
        let command = plan.command();
        panic!("{}: {}\n{plan}\nreplay: {command}", violation.checker, violation.words);
    }
    outcome
}

#[test]
fn a_fixed_set_is_clean_and_reaches_everything() {
    catch_panics();
    let next = AtomicU64::new(0);
    let all = Mutex::new(Coverage::new());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= HISTORIES {
                        return;
                    }
                    let plan = Plan::new(seed);
                    let outcome = play(&plan, false);
                    if let Some(violation) = outcome.violation {
                        failed.lock().unwrap().push((plan.command(), violation));
                    }
                    coverage::add(&mut all.lock().unwrap(), &outcome.coverage);
                }
            });
        }
    });
    assert_eq!(failed.into_inner().unwrap(), []);
    let missing = coverage::missing(&all.into_inner().unwrap());
    assert!(missing.is_empty(), "these never happened in {HISTORIES} histories: {missing:?}");
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
