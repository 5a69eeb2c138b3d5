//! Bad weather on the link: a thread that switches a proxy at random until it is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Direction, Proxy, Random};

/// How often the word to stop is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// A running thread. Stopping it leaves the link healed.
pub(super) struct Weather {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<&'static str, u64>>>,
}

impl Weather {
    pub(super) fn start(proxy: Arc<Proxy>, seed: u64) -> Weather {
        let stop = Arc::new(AtomicBool::new(false));
        let own = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = BTreeMap::new();
            let mut random = Random::new(seed);
            // So that a session comes to be, most of the time.
            wait(&own, Duration::from_millis(random.below(400)));
            while !own.load(Ordering::SeqCst) {
                let (name, longest_ms) = change(&proxy, &mut random);
                *seen.entry(name).or_default() += 1;
                wait(&own, Duration::from_millis(random.below(longest_ms)));
                calm(&proxy);
            }
            seen
        });
        Weather { stop, thread: Some(thread) }
    }

    /// Ends it; what it did, and how often.
    pub(super) fn stop(mut self) -> BTreeMap<&'static str, u64> {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        ended.and_then(Result::ok).unwrap_or_else(|| panic!("the weather's thread has panicked"))
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// One change of the weather, and how long it may last in milliseconds.
fn change(proxy: &Proxy, random: &mut Random) -> (&'static str, u64) {
    match random.below(9) {
        0 => {
            proxy.cut();
            ("cut", 150)
        }
        1 => {
            proxy.flap();
            ("broken once", 200)
        }
        2 => {
            proxy.silence(Direction::ToTarget);
            ("silent to the primary", 300)
        }
        3 => {
            proxy.silence(Direction::FromTarget);
            ("silent from the primary", 300)
        }
        4 => {
            proxy.set_rate(Some(1));
            ("stalled", 300)
        }
        5 => {
            proxy.set_rate(Some(1 << (16 + random.below(8))));
            ("throttled", 500)
        }
        6 => {
            proxy.set_delay(Duration::from_millis(1 + random.below(40)));
            ("far", 500)
        }
        _ => ("calm", 500),
    }
}

/// A link as good as it can be.
pub(super) fn calm(proxy: &Proxy) {
    proxy.set_rate(None);
    proxy.set_delay(Duration::ZERO);
    proxy.heal();
}

fn wait(stop: &AtomicBool, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end && !stop.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
    }
}
