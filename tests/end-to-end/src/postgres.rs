//! PostgreSQL as an administrator runs it: a cluster of its own on a mounted volume, the server as the user
//! `postgres`, `pgbench` as its load, and what the clients saw committed held against what is there later.
//!
//! The server listens on a Unix socket in a folder of its own and nowhere else, so several run beside each
//! other and beside one that the machine has anyway. Needs root: the server refuses to be it.

mod client_log;
mod load;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use client_log::{ClientLog, Held, Transaction};
pub use load::Load;

use crate::tool::succeed;
use crate::{Process, Tool};

/// Where Debian keeps the programs, a folder for each version.
const VERSIONS: &str = "/usr/lib/postgresql";
const PACKAGE: &str = "postgresql";
const SERVER: &str = "postgres";
/// Made by the package.
const USER: &str = "postgres";
/// The one that every cluster has.
const DATABASE: &str = "postgres";
/// Longer than any start, stop or recovery of a small cluster.
const SOON: Duration = Duration::from_secs(180);

/// No address, and small, so that a short test goes through several checkpoints and fills its log more than
/// once. What protects the data is left as it comes. Given at each start: a file that nobody synced would be
/// another one in a copy.
const SETTINGS: &[&str] = &[
    "listen_addresses=",
    "max_wal_size=48MB",
    "min_wal_size=16MB",
    "shared_buffers=16MB",
    "checkpoint_timeout=30s",
    // Recovery syncs the file system, not one by one each of a thousand files: as many flushes.
    "recovery_init_sync_method=syncfs",
];

/// A running server. Dropping it ends it at once, as a crash does.
pub struct Postgres {
    process: Process,
    data: PathBuf,
    home: PathBuf,
}

impl Postgres {
    /// The folder of PostgreSQL's own programs, of the newest version that is there.
    ///
    /// # Panics
    /// With the line that installs them, when they are nowhere.
    pub fn programs() -> PathBuf {
        let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten();
        let newest = versions.filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join(SERVER).is_file().then_some((version, folder))
        });
        newest.max().map(|(_, folder)| folder).unwrap_or_else(|| {
            let mut path = Tool::require(SERVER, PACKAGE).path().to_owned();
            path.pop();
            path
        })
    }

    /// Makes a cluster with checksums in `data`, which is made.
    ///
    /// # Panics
    /// With what `initdb` says when it fails.
    pub fn init(data: &Path) {
        make_folder(data, "0700");
        let mut initdb = as_user("initdb");
        initdb.args(["--data-checksums", "--no-locale", "--encoding=UTF8", "--auth=trust"]);
        initdb.args(["--wal-segsize=1", "--username", USER, "--no-sync", "--pgdata"]).arg(data);
        succeed(initdb);
        let sync = Tool::require("sync", "coreutils");
        sync.run(["--file-system".as_ref(), data.as_os_str()]);
    }

    /// Starts a server on the cluster in `data` and waits until it takes connections. Its socket and what
    /// it says go to `home`, which is made and is not on the volume.
    ///
    /// # Panics
    /// With what it says when it does not start.
    pub fn start(data: &Path, home: &Path) -> Postgres {
        make_folder(home, "0755");
        let mut command = as_user(SERVER);
        command.arg("-D").arg(data).arg("-k").arg(home);
        command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting]));
        let mut process = Process::start(command, home, "postgres");
        process.wait_for_line("database system is ready to accept connections", SOON);
        Postgres { process, data: data.to_owned(), home: home.to_owned() }
    }

    /// Whether this start went through crash recovery.
    pub fn recovered(&self) -> bool {
        self.process.stderr().contains("automatic recovery in progress")
    }

    /// Where its socket is.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A command line of one of PostgreSQL's clients, to be told the database.
    fn client(&self, name: &str) -> Command {
        let mut command = program(name).command();
        command.current_dir(&self.home).env_clear().env("LC_ALL", "C");
        command.arg("--host").arg(&self.home).args(["--username", USER]);
        command
    }

    /// Runs SQL; the rows as lines, their columns apart by a blank.
    ///
    /// # Panics
    /// With what `psql` says when it fails.
    pub fn sql(&self, text: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        psql.args(["--field-separator", " ", "--set", "ON_ERROR_STOP=1"]);
        psql.args(["--dbname", DATABASE, "--command", text]);
        String::from_utf8_lossy(&succeed(psql).stdout).trim_end().to_owned()
    }

    /// Reads every table and every index through, and compares them.
    ///
    /// # Panics
    /// With what is damaged.
    pub fn assert_sound(&self) {
        let mut check = self.client("pg_amcheck");
        check.args(["--install-missing", "--heapallindexed", "--parent-check", DATABASE]);
        succeed(check);
    }

    /// Stops it in order: sessions are ended, and a last checkpoint is made.
    ///
    /// # Panics
    /// When it does not end so.
    pub fn stop(mut self) {
        self.process.interrupt();
        let status = self.process.wait_for_exit(SOON);
        assert!(status.success(), "postgres: {status}: {}", self.process.stderr());
    }

    /// As [`Postgres::stop`]; then the checksum of every page is looked at.
    ///
    /// # Panics
    /// As [`Postgres::stop`], or when one is wrong.
    pub fn stop_and_check_pages(self) {
        let data = self.data.clone();
        self.stop();
        let mut check = as_user("pg_checksums");
        check.args(["--check", "--pgdata"]).arg(data);
        succeed(check);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed hard, it would leave its children with files open for a while, and shared memory for good.
        self.process.quit();
        let end = Instant::now() + Duration::from_secs(15);
        while self.process.try_exit().is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One of PostgreSQL's own programs.
fn program(name: &str) -> Tool {
    Tool::at(Postgres::programs().join(name), PACKAGE)
}

/// A command line that runs one of them as the user `postgres`.
fn as_user(name: &str) -> Command {
    let mut command = Tool::require("setpriv", "util-linux").command();
    command.args(["--reuid", USER, "--regid", USER, "--init-groups"]).arg(program(name).path());
    command.current_dir("/").env_clear().env("LC_ALL", "C");
    command
}

/// Makes a folder that belongs to the user `postgres`; fine if it is there.
fn make_folder(path: &Path, mode: &str) {
    let mut install = Tool::require("install", "coreutils").command();
    install.args(["--directory", "--owner", USER, "--group", USER, "--mode", mode]).arg(path);
    succeed(install);
}
