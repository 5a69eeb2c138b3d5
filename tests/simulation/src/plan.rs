//! The plan of a history: what the world is like, and what is done to it, all drawn from one seed
//! before anything runs.
//!
//! Every step carries a seed of its own, so that a step that is left out does not change what the
//! others draw: that is what makes shrinking and replaying by `--without` work.

use std::collections::BTreeSet;
use std::time::Duration;

use disk::simulated::SplitMix64;

use crate::keeping::{Keeping, prolong, strew};
use crate::remembering;
use crate::shape::Shape;
use crate::steps::{Act, draw_few_steps, draw_steps};

/// One end of the relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Site {
    /// Where applications write.
    Source,
    /// The copy.
    Replica,
}

impl Site {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Site::Source => "source",
            Site::Replica => "replica",
        }
    }

    /// The other end.
    pub fn other(self) -> Site {
        match self {
            Site::Source => Site::Replica,
            Site::Replica => Site::Source,
        }
    }
}

/// One thing done to the world.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its place in the whole plan, by which it is left out.
    pub number: u32,
    /// Time since the step before.
    pub after: Duration,
    /// What it draws comes from this.
    pub seed: u64,
    /// What is done.
    pub act: Act,
}

/// How much happens in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// A whole life: about 90 requests, 20 to 30 acts, up to three volumes.
    #[default]
    Whole,
    /// A few grains, some 15 requests, a handful of acts, and the same checks: what goes wrong mostly
    /// needs little to go wrong, and so many more orders of it can be tried.
    Small,
}

/// A whole plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything is drawn from it, and from the scale.
    pub seed: u64,
    /// How much happens.
    pub scale: Scale,
    /// Sizes, limits, speeds.
    pub shape: Shape,
    /// In order.
    pub steps: Vec<Step>,
    /// Numbers of the steps left out.
    pub without: BTreeSet<u32>,
}

impl Plan {
    /// The plan of a seed: a whole life.
    pub fn new(seed: u64) -> Plan {
        Plan::of(seed, Scale::Whole)
    }

    /// The plan of a seed on a scale.
    pub fn of(seed: u64, scale: Scale) -> Plan {
        let Plan { mut shape, mut steps, .. } = Plan::in_cycles(seed, scale);
        let (keeping, changes) = Keeping::of(seed);
        if keeping.mode.streams() {
            shape.requests *= 2;
            prolong(seed, &mut steps);
        }
        shape.keeping = keeping;
        strew(&mut steps, changes);
        shape.retain = remembering::draw(seed, scale, &mut steps);
        Plan { seed, scale, shape, steps, without: BTreeSet::new() }
    }

    /// The plan of a seed before it is drawn how the replica is kept: in cycles alone.
    pub fn in_cycles(seed: u64, scale: Scale) -> Plan {
        let mut random = SplitMix64::new(seed ^ 0x6772_6169_6e68_6175);
        let shape = Shape::draw(&mut random.split());
        let mut drawn = random.split();
        let (shape, steps) = match scale {
            Scale::Whole => (shape, draw_steps(&mut drawn)),
            Scale::Small => (shape.small(&mut drawn), draw_few_steps(&mut drawn)),
        };
        Plan { seed, scale, shape, steps, without: BTreeSet::new() }
    }

    /// The same without some steps.
    pub fn without(&self, without: &BTreeSet<u32>) -> Plan {
        let mut plan = self.clone();
        plan.steps.retain(|step| !without.contains(&step.number));
        plan.without.extend(without);
        plan
    }

    /// The command that plays it again.
    pub fn command(&self) -> String {
        let mut command = format!("cargo xtask sim --seed {}", self.seed);
        if self.scale == Scale::Small {
            command.push_str(" --small");
        }
        if !self.without.is_empty() {
            let numbers: Vec<_> = self.without.iter().map(u32::to_string).collect();
            command.push_str(&format!(" --without {}", numbers.join(",")));
        }
        command
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "{:?}", self.shape)?;
        for Step { number, after, act, .. } in &self.steps {
            writeln!(f, "  {number:>3} +{:>9} us  {act:?}", after.as_micros())?;
        }
        Ok(())
    }
}
