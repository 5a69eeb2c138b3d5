//! `pgbench`: its own transaction, and in the same transaction a row that says which one it was.

use std::path::PathBuf;
use std::time::Duration;

use super::{ClientLog, DATABASE, Held, Postgres, SOON, succeed};
use crate::{Process, wait_for};

const CLIENTS: &str = "4";
const LOOK: Duration = Duration::from_millis(100);
/// Its own, built in as `tpcb-like`, and the row. `told` has what the client was told.
const TRANSACTION: &str = r"
\set aid random(1, 100000 * :scale)
\set bid random(1, 1 * :scale)
\set tid random(1, 10 * :scale)
\set delta random(-5000, 5000)
\set number :number + 1
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :bid;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)
    VALUES (:tid, :bid, :aid, :delta, CURRENT_TIMESTAMP);
INSERT INTO told (run, client, number) VALUES (:run, :client_id, :number);
END;
";
const TABLE: &str = "CREATE TABLE told (run int, client int, number bigint, \
    PRIMARY KEY (run, client, number))";

/// Clients at work. Dropping it ends them.
pub struct Load {
    process: Process,
    run: u32,
    log: PathBuf,
}

impl Load {
    /// Makes the tables.
    ///
    /// # Panics
    /// When it fails.
    pub fn prepare(database: &Postgres) {
        let mut pgbench = database.client("pgbench");
        pgbench.args(["--initialize", "--scale=1", "--quiet", DATABASE]);
        succeed(pgbench);
        database.sql(TABLE);
    }

    /// Starts clients that go on until the server goes. Each run has a number of its own.
    pub fn start(database: &Postgres, run: u32) -> Load {
        Load::launch(database, run, "--time=3600")
    }

    /// Plays a whole run, so many transactions by each client, and returns what they saw committed.
    ///
    /// # Panics
    /// When it fails.
    pub fn play(database: &Postgres, run: u32, each: u32) -> ClientLog {
        let mut load = Load::launch(database, run, &format!("--transactions={each}"));
        let status = load.process.wait_for_exit(SOON);
        assert!(status.success(), "pgbench: {status}: {}", load.process.stderr());
        ClientLog::read(&load.log)
    }

    fn launch(database: &Postgres, run: u32, until: &str) -> Load {
        let home = database.home();
        let [script, prefix] = ["transaction.sql", "seen"].map(|name| home.join(name));
        let written = std::fs::write(&script, TRANSACTION);
        written.unwrap_or_else(|e| panic!("{}: {e}", script.display()));
        let mut command = database.client("pgbench");
        command.args(["--no-vacuum", "--client", CLIENTS, "--scale=1", until, "--log"]);
        command.arg("--log-prefix").arg(&prefix).arg("--file").arg(script);
        command.args(["--define", "number=0", "--define", &format!("run={run}"), DATABASE]);
        let process = Process::start(command, home, &format!("pgbench-{run}"));
        let log = home.join(format!("seen.{}", process.pid()));
        Load { process, run, log }
    }

    /// Waits until so many more transactions are committed than were at the call.
    ///
    /// # Panics
    /// When it takes too long, or when the clients end.
    pub fn wait_for_more(&mut self, database: &Postgres, more: u64, patience: Duration) {
        let before = Load::held(database, self.run).transactions();
        wait_for("the load to go on", patience, || {
            if let Some(status) = self.process.try_exit() {
                panic!("pgbench: {status}: {}", self.process.stderr());
            }
            // A look costs as much as some transactions do.
            std::thread::sleep(LOOK);
            let now = Load::held(database, self.run).transactions();
            (now >= before + more).then_some(())
        });
    }

    /// What the server that went was seen to commit. The clients end by themselves when it is gone.
    ///
    /// # Panics
    /// When they do not, or when they ended well: then it was there to the last.
    pub fn end(mut self) -> ClientLog {
        let status = self.process.wait_for_exit(SOON);
        assert!(!status.success(), "the clients saw nothing of the end of their server");
        ClientLog::read(&self.log)
    }

    /// What `database` holds of a run.
    ///
    /// # Panics
    /// When a client's transaction is there and an earlier one of the same client is not.
    pub fn held(database: &Postgres, run: u32) -> Held {
        Held::parse(&database.sql(&format!(
            "SELECT client, count(*), max(number) FROM told WHERE run = {run} GROUP BY client"
        )))
    }

    /// Every balance is the sum of its part of the history, and each transaction is there whole.
    ///
    /// # Panics
    /// With what does not agree.
    pub fn assert_balanced(database: &Postgres) {
        for (table, id, balance) in [
            ("pgbench_accounts", "aid", "abalance"),
            ("pgbench_tellers", "tid", "tbalance"),
            ("pgbench_branches", "bid", "bbalance"),
        ] {
            let wrong = database.sql(&format!(
                "SELECT {id}, {balance}, sum FROM {table} \
                 FULL JOIN (SELECT {id}, sum(delta) FROM pgbench_history GROUP BY {id}) AS h \
                 USING ({id}) WHERE {balance} IS DISTINCT FROM coalesce(sum, 0) LIMIT 5"
            ));
            assert_eq!(wrong, "", "{table}: {id}, {balance}, and what the history says");
        }
        let counts =
            database.sql("SELECT count(*) FROM pgbench_history UNION SELECT count(*) FROM told");
        assert_eq!(counts.lines().count(), 1, "rows of the history and of `told`: {counts}");
        let accounts = database.sql("SELECT count(*) FROM pgbench_accounts");
        assert_eq!(accounts, "100000", "accounts");
    }
}
