//! What clients saw committed, and how it compares with what a server holds later.
//!
//! `pgbench` notes a transaction when its `COMMIT` has returned, with the time by the machine's clock and how
//! long it took. Each client numbers its transactions from 1 on, in its own rows too, so that a row and a
//! line of the log are the same transaction.

use std::collections::BTreeMap;
use std::path::Path;

/// A transaction whose `COMMIT` had returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Who made it.
    pub client: u32,
    /// The how many-th of this client, from 1 on.
    pub number: u64,
    /// When it began, microseconds since 1970; no later than it really did.
    pub begun_us: u64,
    /// When its `COMMIT` had returned; no earlier than it really had.
    pub ended_us: u64,
}

/// All that the clients of one run saw committed.
#[derive(Clone, Debug, Default)]
pub struct ClientLog {
    transactions: Vec<Transaction>,
}

/// What a server holds of one run: how many transactions of each client, without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    clients: BTreeMap<u32, u64>,
}

impl Held {
    /// From rows of client, number of transactions, largest number.
    ///
    /// # Panics
    /// When a client's transaction is there and an earlier one of the same client is not.
    pub(super) fn parse(rows: &str) -> Held {
        let mut clients = BTreeMap::new();
        for row in rows.lines() {
            let fields: Vec<u64> = row.split(' ').filter_map(|field| field.parse().ok()).collect();
            let [client, count, largest] = fields[..] else { panic!("not a row: {row}") };
            assert_eq!(count, largest, "client {client} lost one before its last: {row}");
            clients.insert(client as u32, count);
        }
        Held { clients }
    }

    /// Of all clients together.
    pub fn transactions(&self) -> u64 {
        self.clients.values().sum()
    }

    fn has(&self, transaction: &Transaction) -> bool {
        self.clients.get(&transaction.client).is_some_and(|&count| transaction.number <= count)
    }
}

impl ClientLog {
    /// Reads a log as `pgbench --log` writes it.
    ///
    /// # Panics
    /// When a line is none of it, or when a client's numbers are not 1, 2, 3 and so on.
    pub(super) fn read(path: &Path) -> ClientLog {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        ClientLog::parse(&text)
    }

    fn parse(text: &str) -> ClientLog {
        let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
        let mut transactions = Vec::new();
        for line in text.lines() {
            let fields: Vec<u64> = line.split(' ').map_while(|field| field.parse().ok()).collect();
            let [client, number, took_us, _, seconds, micros] = fields[..] else {
                panic!("not a line of pgbench's log: {line}")
            };
            let ended_us = seconds * 1_000_000 + micros;
            let client = client as u32;
            let before = newest.insert(client, number).unwrap_or(0);
            assert_eq!(number, before + 1, "client {client}: {line}");
            let begun_us = ended_us.saturating_sub(took_us);
            transactions.push(Transaction { client, number, begun_us, ended_us });
        }
        ClientLog { transactions }
    }

    /// How many were seen committed.
    pub fn transactions(&self) -> u64 {
        self.transactions.len() as u64
    }

    /// Those that were seen committed and are not there.
    ///
    /// # Panics
    /// When something is there that was never sent. One more than was seen is fine: its `COMMIT` was under
    /// way when the server went.
    pub fn lost(&self, held: &Held) -> Vec<Transaction> {
        for (&client, &count) in &held.clients {
            let seen = self.transactions.iter().filter(|t| t.client == client).count() as u64;
            assert!(count <= seen + 1, "client {client} saw {seen} committed, {count} are there");
        }
        self.transactions.iter().copied().filter(|t| !held.has(t)).collect()
    }

    /// What is there is at least what a copy as of the given instant (milliseconds since 1970) has.
    ///
    /// # Panics
    /// With the first transaction that is missing.
    pub fn assert_not_older(&self, held: &Held, unix_ms: u64) {
        for lost in self.lost(held) {
            let late = lost.ended_us > unix_ms * 1000;
            assert!(late, "{lost:?} was committed at the instant {unix_ms} and is not there");
        }
    }

    /// What is there is what a copy as of the given instant (milliseconds since 1970) has: all whose
    /// `COMMIT` had returned by then, and nothing that began later.
    ///
    /// # Panics
    /// With the first transaction that is missing or too much.
    pub fn assert_as_of(&self, held: &Held, unix_ms: u64) {
        self.assert_not_older(held, unix_ms);
        for kept in self.transactions.iter().filter(|t| held.has(t)) {
            // The instant is somewhere within its millisecond.
            let early = kept.begun_us < (unix_ms + 1) * 1000;
            assert!(early, "{kept:?} began after the instant {unix_ms} and is there");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Client 0 at 1.001 to 1.002 s and 1.002 to 1.004 s, client 3 at 1.001 to 1.003 s.
    const LOG: &str = "0 1 1000 0 1 2000\n3 1 2000 0 1 3000\n0 2 2000 0 1 4000\n";

    fn held(rows: &str) -> Held {
        Held::parse(rows)
    }

    #[test]
    fn a_log_is_read() {
        let log = ClientLog::parse(LOG);
        assert_eq!(log.transactions(), 3);
        let second = Transaction { client: 3, number: 1, begun_us: 1_001_000, ended_us: 1_003_000 };
        assert_eq!(log.transactions[1], second);
    }

    #[test]
    fn what_is_lost_is_named() {
        let log = ClientLog::parse(LOG);
        assert_eq!(log.lost(&held("0 2 2\n3 1 1")), []);
        assert_eq!(log.lost(&held("0 3 3\n3 2 2")), [], "under way when the server went");
        let lost: Vec<_> = log.lost(&held("0 1 1")).iter().map(|t| (t.client, t.number)).collect();
        assert_eq!(lost, [(3, 1), (0, 2)]);
        assert_eq!(held("0 2 2\n3 1 1").transactions(), 3);
        assert_eq!(held("").transactions(), 0);
    }

    #[test]
    fn a_copy_as_of_an_instant_passes() {
        let log = ClientLog::parse(LOG);
        log.assert_as_of(&held("0 1 1"), 1_002);
        log.assert_as_of(&held("0 1 1\n3 1 1"), 1_002);
        log.assert_as_of(&held("0 2 2\n3 1 1"), 1_002);
        log.assert_as_of(&held("0 2 2\n3 1 1"), 9_000);
        log.assert_as_of(&held(""), 1_000);
    }

    #[test]
    #[should_panic(expected = "number: 1, begun_us: 1001000, ended_us: 1002000 } was committed")]
    fn a_committed_one_that_is_missing_is_found() {
        ClientLog::parse(LOG).assert_as_of(&held("3 1 1"), 1_002);
    }

    #[test]
    #[should_panic(expected = "number: 2, begun_us: 1002000, ended_us: 1004000 } began after")]
    fn a_later_one_that_is_there_is_found() {
        ClientLog::parse(LOG).assert_as_of(&held("0 2 2\n3 1 1"), 1_001);
    }

    #[test]
    #[should_panic(expected = "client 0 saw 2 committed, 4 are there")]
    fn one_that_was_never_sent_is_found() {
        ClientLog::parse(LOG).lost(&held("0 4 4"));
    }

    #[test]
    #[should_panic(expected = "client 2 lost one before its last")]
    fn a_gap_is_found() {
        held("0 2 2\n2 4 5");
    }

    #[test]
    #[should_panic(expected = "not a line of pgbench's log: 0 3 failed 0 1 9")]
    fn a_failed_transaction_is_no_success() {
        ClientLog::parse("0 3 failed 0 1 9");
    }
}
