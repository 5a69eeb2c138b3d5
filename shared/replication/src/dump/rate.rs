//! A rate limit: so many bytes a second on average, with a second's worth at once.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// See the module's text.
pub(crate) struct Rate {
    bytes_a_second: u64,
    /// When what was let through so far is paid for.
    paid_until: Cell<Option<Instant>>,
}

impl Rate {
    pub(crate) fn new(bytes_a_second: u64) -> Rate {
        Rate { bytes_a_second, paid_until: Cell::new(None) }
    }

    /// Waits until `bytes` more may go.
    pub(crate) async fn pass(&self, bytes: u64) {
        if self.bytes_a_second == 0 || bytes == 0 {
            return;
        }
        let now = Instant::now();
        let from = self.paid_until.get().filter(|at| *at > now).unwrap_or(now);
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64);
        self.paid_until.set(Some(from + cost));
        let ahead = from.saturating_duration_since(now);
        if ahead > Duration::from_millis(100) {
            tokio::time::sleep(ahead - Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_average_holds() {
        let rate = Rate::new(1 << 20);
        let begun = Instant::now();
        for _ in 0..100 {
            rate.pass(256 << 10).await;
        }
        let took = begun.elapsed().as_secs_f64();
        assert!((24.0..=26.0).contains(&took), "{took}");
    }
}
