//! What a kill loop did, counted.

use std::collections::BTreeMap;
use std::fmt;

/// Counts of a kill loop; shown as a list.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Rounds played.
    pub rounds: u64,
    /// Pairs of sites that they were played with.
    pub pairs: u64,
    /// Kills, by what was under way or who was killed.
    pub kills: BTreeMap<&'static str, u64>,
    /// Changes of the link.
    pub link: BTreeMap<&'static str, u64>,
    /// Other things that happened.
    pub events: BTreeMap<&'static str, u64>,
    /// Bytes of volumes compared, source against replica.
    pub compared_bytes: u64,
    /// Bytes that passed the proxy, both ways.
    pub link_bytes: u64,
    /// Connections that passed the proxy.
    pub connections: u64,
    /// Writes of the application that were answered.
    pub writes: u64,
    /// The most that a journal's files took.
    pub journal_bytes: u64,
}

impl Tally {
    pub(super) fn kill(&mut self, kind: &'static str) {
        *self.kills.entry(kind).or_default() += 1;
    }

    pub(super) fn event(&mut self, kind: &'static str) {
        *self.events.entry(kind).or_default() += 1;
    }

    /// Kills of any kind.
    pub fn kills(&self) -> u64 {
        self.kills.values().sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} rounds, {} pairs, {} kills", self.rounds, self.pairs, self.kills())?;
        let lists = [("killed", &self.kills), ("link", &self.link), ("event", &self.events)];
        for (title, list) in lists {
            for (name, count) in list {
                writeln!(f, "  {title:8} {count:6}  {name}")?;
            }
        }
        writeln!(f, "{} writes answered", self.writes)?;
        writeln!(f, "{} bytes of volumes compared", self.compared_bytes)?;
        writeln!(f, "{} bytes in {} connections over the link", self.link_bytes, self.connections)?;
        writeln!(f, "{} bytes of journal at most", self.journal_bytes)
    }
}
