//! The simulated clock, the simulated random numbers, and a pool that is none.

use std::cell::{Cell, RefCell};

use tokio::time::Instant;

use super::SplitMix64;
use crate::{Clock, Entropy, Offload};

/// The wall clock of a simulated machine: tokio's time since the clock was first read, on top of a
/// base. Deterministic on a runtime whose time is paused.
pub struct SimClock {
    base_ms: Cell<u64>,
    start: Cell<Option<Instant>>,
    boot: Cell<u64>,
    /// The newest boot there was.
    boots: Cell<u64>,
}

impl SimClock {
    /// A clock that shows `base_ms` (Unix milliseconds) when it is first read.
    pub fn new(base_ms: u64) -> Self {
        let (boot, boots) = (Cell::new(1), Cell::new(1));
        SimClock { base_ms: Cell::new(base_ms), start: Cell::new(None), boot, boots }
    }

    /// Sets the clock forward or back, as an operator or NTP may do.
    pub fn jump_ms(&self, delta: i64) {
        self.base_ms.set(self.base_ms.get().saturating_add_signed(delta));
    }

    /// Changes the boot id.
    pub fn reboot(&self) {
        self.boots.set(self.boots.get() + 1);
        self.boot.set(self.boots.get());
    }

    /// Which boot this is.
    pub(super) fn boot(&self) -> u64 {
        self.boot.get()
    }

    /// Goes back to a boot that was (a restored snapshot); the next reboot is a new one all the same.
    pub(super) fn set_boot(&self, boot: u64) {
        self.boot.set(boot);
        self.boots.set(self.boots.get().max(boot));
    }
}

impl Clock for SimClock {
    fn unix_ms(&self) -> u64 {
        let now = Instant::now();
        let start = self.start.get().unwrap_or(now);
        self.start.set(Some(start));
        self.base_ms.get() + now.saturating_duration_since(start).as_millis() as u64
    }

    fn boot_id(&self) -> [u8; 16] {
        let mut id = *b"boot....simulate";
        id[..8].copy_from_slice(&self.boot.get().to_le_bytes());
        id
    }
}

/// Random bytes from a seed.
pub struct SimEntropy(RefCell<SplitMix64>);

impl SimEntropy {
    /// The bytes of `seed`.
    pub fn new(seed: u64) -> Self {
        SimEntropy(RefCell::new(SplitMix64::new(seed)))
    }
}

impl Entropy for SimEntropy {
    fn fill(&self, buf: &mut [u8]) {
        self.0.borrow_mut().fill(buf);
    }
}

/// Runs each job at once on the caller's thread.
pub struct InlineOffload {
    /// What [`Offload::width`] answers.
    pub width: usize,
}

impl Default for InlineOffload {
    fn default() -> Self {
        InlineOffload { width: 2 }
    }
}

impl Offload for InlineOffload {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn width(&self) -> usize {
        self.width
    }
}
