//! When a replica that catches up will be in step, or that it never will: from what the link carried and
//! what the application wrote in the last minute.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::status::ForecastStatus;

/// What is older says nothing about now.
const WINDOW: Duration = Duration::from_secs(60);
/// Less than this is no measurement.
const LEAST: Duration = Duration::from_secs(4);
/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);

struct Sample {
    at: Instant,
    behind: u64,
    carried: u64,
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Forecast {
    samples: VecDeque<Sample>,
}

impl Forecast {
    /// The peer lacks so many bytes, and this link has carried so many so far.
    pub(super) fn note(&mut self, at: Instant, behind: u64, carried: u64) {
        if let Some(last) = self.samples.back() {
            if at < last.at + EVERY {
                return;
            }
            if at > last.at + WINDOW {
                self.samples.clear();
            }
        }
        self.samples.push_back(Sample { at, behind, carried });
        while self.samples.front().is_some_and(|old| old.at + WINDOW < at) {
            self.samples.pop_front();
        }
    }

    /// What will come of it; nothing while too little is known.
    pub(super) fn say(&self) -> Option<ForecastStatus> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.at - first.at;
        if span < LEAST {
            return None;
        }
        let a_second = |bytes: i128| (bytes.max(0) as f64 / span.as_secs_f64()) as u64;
        let carried = i128::from(last.carried.saturating_sub(first.carried));
        // What was carried and is lacking again, or lacks in addition, was written meanwhile.
        let written = carried + i128::from(last.behind) - i128::from(first.behind);
        let (carried, written) = (a_second(carried), a_second(written));
        // Zeroes, and what was the same, are brought without bytes: what counts is what is lacking less.
        let gains = a_second(i128::from(first.behind) - i128::from(last.behind));
        let gains = Some(gains).filter(|gains| *gains > 0);
        Some(ForecastStatus {
            behind_bytes: last.behind,
            carried_bytes_s: carried,
            written_bytes_s: written,
            in_step_in_ms: gains.map(|gains| last.behind.saturating_mul(1000) / gains),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn after(seconds: u64, behind: impl Fn(u64) -> u64, carried: impl Fn(u64) -> u64) -> Forecast {
        let (mut forecast, begun) = (Forecast::default(), Instant::now());
        for s in 0..=seconds {
            forecast.note(begun + Duration::from_secs(s), behind(s), carried(s));
        }
        forecast
    }

    #[test]
    fn a_link_that_carries_more_than_is_written_comes_into_step() {
        // 12 MiB/s over the link, 2 MiB/s newly written: it gains 10 MiB/s.
        let forecast = after(20, |s| (1000 - 10 * s) * MIB, |s| 12 * s * MIB).say().unwrap();
        assert_eq!(forecast.carried_bytes_s, 12 * MIB);
        assert_eq!(forecast.written_bytes_s, 2 * MIB);
        assert_eq!(forecast.in_step_in_ms, Some(80_000));
    }

    #[test]
    fn what_is_brought_without_bytes_is_brought() {
        let forecast = after(20, |s| (1000 - 10 * s) * MIB, |_| 0).say().unwrap();
        assert_eq!((forecast.carried_bytes_s, forecast.in_step_in_ms), (0, Some(80_000)));
    }

    #[test]
    fn one_that_carries_less_never_does() {
        let forecast = after(20, |s| (100 + 5 * s) * MIB, |s| 10 * s * MIB).say().unwrap();
        assert_eq!((forecast.written_bytes_s, forecast.in_step_in_ms), (15 * MIB, None));
        let stands_still = after(20, |_| 100 * MIB, |_| 0).say().unwrap();
        assert_eq!(stands_still.in_step_in_ms, None);
    }

    #[test]
    fn too_little_says_nothing_and_what_is_old_is_forgotten() {
        assert!(Forecast::default().say().is_none());
        assert!(after(3, |_| 1, |s| s).say().is_none());
        // Slow for five minutes, then fast.
        let carried = |s: u64| if s < 300 { s * MIB } else { 300 * MIB + (s - 300) * 50 * MIB };
        let now = after(361, |s| 100_000 * MIB - carried(s), carried).say().unwrap();
        assert_eq!((now.carried_bytes_s, now.written_bytes_s), (50 * MIB, 0));
        // Nothing for a while: what comes then is another catch-up.
        let (mut forecast, later) = (after(20, |_| MIB, |s| s * MIB), Duration::from_secs(100));
        forecast.note(Instant::now() + later, MIB, 20 * MIB);
        assert!(forecast.say().is_none());
    }
}
