//! The rules of an attach: what both sites say, and the verdict that follows.
//!
//! [`decide`] is a pure function of both sides' [`Facts`] and gives both sides the same verdict,
//! mirrored: it does not matter who calls whom. The verdict says *who may overwrite whom* and, apart
//! from that, by which *means*. It knows nothing of sessions; the callers freeze their facts, tell
//! them, and echo [`Facts::hash`] of what they heard, so that both decide on the same.
//!
//! Why this stands in the crate of pure data: `docs/decisions/0001-attach-rules-in-grain.md`.

mod decide;
mod facts;
#[cfg(test)]
mod tests;
mod verdict;

pub use decide::decide;
pub use facts::{AloneMark, CopyFacts, Facts, MissingGrains, OpenWithin, PartialFacts, Role};
pub use verdict::{Losers, Means, Overwrite, Question, Reason, Rule, Side, Verdict};
