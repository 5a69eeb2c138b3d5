//! How fast work in the background goes: at most as fast as the operator said, and, where it gives way,
//! no faster than the application bears.
//!
//! Whether it does is measured. What the application's requests take while nothing runs in the background is
//! what they should take; when they take twice as long while something does, on the average or one of a hundred
//! that would not alone, that slows down, and when they do not it becomes faster again (additive increase and
//! multiplicative decrease, as in RFC 5681, with factors of our own). From time to time the background is silent
//! for a moment, to hear how the application does alone.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tokio::time::Instant;

/// One look at the application.
const WINDOW: Duration = Duration::from_millis(250);
/// Fewer requests in a window say nothing.
const REQUESTS: u64 = 4;
/// Fewer slow ones in a window are chance.
const SLOW_REQUESTS: u64 = 2;
/// So many of a window are kept one by one.
const SAMPLES: usize = 4096;
/// How long the background is silent to listen (two looks: what was asked for before it fell silent still suffers
/// from it), and how often it is.
const SILENCE: Duration = Duration::from_millis(520);
const LISTEN_EVERY: Duration = Duration::from_secs(20);
/// The application may take so much longer than alone, by factor or by microseconds, whichever is more.
const BEARS: f64 = 2.0;
const BEARS_US: f64 = 500.0;
/// So many of its requests may take longer than that beside those that do so alone: an average hides them.
const BEARS_SLOW: f64 = 0.01;
/// Bytes a second that the background gets in any case.
const FLOOR: f64 = (1 << 20) as f64;
/// More than this is no bound.
const NO_BOUND: f64 = 1e11;
const SLOWER: f64 = 0.7;
const FASTER: f64 = 1.2;

/// What the operator said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PaceSettings {
    /// Bytes a second at most; 0 for no limit.
    pub rate_bytes: u64,
    /// The background gives way to the application.
    pub gives_way: bool,
}

/// What is shown of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PaceShown {
    /// What holds.
    pub settings: PaceSettings,
    /// Bytes a second that the background may take now, where it gives way.
    pub allowed_bytes_s: Option<u64>,
    /// Microseconds that a request takes while nothing runs in the background.
    pub calm_us: Option<u64>,
    /// Microseconds that one took in the last look.
    pub request_us: Option<u64>,
}

#[derive(Default)]
struct Window {
    begun: Option<Instant>,
    requests: u64,
    total_us: u64,
    /// What each took, in microseconds; of the last ones where there are too many.
    took_us: Vec<u32>,
    bytes: u64,
    /// There was nothing in the background in the window before.
    after_silence: bool,
}

impl Window {
    fn note(&mut self, took_us: u64) {
        let number = self.requests as usize;
        self.requests += 1;
        self.total_us += took_us;
        let took = u32::try_from(took_us).unwrap_or(u32::MAX);
        match self.took_us.get_mut(number % SAMPLES) {
            Some(oldest) => *oldest = took,
            None => self.took_us.push(took),
        }
    }

    /// Requests that took longer than the application bears, and their share.
    fn slow(&self, calm_us: f64) -> (u64, f64) {
        let slow = self.took_us.iter().filter(|took| too_long(f64::from(**took), calm_us)).count();
        (slow as u64, slow as f64 / self.took_us.len().max(1) as f64)
    }
}

/// See the module's text. For all that runs in the background of one source.
#[derive(Default)]
pub struct Pace {
    settings: Cell<PaceSettings>,
    limit: Rate,
    bound: Rate,
    allowed: Cell<Option<f64>>,
    calm_us: Cell<Option<f64>>,
    /// The share of slow requests while nothing runs in the background.
    calm_slow: Cell<f64>,
    request_us: Cell<Option<f64>>,
    silent_until: Cell<Option<Instant>>,
    hurries: Cell<bool>,
    listened: Cell<Option<Instant>>,
    window: RefCell<Window>,
}

impl Pace {
    /// With these settings.
    pub fn new(settings: PaceSettings) -> Pace {
        let pace = Pace::default();
        pace.set(settings);
        pace
    }

    /// Holds from now on.
    pub fn set(&self, settings: PaceSettings) {
        self.settings.set(settings);
        self.limit.renew(settings.rate_bytes);
        if !settings.gives_way {
            self.allowed.set(None);
            self.bound.set(0);
            self.silent_until.set(None);
            // What was seen until now says nothing about the time when it does again.
            self.window.take();
        }
    }

    /// Nothing is held back while the application waits for the background.
    pub(crate) fn hurry(&self, hurries: bool) {
        self.hurries.set(hurries);
    }

    /// What holds, and what came of it.
    pub fn shown(&self) -> PaceShown {
        let whole = |value: f64| value as u64;
        PaceShown {
            settings: self.settings.get(),
            allowed_bytes_s: self.allowed.get().map(whole),
            calm_us: self.calm_us.get().map(whole),
            request_us: self.request_us.get().map(whole),
        }
    }

    /// Whether requests have to be measured: when one begins now, if so.
    pub(crate) fn begins(&self) -> Option<Instant> {
        self.settings.get().gives_way.then(Instant::now)
    }

    /// A request of the application was answered.
    pub(crate) fn answered(&self, begun: Option<Instant>) {
        let Some(begun) = begun else { return };
        let now = Instant::now();
        {
            let mut window = self.window.borrow_mut();
            window.note((now - begun).as_micros() as u64);
        }
        self.turn(now);
    }

    /// Waits until the background may take `bytes` more.
    pub(crate) async fn pass(&self, bytes: u64) {
        if self.hurries.get() {
            return;
        }
        self.limit.pass(bytes).await;
        if !self.settings.get().gives_way {
            return;
        }
        loop {
            let now = Instant::now();
            self.turn(now);
            match self.silent_until.get().filter(|until| *until > now) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => break,
            }
        }
        self.silent_until.set(None);
        self.window.borrow_mut().bytes += bytes;
        self.bound.pass(bytes).await;
    }

    /// Looks at the window when it is over, and begins the next one.
    fn turn(&self, now: Instant) {
        let window = {
            let mut window = self.window.borrow_mut();
            let begun = *window.begun.get_or_insert(now);
            if now < begun + WINDOW {
                return;
            }
            let after_silence = window.bytes == 0;
            let next = Window { begun: Some(now), after_silence, ..Window::default() };
            std::mem::replace(&mut *window, next)
        };
        let span = window.begun.map_or(WINDOW, |begun| now - begun).as_secs_f64();
        let took = window.total_us as f64 / window.requests.max(1) as f64;
        let heard = (window.requests >= REQUESTS).then_some(took);
        self.request_us.set(heard);
        if window.bytes == 0 {
            if let Some(took) = heard.filter(|_| window.after_silence) {
                let calm = self.calm_us.get().map_or(took, |old| old + (took - old) * 0.3);
                let slow = window.slow(calm).1;
                let slow = self.calm_us.get().map_or(slow, |_| {
                    let old = self.calm_slow.get();
                    old + (slow - old) * 0.3
                });
                self.calm_us.set(Some(calm));
                self.calm_slow.set(slow);
            }
            return;
        }
        let carried = window.bytes as f64 / span;
        let allowed = self.allowed.get();
        let next = match (heard, self.calm_us.get()) {
            // Nobody to give way to.
            (None, _) => allowed.map(|bound| bound * 2.0),
            (Some(_), None) => {
                self.listen(now);
                allowed
            }
            (Some(took), Some(calm))
                if too_long(took, calm) || self.too_many(window.slow(calm)) =>
            {
                Some((allowed.unwrap_or(f64::MAX).min(carried) * SLOWER).max(FLOOR))
            }
            _ => allowed.map(|bound| bound * FASTER + FLOOR / 4.0),
        };
        let next = next.filter(|bound| *bound < NO_BOUND);
        self.allowed.set(next);
        self.bound.set(next.map_or(0, |bound| bound as u64));
        let due = self.listened.get().is_none_or(|at| now > at + LISTEN_EVERY);
        if next.is_some() && due {
            self.listen(now);
        }
    }

    /// Whether more requests are slow than alone.
    fn too_many(&self, (slow, share): (u64, f64)) -> bool {
        slow >= SLOW_REQUESTS && share > self.calm_slow.get() * BEARS + BEARS_SLOW
    }

    fn listen(&self, now: Instant) {
        self.listened.set(Some(now));
        self.silent_until.set(Some(now + SILENCE));
    }
}

/// Whether a request that takes so long is one that the application does not bear.
fn too_long(took_us: f64, calm_us: f64) -> bool {
    took_us > (calm_us * BEARS).max(calm_us + BEARS_US)
}

/// A rate limit: so many bytes a second on average, with a tenth of a second's worth at once.
#[derive(Default)]
pub(crate) struct Rate {
    bytes_a_second: Cell<u64>,
    /// When what was let through so far is paid for.
    paid_until: Cell<Option<Instant>>,
}

impl Rate {
    pub(crate) fn new(bytes_a_second: u64) -> Rate {
        Rate { bytes_a_second: Cell::new(bytes_a_second), paid_until: Cell::new(None) }
    }

    fn set(&self, bytes_a_second: u64) {
        self.bytes_a_second.set(bytes_a_second);
    }

    /// What was let through at another rate is not paid for at this one.
    fn renew(&self, bytes_a_second: u64) {
        if self.bytes_a_second.replace(bytes_a_second) != bytes_a_second {
            self.paid_until.set(None);
        }
    }

    /// Waits until `bytes` more may go.
    pub(crate) async fn pass(&self, bytes: u64) {
        let rate = self.bytes_a_second.get();
        if rate == 0 || bytes == 0 {
            return;
        }
        let now = Instant::now();
        let from = self.paid_until.get().filter(|at| *at > now).unwrap_or(now);
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.paid_until.set(Some(from + cost));
        let ahead = from.saturating_duration_since(now);
        if ahead > Duration::from_millis(100) {
            tokio::time::sleep(ahead - Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// Which requests of an application take longer beside a background.
    #[derive(Clone, Copy, PartialEq)]
    enum Asks {
        /// It does not ask.
        Never,
        /// All.
        AllSuffer,
        /// One of 25; the average hardly shows it.
        FewSuffer,
        /// None; but one of 25 takes long in any case, as a flush does.
        FewAreSlow,
    }

    /// An application whose requests take 200 us, and those that suffer as much longer as the background takes of
    /// a disk of 200 MiB/s; and a background that takes what it gets. Gives microseconds a request (of those that
    /// suffer), bytes a second.
    async fn live(settings: PaceSettings, asks: Asks, seconds: u64) -> (f64, f64) {
        let pace = std::rc::Rc::new(Pace::new(settings));
        let carried = std::rc::Rc::new(Cell::new(0u64));
        let (theirs, counted) = (pace.clone(), carried.clone());
        let background = async move {
            loop {
                theirs.pass(MIB).await;
                counted.set(counted.get() + MIB);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let begun = Instant::now();
        let (mut requests, mut total, mut number) = (0u64, 0f64, 0u64);
        let mut seen = VecDeque::new();
        let application = async {
            while begun.elapsed() < Duration::from_secs(seconds) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                seen.push_back((Instant::now(), carried.get()));
                while seen.front().is_some_and(|(at, _)| at.elapsed() > Duration::from_millis(200))
                {
                    seen.pop_front();
                }
                let Some((at, before)) = seen.front().copied() else { continue };
                number += 1;
                let one_of_25 = number % 25 == 0;
                let suffers = match asks {
                    Asks::Never => continue,
                    Asks::AllSuffer => true,
                    Asks::FewSuffer => one_of_25,
                    Asks::FewAreSlow => false,
                };
                let span = at.elapsed().as_secs_f64().max(0.005);
                let load = (carried.get() - before) as f64 / span / (200.0 * MIB as f64);
                let alone = if asks == Asks::FewAreSlow && one_of_25 { 5200.0 } else { 200.0 };
                let took = alone + if suffers { 5000.0 * load } else { 0.0 };
                let began = pace.begins().map(|now| now - Duration::from_micros(took as u64));
                pace.answered(began);
                if suffers && begun.elapsed() > Duration::from_secs(seconds / 2) {
                    requests += 1;
                    total += took;
                }
            }
        };
        tokio::select! {
            biased;
            () = background => unreachable!(),
            () = application => {}
        }
        (total / requests.max(1) as f64, carried.get() as f64 / seconds as f64)
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn the_background_gives_way_to_an_application_and_takes_what_nobody_wants() {
        let off = PaceSettings::default();
        let on = PaceSettings { gives_way: true, ..off };
        for asks in [Asks::AllSuffer, Asks::FewSuffer] {
            let (without, all) = live(off, asks, 60).await;
            let (with, some) = live(on, asks, 60).await;
            assert!(without > 4000.0, "{without} us a request while it takes what it can");
            assert!(with < 1000.0, "{with} us a request where it gives way");
            assert!(some > 4.0 * FLOOR, "{some} bytes a second are left to it");
            let (_, alone) = live(on, Asks::Never, 60).await;
            assert!(alone > all * 0.95, "{alone} of {all} bytes a second when nobody asks");
        }
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_is_slow_alone_holds_nothing_back() {
        let off = PaceSettings::default();
        let (_, all) = live(off, Asks::FewAreSlow, 60).await;
        let (_, with) = live(PaceSettings { gives_way: true, ..off }, Asks::FewAreSlow, 60).await;
        assert!(with > all * 0.9, "{with} of {all} bytes a second");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn what_the_operator_says_holds_from_then_on() {
        let pace = Pace::new(PaceSettings { rate_bytes: MIB, gives_way: false });
        let passing = async |count: u64| {
            let begun = Instant::now();
            for _ in 0..count {
                pace.pass(MIB / 4).await;
            }
            begun.elapsed().as_secs_f64()
        };
        let took = passing(80).await;
        assert!((19.0..=21.0).contains(&took), "{took}");
        pace.set(PaceSettings::default());
        assert_eq!(passing(1000).await, 0.0);
        assert_eq!(pace.shown().allowed_bytes_s, None);
        // A debt from a low rate is not carried into a high one.
        let slow = Rate::new(1 << 10);
        slow.pass(4 * MIB).await;
        slow.renew(100 * MIB);
        let begun = Instant::now();
        slow.pass(MIB).await;
        slow.pass(MIB).await;
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

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
