//! Which edges of the program ran: the counters that LLVM puts in when `cargo xtask fuzz` builds with
//! its pass `sancov-module`. In any other build there are none, and the search is blind.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// The counters of each module, handed over before `main`.
static COUNTERS: Mutex<Vec<&'static [AtomicU8]>> = Mutex::new(Vec::new());

/// Called by each module's constructor with the range of its counters, once or more often.
#[allow(unsafe_code, reason = "LLVM calls this name, and its counters are plain memory")]
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    let len = (end as usize).saturating_sub(start as usize);
    if len == 0 {
        return;
    }
    // The range is a section of the program: it lives as long as the process, and bytes have no
    // alignment. The program adds to it without synchronisation; a lost count is no harm.
    let counters = unsafe { std::slice::from_raw_parts(start.cast::<AtomicU8>(), len) };
    let mut all = COUNTERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !all.iter().any(|known| known.as_ptr() == counters.as_ptr()) {
        all.push(counters);
    }
}

/// What has been seen so far.
pub struct Seen {
    counters: Vec<&'static [AtomicU8]>,
    /// A bit for each order of magnitude in which an edge was counted.
    magnitudes: Vec<u8>,
    edges: usize,
}

impl Seen {
    /// Nothing yet.
    pub fn new() -> Seen {
        let all = COUNTERS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let counters = all.clone();
        let total = counters.iter().map(|part| part.len()).sum();
        Seen { counters, magnitudes: vec![0; total], edges: 0 }
    }

    /// Edges that the program has; 0 in a build without counters.
    pub fn total(&self) -> usize {
        self.magnitudes.len()
    }

    /// Edges that ran.
    pub fn edges(&self) -> usize {
        self.edges
    }

    /// Forgets what was counted, before a run.
    pub fn reset(&self) {
        self.counters.iter().flat_map(|part| part.iter()).for_each(|c| c.store(0, Relaxed));
    }

    /// Takes in what the run counted; true when it did something new.
    pub fn take(&mut self) -> bool {
        let mut new = false;
        let counters = self.counters.iter().flat_map(|part| part.iter());
        for (seen, counter) in self.magnitudes.iter_mut().zip(counters) {
            let bit = match counter.load(Relaxed) {
                0 => continue,
                1 => 1,
                2 => 2,
                3 => 4,
                4..=7 => 8,
                8..=15 => 16,
                16..=31 => 32,
                32..=127 => 64,
                _ => 128,
            };
            if *seen & bit == 0 {
                self.edges += usize::from(*seen == 0);
                *seen |= bit;
                new = true;
            }
        }
        new
    }
}

impl Default for Seen {
    fn default() -> Self {
        Seen::new()
    }
}
