//! Fuzz targets: one function for each parser of foreign bytes, with the seeds of its corpus.
//!
//! A target takes any bytes at all. It must end, must not panic, and must not allocate more than its
//! [`Target::allocation`] allows; what it checks beside stands at the top of its file. Ordinary tests
//! replay the corpus (`tests/corpus.rs`), `cargo xtask fuzz` searches (`main.rs`). `docs/testing.md` has the
//! table of the targets.

pub mod allocation;
pub mod corpus;
pub mod coverage;
mod edits;
mod input;
pub mod mutate;
mod stage;
mod targets;

/// How much memory a run of a target may hold at its peak: `constant_bytes + per_byte * input`.
#[derive(Clone, Copy, Debug)]
pub struct Allocation {
    /// What the target's own scene takes, and what the format grants whatever was received.
    pub constant_bytes: usize,
    /// For each byte of the input.
    pub per_byte: usize,
}

impl Allocation {
    /// The bound for an input of `len` bytes.
    pub fn limit_bytes(&self, len: usize) -> usize {
        self.constant_bytes + self.per_byte * len
    }
}

/// One fuzz target.
pub struct Target {
    /// Its name, which is that of its folder in the corpus.
    pub name: &'static str,
    /// Feeds bytes to the parser; panics when something does not hold.
    pub run: fn(&[u8]),
    /// The first corpus: a name and the bytes of each input.
    pub seeds: fn() -> Vec<(String, Vec<u8>)>,
    /// The most that a run may hold at its peak.
    pub allocation: Allocation,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    targets::certificate::TARGET,
    targets::control::TARGET,
    targets::envelope::TARGET,
    targets::frame::TARGET,
    targets::grain_set::TARGET,
    targets::greeting::TARGET,
    targets::history::TARGET,
    targets::journal::TARGET,
    targets::label::TARGET,
    targets::kept::TARGET,
    targets::marker::TARGET,
    targets::map::TARGET,
    targets::media_set::TARGET,
    targets::message::TARGET,
    targets::nbd_client::TARGET,
    targets::nbd_server::TARGET,
    targets::passphrase::TARGET,
    targets::state::TARGET,
    targets::texts::TARGET,
    targets::ticket::TARGET,
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
