//! What the world of a history is like: sizes, limits, speeds.

use std::time::Duration;

use disk::simulated::SplitMix64;
use replication::replica::Retain;

use crate::keeping::Keeping;

/// Bytes of a grain in every history.
pub const GRAIN: u64 = 4096;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Bytes of each volume.
    pub volumes: Vec<u64>,
    /// Application clients.
    pub clients: u64,
    /// Requests of all clients together.
    pub requests: u64,
    /// The longest pause of a client between requests, in microseconds.
    pub pause_us: u64,
    /// The longest request of a client in bytes.
    pub longest: u64,
    /// The longest time that an operation of a disk takes, in microseconds, by site.
    pub latency_us: [u64; 2],
    /// Of 256 inline reads and writes, so many are answered at once.
    pub now_chance: u64,
    /// Credits of the source.
    pub credit_bytes: u64,
    /// Every bit is synced before its write.
    pub exact: bool,
    /// Bytes that a power cut may make suspected.
    pub excess_bytes: u64,
    /// History of layers kept, by site.
    pub layer_history: [u64; 2],
    /// Preserved grains in memory, of a dump and of a session over the link.
    pub buffer_bytes: [u64; 2],
    /// The side file, of a dump and of a session over the link.
    pub side_bytes: [u64; 2],
    /// How long a writer waits for room to preserve.
    pub preserve_wait: Duration,
    /// What a dump does then: 0 fuzzy, 1 throttle, 2 abort.
    pub preserve: u64,
    /// Segment and whole size of the journal, records in memory.
    pub journal: (u64, u64, u64),
    /// Bytes that a dump reads in a second at most; 0 for no limit.
    pub dump_rate: u64,
    /// Catch-ups that the journal does not take go into the base.
    pub allow_direct: bool,
    /// Media of a set.
    pub media: u64,
    /// Whether sets are sealed.
    pub sealed: bool,
    /// The zstd level of sets.
    pub level: Option<i32>,
    /// Time between cycles of the replica, in milliseconds.
    pub interval_ms: u64,
    /// Samples compared at an attach.
    pub samples: u32,
    /// How the replica is kept.
    pub keeping: Keeping,
    /// How long it remembers.
    pub retain: Retain,
}

fn pick<T: Copy>(random: &mut SplitMix64, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}

impl Shape {
    /// The same with few grains, requests and clients.
    pub fn small(self, random: &mut SplitMix64) -> Shape {
        let volume = |random: &mut SplitMix64| {
            let grains = 1 + random.below(6);
            grains * GRAIN + pick(random, &[0, 100, 512, 4000, 0])
        };
        Shape {
            volumes: (0..1 + random.below(4) / 3).map(|_| volume(random)).collect(),
            clients: 1 + random.below(2),
            requests: 8 + random.below(18),
            pause_us: pick(random, &[3_000, 30_000]),
            // Without latency an operation ends as it begins: few orders, many histories.
            latency_us: [pick(random, &[0, 0, 200, 2_000]), pick(random, &[0, 0, 200, 2_000])],
            longest: pick(random, &[GRAIN, 3 * GRAIN]),
            ..self
        }
    }

    /// Draws one.
    pub fn draw(random: &mut SplitMix64) -> Shape {
        let volume = |random: &mut SplitMix64| {
            // Now and then larger than a region of the tracker, nearly all of it a hole.
            let grains = if random.below(12) == 0 { 2_000 } else { 1 + random.below(28) };
            grains * GRAIN + pick(random, &[0, 100, 512, 4000, 0])
        };
        let small = |random: &mut SplitMix64| pick(random, &[GRAIN, 3 * GRAIN, 8 * GRAIN, 1 << 20]);
        let side = |random: &mut SplitMix64| pick(random, &[0, 0, 4 * GRAIN, 16 * GRAIN]);
        let segment = pick(random, &[192 << 10, 256 << 10]);
        Shape {
            volumes: (0..1 + random.below(3)).map(|_| volume(random)).collect(),
            clients: 1 + random.below(3),
            requests: 40 + random.below(100),
            pause_us: pick(random, &[300, 3_000, 30_000]),
            longest: pick(random, &[GRAIN, 3 * GRAIN, 12 * GRAIN]),
            latency_us: [pick(random, &[1, 200, 2_000]), pick(random, &[1, 200, 2_000])],
            now_chance: pick(random, &[0, 128, 256]),
            credit_bytes: pick(random, &[8 << 10, 64 << 10, 1 << 20]),
            exact: random.below(6) == 0,
            excess_bytes: pick(random, &[4 << 20, 64 << 20]),
            layer_history: [pick(random, &[0, 8 << 10, 1 << 20]), pick(random, &[0, 1 << 20])],
            buffer_bytes: [small(random), small(random)],
            side_bytes: [side(random), side(random)],
            preserve_wait: Duration::from_millis(pick(random, &[0, 5, 200])),
            preserve: pick(random, &[0, 0, 0, 1, 2]),
            journal: (segment, segment * (4 + random.below(8)), pick(random, &[24, 256, 1 << 16])),
            dump_rate: pick(random, &[0, 0, 400_000]),
            allow_direct: random.below(2) == 0,
            media: 1 + random.below(3),
            sealed: random.below(8) == 0,
            level: pick(random, &[None, None, Some(1)]),
            interval_ms: pick(random, &[30, 400, 3_000]),
            samples: pick(random, &[0, 30]),
            keeping: Keeping::default(),
            retain: Retain::Nothing,
        }
    }
}
