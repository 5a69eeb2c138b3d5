//! Whether the replica of a history keeps its past, how much, and when somebody looks. Drawn from a generator of
//! its own, so that the rest of a plan is what it was without it.

use std::time::Duration;

use disk::simulated::SplitMix64;
use replication::replica::Retain;

use crate::plan::{Scale, Step};
use crate::steps::Act;

/// Keeps this generator apart from that of the plan.
const APART: u64 = 0x7061_7374_2070_6173;

/// Draws it for the plan of this seed; half of all whole histories have none, and three quarters of the small
/// ones. Looks are put between the steps, which
/// keep their numbers.
pub fn draw(seed: u64, scale: Scale, steps: &mut Vec<Step>) -> Retain {
    let random = &mut SplitMix64::new(seed ^ APART);
    let looks = random.below(4);
    let spared = match scale {
        Scale::Whole => false,
        Scale::Small => random.below(2) == 0,
    };
    let retain = match random.below(4) {
        _ if spared => Retain::Nothing,
        0 | 1 => Retain::Nothing,
        // So little that the oldest points go.
        2 => Retain::Up { bytes: 600 << 10, age: Duration::from_millis(random.below(20_000)) },
        _ => Retain::Up { bytes: 64 << 20, age: Duration::from_secs(86_400) },
    };
    let looks = if retain == Retain::Nothing { looks / 3 } else { looks };
    for _ in 0..looks {
        let number = steps.iter().map(|step| step.number + 1).max().unwrap_or(0);
        let most = [1, 40, 4_000][random.below(3) as usize];
        let hold = Duration::from_micros(random.below(most * 1000 + 1));
        let (after, seed) = (Duration::from_micros(random.below(3_000)), random.next_u64());
        // Late: a replica has a past once it is consistent.
        let from = steps.len() / 2;
        let place = from + random.below((steps.len() - from) as u64 + 1) as usize;
        steps.insert(place, Step { number, after, seed, act: Act::Look { hold } });
    }
    retain
}
