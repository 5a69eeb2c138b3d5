//! Every crash point of every short sequence; in the time of an ordinary test with fewer images an instant
//! than `simulate --crash-points` looks at.

use simulation::crash_points::{Depth, walk};
use simulation::run::catch_panics;

#[test]
fn after_any_crash_of_a_short_sequence_the_promises_hold() {
    catch_panics();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let report = walk(Depth::BRIEF, jobs);
    println!("{report}");
    assert!(report.failed.is_empty(), "{report}");
}
