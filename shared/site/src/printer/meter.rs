//! How fast a job is and how long it will take.

use std::collections::VecDeque;
use std::time::Duration;

/// How far back the rate looks.
const WINDOW: Duration = Duration::from_secs(15);

/// What can be said about a job at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all, where known.
    pub total: Option<u64>,
    /// Bytes a second over the last seconds.
    pub rate: u64,
    /// Time left at this rate, where total and rate are known.
    pub left: Option<Duration>,
}

/// Takes samples of a growing count. Time comes from the caller.
#[derive(Debug, Default)]
pub struct Meter {
    /// (time since the start, bytes done), oldest first; the first is at or before the window.
    samples: VecDeque<(Duration, u64)>,
}

impl Meter {
    /// Takes note that `done` bytes are done at time `at`, and says what follows.
    pub fn sample(&mut self, at: Duration, done: u64, total: Option<u64>) -> Figures {
        // Some jobs start again from less; what was before does not count then.
        if self.samples.back().is_some_and(|(_, last)| *last > done) {
            self.samples.clear();
        }
        self.samples.push_back((at, done));
        while self.samples.get(1).is_some_and(|(time, _)| *time + WINDOW <= at) {
            self.samples.pop_front();
        }
        let (since, before) = self.samples.front().copied().unwrap_or((at, done));
        let seconds = at.saturating_sub(since).as_secs_f64();
        let rate = if seconds > 0.0 { ((done - before) as f64 / seconds) as u64 } else { 0 };
        let left = total
            .filter(|_| rate > 0)
            .map(|total| Duration::from_secs(total.saturating_sub(done) / rate));
        Figures { done, total, rate, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut meter = Meter::default();
        assert_eq!(meter.sample(s(0), 0, Some(1_000)).left, None);
        let figures = meter.sample(s(10), 100, Some(1_000));
        assert_eq!((figures.rate, figures.left), (10, Some(s(90))));
        // The slow start is forgotten.
        meter.sample(s(20), 100, Some(1_000));
        let figures = meter.sample(s(40), 500, Some(1_000));
        assert_eq!((figures.rate, figures.left), (20, Some(s(25))));
    }

    #[test]
    fn a_count_that_falls_starts_anew() {
        let mut meter = Meter::default();
        meter.sample(s(0), 1_000, None);
        assert_eq!(meter.sample(s(1), 10, None).rate, 0);
        assert_eq!(meter.sample(s(2), 30, None).rate, 20);
    }
}
