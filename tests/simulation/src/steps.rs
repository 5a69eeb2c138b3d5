//! The things that are done to a world, and how a plan draws them: the story of the product (dump,
//! ship, load, follow) with everything else strewn over it.

use std::time::Duration;

use disk::simulated::{Crash, SplitMix64};
use replication::state::Mode;

use crate::faults::{DiskTrouble, FileClass, FlipTarget, Ill};
use crate::plan::{Site, Step};
use crate::weather::{LinkPlan, Mishap};

/// One act.
#[derive(Clone, Debug)]
pub enum Act {
    /// A process is killed or its machine loses power, now or at an operation to come; after `down`
    /// it starts again.
    Crash {
        /// Whose.
        site: Site,
        /// How.
        kind: Crash,
        /// At the n-th operation of the disk from now; none for at once.
        at: Option<u64>,
        /// Until it starts again.
        down: Duration,
    },
    /// The power of a machine fails as one of the next syncs of some files begins.
    PowerAtSync {
        /// Whose.
        site: Site,
        /// Of which files.
        class: FileClass,
        /// So many syncs are spared before.
        n: u64,
    },
    /// A cut of the operator, and the power of the source fails at an operation soon after.
    CutThenPower {
        /// At the n-th operation from now.
        at: u64,
    },
    /// A process stops cleanly and starts again.
    Stop {
        /// Whose.
        site: Site,
        /// Until it starts again.
        down: Duration,
    },
    /// A process is not scheduled for a while.
    Hang {
        /// Whose.
        site: Site,
        /// For how long.
        time: Duration,
    },
    /// The replica dials.
    Connect {
        /// What lies between.
        link: LinkPlan,
        /// It returns when in step.
        once: bool,
        /// It compares digests of all grains first.
        compare: bool,
        /// It gives up waiting for media.
        pull_unloaded: bool,
        /// The session before is still served at the source.
        older_stays: bool,
    },
    /// The replica dials to see the verdict, and hangs up.
    Plan,
    /// The cable breaks.
    CutCable,
    /// A cut of the operator, and housekeeping.
    Cut,
    /// A dump begins.
    Dump,
    /// The dump is cancelled, running or not.
    CancelDump,
    /// An unfinished dump is taken up.
    ResumeDump,
    /// A set travels.
    Ship(Shipment),
    /// What has arrived is loaded, or a part of it.
    Load {
        /// Of the directories that have arrived, one in so many is left at home; 0 takes all.
        leaves: u64,
    },
    /// A disk fails now and then.
    Trouble(DiskTrouble),
    /// A bit turns over at rest.
    Flip {
        /// Where.
        site: Site,
        /// In what.
        target: FlipTarget,
    },
    /// An image of a whole machine is taken.
    Keep(Site),
    /// A machine comes up from the image that was kept.
    RollBack(Site),
    /// The wall clock jumps by so many milliseconds.
    Clock(Site, i64),
    /// The operator changes how the replica is kept.
    Mode(Mode),
    /// Waits until both sites run and neither a dump nor a load is under way, some seconds at most.
    Await,
    /// Somebody looks at the replica as it was or is, and holds on to it.
    Look {
        /// Between two looks.
        hold: Duration,
    },
    /// Both machines are looked at as they would be after a crash now.
    Probe,
}

/// What becomes of a set on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shipment {
    /// All of it arrives.
    Whole,
    /// Some media arrive.
    Parts,
    /// Bits turn over, files are cut short or get lost.
    Damaged,
    /// One medium is of another set.
    Swapped,
    /// Everything arrives in two copies.
    Twice,
    /// The oldest set arrives, whatever was made since.
    Stale,
}

fn millis(random: &mut SplitMix64, most: u64) -> Duration {
    Duration::from_micros(random.below(most * 1000))
}

fn site(random: &mut SplitMix64) -> Site {
    if random.below(2) == 0 { Site::Source } else { Site::Replica }
}

fn crash(random: &mut SplitMix64) -> Act {
    let kind = if random.below(2) == 0 { Crash::Kill } else { Crash::PowerCut };
    let at = (random.below(3) > 0).then(|| random.below(120));
    Act::Crash { site: site(random), kind, at, down: millis(random, 40) }
}

fn connect(random: &mut SplitMix64) -> Act {
    Act::Connect {
        link: LinkPlan::draw(random),
        once: random.below(2) == 0,
        compare: random.below(12) == 0,
        pull_unloaded: random.below(4) == 0,
        older_stays: random.below(3) == 0,
    }
}

fn shipment(random: &mut SplitMix64) -> Act {
    Act::Ship(match random.below(10) {
        0..=3 => Shipment::Whole,
        4 | 5 => Shipment::Parts,
        6 => Shipment::Damaged,
        7 => Shipment::Swapped,
        8 => Shipment::Twice,
        _ => Shipment::Stale,
    })
}

/// Any act, whatever the story.
fn any(random: &mut SplitMix64, rolls: bool) -> Act {
    match random.below(42) {
        0..=8 => crash(random),
        9..=15 => connect(random),
        16 => Act::Stop { site: site(random), down: millis(random, 40) },
        17 => Act::Hang { site: site(random), time: millis(random, 30_000) },
        18 => Act::Plan,
        19 | 20 => Act::CutCable,
        21 | 22 => Act::Cut,
        23 => Act::Dump,
        24 => Act::CancelDump,
        25 => Act::ResumeDump,
        26 => shipment(random),
        27 => Act::Load { leaves: random.below(3) },
        28 | 29 => Act::Trouble(DiskTrouble::draw(random, site)),
        30 => Act::Flip { site: site(random), target: FlipTarget::draw(random) },
        31 if rolls => Act::RollBack(site(random)),
        31 => Act::Probe,
        32 => Act::Clock(site(random), random.below(20_000_000) as i64 - 10_000_000),
        34 | 35 => base_sync_fails(random),
        36 | 37 => Act::CutThenPower { at: random.below(40) },
        38 | 39 => power_at_sync(random),
        _ => Act::Probe,
    }
}

/// The syncs of a base are few among all operations: without an act of their own they hardly ever fail.
fn base_sync_fails(random: &mut SplitMix64) -> Act {
    Act::Trouble(DiskTrouble {
        site: if random.below(4) > 0 { Site::Source } else { Site::Replica },
        ill: Ill::SyncIo,
        class: Some(FileClass::Volume),
        odds: [1000, 300][random.below(2) as usize],
        times: 1 + random.below(2),
    })
}

fn power_at_sync(random: &mut SplitMix64) -> Act {
    use FileClass::{Journal, Map, State, Volume};
    let (site, class) = match random.below(8) {
        0..=3 => (Site::Replica, Journal),
        4 => (Site::Replica, [Map, State, Volume][random.below(3) as usize]),
        _ => (Site::Source, [Map, State, Volume][random.below(3) as usize]),
    };
    Act::PowerAtSync { site, class, n: random.below(6) }
}

/// A seed of which some media come late, with a catch-up in between that gives up waiting for them and
/// breaks off.
fn late_media(random: &mut SplitMix64) -> Vec<Act> {
    let link = LinkPlan {
        delay_us: 200,
        rate: 0,
        mishap: Mishap::Break,
        after_bytes: 4_000 + random.below(120_000),
    };
    let give_up =
        Act::Connect { link, once: true, compare: false, pull_unloaded: true, older_stays: false };
    vec![
        Act::Dump,
        Act::Ship(Shipment::Whole),
        Act::Load { leaves: 1 },
        Act::Await,
        give_up,
        Act::Load { leaves: 0 },
        Act::Await,
        connect(random),
    ]
}

/// Draws the steps of a small plan: the seed arrives, as a rule undisturbed, and a few things happen.
pub fn draw_few_steps(random: &mut SplitMix64) -> Vec<Step> {
    let rolls = random.below(8) == 0;
    let mut acts = vec![Act::Await, Act::Dump, Act::Await, Act::Ship(Shipment::Whole)];
    acts.extend([Act::Load { leaves: 0 }, Act::Await]);
    if random.below(8) == 0 {
        // Otherwise the seed arrives undisturbed.
        acts[1 + random.below(5) as usize] = any(random, rolls);
    }
    if rolls {
        acts.push(Act::Keep(site(random)));
    }
    acts.push(connect(random));
    for _ in 0..1 + random.below(3) {
        acts.push(any(random, rolls));
    }
    steps_of(random, acts)
}

/// Draws the steps of a plan.
pub fn draw_steps(random: &mut SplitMix64) -> Vec<Step> {
    let rolls = random.below(5) == 0;
    let mut acts = if random.below(8) > 0 { vec![Act::Await] } else { Vec::new() };
    // In most histories the seed arrives undisturbed: what comes after it is where most code is.
    let strewn = if random.below(3) == 0 { 3 } else { 1 };
    let mut story = vec![
        Act::Dump,
        if random.below(3) > 0 { Act::Ship(Shipment::Whole) } else { shipment(random) },
        Act::Load { leaves: 0 },
        connect(random),
        if random.below(3) > 0 { connect(random) } else { Act::Ship(Shipment::Whole) },
        if random.below(3) > 0 { connect(random) } else { Act::Load { leaves: 0 } },
        connect(random),
        connect(random),
    ];
    if random.below(10) == 0 {
        story = late_media(random);
    }
    for chapter in story {
        let is_link = matches!(chapter, Act::Connect { .. });
        for _ in 0..random.below(if is_link { 4 } else { strewn }) {
            acts.push(any(random, rolls));
        }
        if matches!(chapter, Act::Ship(_)) && random.below(3) == 0 {
            acts.push(shipment(random));
        }
        if rolls && random.below(3) == 0 {
            acts.push(Act::Keep(site(random)));
        }
        let waits = matches!(chapter, Act::Dump | Act::Load { .. }) && random.below(5) > 0;
        acts.push(chapter);
        if waits {
            acts.push(Act::Await);
        }
    }
    for _ in 0..random.below(12) {
        acts.push(any(random, rolls));
    }
    steps_of(random, acts)
}

/// Gives acts their places, pauses and seeds.
fn steps_of(random: &mut SplitMix64, acts: Vec<Act>) -> Vec<Step> {
    let number = |(number, act)| {
        let most = [2, 40, 40, 40, 7_000][random.below(5) as usize];
        let (after, seed) = (millis(random, most), random.next_u64());
        Step { number: number as u32, after, seed, act }
    };
    acts.into_iter().enumerate().map(number).collect()
}
