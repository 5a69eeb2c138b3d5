//! What went over a link: counted by the session, read by whoever shows status.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A snapshot. Bytes are those of frames as they travel (after compression, before TLS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Bytes handed to the socket.
    pub sent_bytes: u64,
    /// Frames handed to the socket, pings included.
    pub sent_frames: u64,
    /// Bytes that came from the socket.
    pub received_bytes: u64,
    /// Frames that came from the socket, pings included.
    pub received_frames: u64,
    /// The last round trip that a ping measured.
    pub round_trip: Option<Duration>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    sent_bytes: AtomicU64,
    sent_frames: AtomicU64,
    received_bytes: AtomicU64,
    received_frames: AtomicU64,
    /// In microseconds; 0 when none was measured.
    round_trip_us: AtomicU64,
}

impl Counters {
    pub fn sent(&self, frames: u64, bytes: u64) {
        self.sent_frames.fetch_add(frames, Relaxed);
        self.sent_bytes.fetch_add(bytes, Relaxed);
    }

    pub fn received_bytes(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Relaxed);
    }

    pub fn received_frame(&self) {
        self.received_frames.fetch_add(1, Relaxed);
    }

    pub fn round_trip(&self, time: Duration) {
        self.round_trip_us.store((time.as_micros() as u64).max(1), Relaxed);
    }

    pub fn snapshot(&self) -> LinkCounters {
        let us = self.round_trip_us.load(Relaxed);
        LinkCounters {
            sent_bytes: self.sent_bytes.load(Relaxed),
            sent_frames: self.sent_frames.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            received_frames: self.received_frames.load(Relaxed),
            round_trip: (us > 0).then(|| Duration::from_micros(us)),
        }
    }
}
