//! How the replica of a history is kept: mode, bounds of the stream, and changes of the mode on the way.
//! Drawn from a generator of its own, so that the rest of a plan is what it was without it.

use std::time::Duration;

use disk::simulated::SplitMix64;
use replication::source::StreamSettings;
use replication::state::{Mode, OnLinkLoss};

use crate::plan::Step;
use crate::steps::Act;
use crate::weather::Mishap;

/// Keeps this generator apart from that of the plan.
const APART: u64 = 0x6b65_6570_696e_6721;

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// The mode at the start.
    pub mode: Mode,
    /// Bounds of a stream.
    pub stream: StreamSettings,
}

fn draw_mode(random: &mut SplitMix64) -> Mode {
    let block = OnLinkLoss::Block { limit_ms: 1 + random.below(3_000) };
    match random.below(8) {
        0..=2 => Mode::Async,
        3..=5 => Mode::Sync { on_link_loss: OnLinkLoss::Continue },
        6 => Mode::Sync { on_link_loss: block },
        _ => Mode::Cycle { every_ms: Some(1 + random.below(2_000)) },
    }
}

impl Keeping {
    /// Whether this is not the history of a replica that is kept in cycles alone.
    pub fn streams_at_all(&self) -> bool {
        self.stream != StreamSettings::default()
    }

    /// Draws one for the plan of this seed; a third of all histories has cycles alone, as they were before
    /// there were streams.
    pub fn of(seed: u64) -> (Keeping, Vec<(usize, Mode)>) {
        let random = &mut SplitMix64::new(seed ^ APART);
        if random.below(3) == 0 {
            return (Keeping::default(), Vec::new());
        }
        let pick =
            |random: &mut SplitMix64, from: &[u64]| from[random.below(from.len() as u64) as usize];
        let stream = StreamSettings {
            queue_bytes: pick(random, &[6 << 10, 1 << 20, 1 << 20, 64 << 20]),
            age_limit: Duration::from_millis(pick(random, &[100, 5_000, 30_000])),
            epoch: Duration::from_millis(pick(random, &[20, 200, 2_000])),
            from_bytes: pick(random, &[64 << 10, 256 << 20, 256 << 20]),
            pause: Duration::from_millis(pick(random, &[1, 100])),
        };
        let keeping = Keeping { mode: draw_mode(random), stream };
        let changes =
            (0..random.below(4) / 2).map(|_| (random.below(64) as usize, draw_mode(random)));
        (keeping, changes.collect())
    }
}

/// Of a replica that streams: most sessions last, many over a link without mishaps, and the sites are looked
/// at in the middle of them.
pub fn prolong(seed: u64, steps: &mut Vec<Step>) {
    let random = &mut SplitMix64::new(seed ^ APART.rotate_left(7));
    let mut number = steps.iter().map(|step| step.number + 1).max().unwrap_or(0);
    let mut at = 0;
    while at < steps.len() {
        let Act::Connect { link, once, compare, .. } = &mut steps[at].act else {
            at += 1;
            continue;
        };
        *once &= random.below(4) == 0;
        *compare &= random.below(2) == 0;
        if random.below(2) == 0 {
            link.mishap = Mishap::None;
        }
        for _ in 0..random.below(3) {
            let most = [20, 300, 3_000][random.below(3) as usize];
            let after = Duration::from_micros(random.below(most * 1000));
            let step = Step { number, after, seed: random.next_u64(), act: Act::Probe };
            number += 1;
            at += 1;
            steps.insert(at, step);
        }
        at += 1;
    }
    if random.below(4) == 0 {
        // A dump beside a stream, given up while it runs, if it is still running by then.
        let acts = [(Act::Await, 1), (Act::Dump, 9_000), (Act::CancelDump, 60_000)];
        for (act, most_us) in acts {
            let after = Duration::from_micros(random.below(most_us));
            steps.push(Step { number, after, seed: random.next_u64(), act });
            number += 1;
        }
    }
}

/// Puts changes of the mode between the steps of a plan; the other steps keep their numbers.
pub fn strew(steps: &mut Vec<Step>, changes: Vec<(usize, Mode)>) {
    for (place, mode) in changes {
        let number = steps.iter().map(|step| step.number + 1).max().unwrap_or(0);
        let act = Act::Mode(mode);
        let step = Step { number, after: Duration::from_millis(1), seed: 0, act };
        steps.insert(place % (steps.len() + 1), step);
    }
}
