//! What connections did: counters on the server's own thread, and [`ConnectionStats`], the copy that
//! status pages read.

use std::cell::Cell;

/// Counts of one connection since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads answered or under way.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Trims.
    pub trims: u64,
    /// Zeroings.
    pub zeroes: u64,
    /// Cache and block status requests.
    pub others: u64,
    /// Commands answered with an error, refused requests included.
    pub errors: u64,
    /// Bytes of reads.
    pub read_bytes: u64,
    /// Bytes of writes.
    pub written_bytes: u64,
}

/// One connection as a status page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Numbered from 1 in the order of arrival at this server.
    pub id: u64,
    /// The name of its export.
    pub export: String,
    /// Where it came from: `unix` or an address.
    pub peer: String,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// What it did.
    pub counts: Counts,
    /// Commands in flight.
    pub in_flight: usize,
    /// Their bytes.
    pub in_flight_bytes: u64,
}

/// [`Counts`] that grow.
#[derive(Default)]
pub(crate) struct Counters(Cell<Counts>);

impl Counters {
    pub(crate) fn get(&self) -> Counts {
        self.0.get()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.0.get();
        change(&mut counts);
        self.0.set(counts);
    }
}
