//! The plan of a history: what the world is like, and what is done to it, all drawn from one seed
//! before anything runs.
//!
//! Every step carries a seed of its own, so that a step that is left out does not change what the
//! others draw: that is what makes shrinking and replaying by `--without` work.

use std::collections::BTreeSet;
use std::time::Duration;

use disk::simulated::SplitMix64;

use crate::shape::Shape;
use crate::steps::{Act, draw_steps};

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

/// A whole plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Sizes, limits, speeds.
    pub shape: Shape,
    /// In order.
    pub steps: Vec<Step>,
    /// Numbers of the steps left out.
    pub without: BTreeSet<u32>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Plan {
        let mut random = SplitMix64::new(seed ^ 0x6772_6169_6e68_6175);
        let shape = Shape::draw(&mut random.split());
        let steps = draw_steps(&mut random.split(), &shape);
        Plan { seed, shape, steps, without: BTreeSet::new() }
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
