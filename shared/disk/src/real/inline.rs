//! Which writes go out on the relationship's own thread, and which to the pool.
//!
//! Where the file system takes buffered writes with `RWF_NOWAIT` (xfs, btrfs), it decides. Others
//! (ext4, block devices) answer `EOPNOTSUPP`; there a write of at most 128 KiB that is aligned to
//! sectors, or one of at most 4 KiB, goes inline with a plain `pwrite` into the page cache, because a
//! trip through the pool costs more than the copy. Such a write can wait all the same (memory
//! pressure, a page to read first, a journal commit): each is timed, and after a slow one the next
//! ones go to the pool for a while. The numbers are those of the prototype in DESIGN section 5.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// The longest aligned write that goes inline, in bytes.
const INLINE_MAX: usize = 128 << 10;
/// The longest unaligned write that goes inline, in bytes.
const INLINE_SMALL: usize = 4 << 10;
/// The alignment, in bytes.
const SECTOR: u64 = 512;
/// An inline write longer than this was slow.
const SLOW: Duration = Duration::from_millis(2);
/// How long writes go to the pool after a slow one.
const PAUSE: Duration = Duration::from_millis(50);

/// What is known about one open file. All methods decide only; [`super::RealFile`] writes.
pub struct InlinePolicy {
    nowait_reads: Cell<bool>,
    nowait_writes: Cell<bool>,
    pool_until: Cell<Option<Instant>>,
}

impl InlinePolicy {
    /// Nothing known yet: both flags are tried.
    pub fn new() -> Self {
        InlinePolicy {
            nowait_reads: Cell::new(true),
            nowait_writes: Cell::new(true),
            pool_until: Cell::new(None),
        }
    }

    /// Whether to try a read with `RWF_NOWAIT`.
    pub fn try_nowait_read(&self) -> bool {
        self.nowait_reads.get()
    }

    /// The file cannot read with `RWF_NOWAIT`.
    pub fn no_nowait_reads(&self) {
        self.nowait_reads.set(false);
    }

    /// Whether to try a write with `RWF_NOWAIT`.
    pub fn try_nowait_write(&self) -> bool {
        self.nowait_writes.get()
    }

    /// The file cannot write with `RWF_NOWAIT`.
    pub fn no_nowait_writes(&self) {
        self.nowait_writes.set(false);
    }

    /// Whether a plain write of `len` bytes at `offset` may be made on this thread at `now`.
    pub fn plain_write(&self, offset: u64, len: usize, now: Instant) -> bool {
        let aligned = offset.is_multiple_of(SECTOR) && (len as u64).is_multiple_of(SECTOR);
        let limit = if aligned { INLINE_MAX } else { INLINE_SMALL };
        len <= limit && self.pool_until.get().is_none_or(|until| now >= until)
    }

    /// Takes note of a plain write that began at `start` and ended at `end`.
    pub fn measured(&self, start: Instant, end: Instant) {
        let slow = end.saturating_duration_since(start) > SLOW;
        self.pool_until.set(slow.then(|| end + PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_odd_writes_go_to_the_pool() {
        let (policy, now) = (InlinePolicy::new(), Instant::now());
        assert!(policy.plain_write(512, INLINE_MAX, now));
        assert!(!policy.plain_write(512, INLINE_MAX + 512, now));
        assert!(policy.plain_write(3, INLINE_SMALL, now));
        assert!(!policy.plain_write(3, INLINE_SMALL + 1, now));
    }

    #[test]
    fn a_slow_write_sends_the_next_ones_to_the_pool_for_a_while() {
        let (policy, now) = (InlinePolicy::new(), Instant::now());
        policy.measured(now, now + SLOW);
        assert!(policy.plain_write(0, 512, now + SLOW));
        let end = now + SLOW * 2;
        policy.measured(now, end);
        assert!(!policy.plain_write(0, 512, end));
        assert!(!policy.plain_write(0, 512, end + PAUSE - Duration::from_nanos(1)));
        assert!(policy.plain_write(0, 512, end + PAUSE));
    }
}
