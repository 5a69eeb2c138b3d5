//! What a set of histories has to have seen: a simulator that never reaches a thing does not test it.

use crate::trace::Coverage;

/// Adds one history's counts to those of all.
pub fn add(all: &mut Coverage, one: &Coverage) {
    for (name, count) in one {
        *all.entry(name.clone()).or_default() += count;
    }
}

/// Things that must happen in any set of some hundred histories.
pub const EXPECTED: &[&str] = &["crash: killed", "crash: power cut", "healed"];

/// Which of the expected things never happened.
pub fn missing(all: &Coverage) -> Vec<&'static str> {
    EXPECTED.iter().filter(|name| !all.contains_key(**name)).copied().collect()
}
