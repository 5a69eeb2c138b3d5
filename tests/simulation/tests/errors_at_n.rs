//! Every operation of a disk and every piece on the link fails, in each of the main scenarios.

use simulation::errors_at_n::{SCENARIOS, all};
use simulation::run::catch_panics;

#[test]
fn whatever_fails_the_state_is_right_or_an_error_says_why_not() {
    catch_panics();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let scenarios: Vec<_> = (0..SCENARIOS.len()).collect();
    let report = all(&scenarios, jobs);
    println!("{report}");
    assert!(report.failed.is_empty(), "{report}");
    assert!(report.places() > 1_500, "the scenarios are too short to show anything: {report}");
}
