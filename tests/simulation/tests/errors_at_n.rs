//! Every operation of a disk and every piece on the link fails, in each of the main scenarios.

use simulation::errors_at_n::{SCENARIOS, all};
use simulation::run::catch_panics;

#[test]
fn whatever_fails_the_state_is_right_or_an_error_says_why_not() {
    catch_panics();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let only = std::env::var("SCENARIO").ok().map(|s| s.parse::<usize>().unwrap());
    let scenarios: Vec<_> = (0..SCENARIOS.len()).filter(|s| only.is_none_or(|o| o == *s)).collect();
    let report = all(&scenarios, jobs);
    println!("{}\n{} runs", report.table(), report.runs());
    for failed in &report.failed {
        println!("{}: {:?}\n  {}: {}", SCENARIOS[failed.scenario].name, failed.case, failed.violation.checker, failed.violation.words);
    }
    assert!(report.failed.is_empty());
}
