//! What a link does to what travels on it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::SplitMix64;
use wire::link::{Direction, Fate};

use crate::trace::Trace;

/// How a link ends, if it does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// Nothing happens to it.
    None,
    /// It breaks in the middle of what is being sent.
    Break,
    /// Nothing arrives for a while, then all of it.
    Stall(Duration),
    /// One direction falls silent for good, the other goes on.
    HalfOpen(Direction),
    /// A piece is changed on its way.
    Corrupt,
}

/// The plan of one link.
#[derive(Clone, Copy, Debug)]
pub struct LinkPlan {
    /// The longest time that a piece is under way, in microseconds.
    pub delay_us: u64,
    /// Bytes a second; 0 for no limit.
    pub rate: u64,
    /// What happens to it.
    pub mishap: Mishap,
    /// After how many bytes.
    pub after_bytes: u64,
}

impl LinkPlan {
    /// Draws one.
    pub fn draw(random: &mut SplitMix64) -> LinkPlan {
        let direction =
            if random.below(2) == 0 { Direction::NearToFar } else { Direction::FarToNear };
        LinkPlan {
            delay_us: [1, 800, 20_000][random.below(3) as usize],
            rate: [0, 0, 3_000_000][random.below(3) as usize],
            mishap: match random.below(9) {
                0..=3 => Mishap::Break,
                4 => Mishap::Stall(Duration::from_millis(random.below(9_000))),
                5 => Mishap::HalfOpen(direction),
                6 if random.below(2) == 0 => Mishap::Corrupt,
                _ => Mishap::None,
            },
            after_bytes: [2_000, 20_000, 200_000][random.below(3) as usize] * random.below(100)
                / 100,
        }
    }

    /// A link to which nothing happens.
    pub fn calm() -> LinkPlan {
        LinkPlan { delay_us: 1, rate: 0, mishap: Mishap::None, after_bytes: 0 }
    }

    /// The weather that it makes. `alive` says whether both ends' machines run: what a dead one sends
    /// does not leave it.
    pub fn weather(
        self,
        seed: u64,
        trace: &Rc<Trace>,
        alive: impl Fn() -> bool + 'static,
    ) -> impl FnMut(Direction, usize) -> Fate + 'static {
        let random = RefCell::new(SplitMix64::new(seed));
        let trace = trace.clone();
        let mut seen = 0;
        let mut happened = false;
        move |direction, bytes| {
            if !alive() {
                return Fate::Cut { delivered_bytes: 0 };
            }
            let before = seen;
            seen += bytes as u64;
            let delay = random.borrow_mut().below(self.delay_us);
            let carried = (bytes as u64 * 1_000_000).checked_div(self.rate).unwrap_or(0);
            let after = Duration::from_micros(delay + carried);
            let due = seen > self.after_bytes;
            let mut once = |name| {
                if !happened {
                    trace.count(name);
                }
                std::mem::replace(&mut happened, true)
            };
            match self.mishap {
                Mishap::Break if due => {
                    once("link: breaks in the middle of a frame");
                    let delivered_bytes = self.after_bytes.saturating_sub(before) as usize;
                    Fate::Cut { delivered_bytes }
                }
                Mishap::Stall(time) if due && !once("link: stalls") => {
                    Fate::Deliver { after: after + time }
                }
                Mishap::HalfOpen(silent) if due && silent == direction => {
                    once("link: half open");
                    Fate::Deliver { after: Duration::from_secs(80_000) }
                }
                Mishap::Corrupt if due => {
                    once("link: corrupted");
                    Fate::Corrupt { after }
                }
                _ => Fate::Deliver { after },
            }
        }
    }
}
