//! The command lines of our own binaries, in one place.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::nbd::make_sparse;
use crate::process::{self, Server};

/// The name of the relationship.
const NAME: &str = "bench";
const SOURCE_VOLUME: &str = "source.raw";

/// Both sites of one relationship with one volume, below one directory.
pub struct Pair {
    dir: PathBuf,
    address: String,
}

impl Pair {
    /// Makes both sites: identity, relationship, ticket. `source` and `replica` are the volumes.
    pub fn init(dir: &Path, source: &Path, replica: &Path) -> Result<Self, String> {
        let pair = Self { dir: dir.to_owned(), address: format!("127.0.0.1:{}", free_port()?) };
        let identity = process::run(pair.secondary().arg("identity"))?;
        copy_dir(&pair.secondary_state(), &pair.keys())?;
        process::run(
            pair.primary()
                .args(["init", NAME, "--peer", identity.trim(), "--address", &pair.address])
                .arg("--ticket")
                .arg(pair.ticket())
                .arg("--volume")
                .arg(source),
        )?;
        pair.init_replica(replica)?;
        Ok(pair)
    }

    /// The same over two volumes of holes, which are made.
    pub fn sparse(dir: &Path, size_bytes: u64) -> Result<Self, String> {
        let (source, replica) = (dir.join(SOURCE_VOLUME), dir.join("replica.raw"));
        make_sparse(&source, size_bytes)?;
        make_sparse(&replica, size_bytes)?;
        Self::init(dir, &source, &replica)
    }

    /// The volume of the source that [`Pair::sparse`] made.
    pub fn source_volume(&self) -> PathBuf {
        self.dir.join(SOURCE_VOLUME)
    }

    /// Makes the replica's site anew: its state is what it was after its keys were made.
    pub fn init_replica(&self, replica: &Path) -> Result<(), String> {
        let state = self.secondary_state();
        std::fs::remove_dir_all(&state).map_err(|e| format!("the replica's state: {e}"))?;
        copy_dir(&self.keys(), &state)?;
        let ticket = self.ticket();
        process::run(
            self.secondary()
                .args(["init", NAME, "--ticket"])
                .arg(ticket)
                .arg("--volume")
                .arg(replica),
        )
        .map(drop)
    }

    /// Where the export is.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("primary.socket")
    }

    /// Starts the source: the export, the tracking, the link.
    pub fn serve(&self) -> Result<Server, String> {
        let socket = self.socket();
        let mut command = self.primary();
        command.args(["serve", NAME, "--listen", &self.address]);
        command.arg("--nbd").arg(format!("unix:{}", socket.display()));
        Server::start(&mut command, &socket)
    }

    /// Starts the replica, and returns when it can be asked; it dials by itself. Once promoted it serves on
    /// [`Pair::replica_socket`].
    pub fn serve_replica(&self) -> Result<Server, String> {
        self.serve_replica_with(&[])
    }

    /// The same with these flags.
    pub fn serve_replica_with(&self, more: &[&str]) -> Result<Server, String> {
        let control = self.secondary_state().join("relationships").join(NAME).join("control.sock");
        let mut command = self.secondary();
        command.args(["serve", NAME]);
        command.arg("--nbd").arg(format!("unix:{}", self.replica_socket().display()));
        command.args(more);
        let is_up = || UnixStream::connect(&control).is_ok();
        Server::start_until(&mut command, self.dir.join("secondary.log"), is_up)
    }

    /// Where the replica's volumes are offered once it is the source.
    pub fn replica_socket(&self) -> PathBuf {
        self.dir.join("secondary.socket")
    }

    /// The running replica becomes the source.
    pub fn promote(&self) -> Command {
        let mut command = self.secondary();
        command.args(["promote", NAME]);
        command
    }

    /// Names the present instant.
    pub fn bookmark(&self, label: &str) -> Result<(), String> {
        process::run(self.primary().args(["bookmark", NAME, label])).map(drop)
    }

    /// Offers the replica as it was then, until its agent ends.
    pub fn look(&self, at: &str, socket: &Path) -> Command {
        let mut command = self.secondary();
        command.args(["export", NAME, "--background", "--at", at, "--socket"]).arg(socket);
        command
    }

    /// Whether the background of the running source gives way to applications.
    pub fn give_way(&self, gives_way: bool) -> Result<(), String> {
        let word = if gives_way { "on" } else { "off" };
        process::run(self.primary().args(["pace", NAME, "--give-way", word])).map(drop)
    }

    /// Changes how the replica is kept.
    pub fn set_mode(&self, mode: &str) -> Result<(), String> {
        process::run(self.primary().args(["mode", NAME, mode])).map(drop)
    }

    /// The source's status.
    pub fn status(&self) -> Result<Value, String> {
        let words = process::run(self.primary().args(["status", NAME, "--json"]))?;
        serde_json::from_str(&words).map_err(|e| format!("the status: {e}"))
    }

    /// Waits until all that was written is in the replica's journal, in a stream.
    pub fn wait_until_confirmed(&self, limit: Duration) -> Result<(), String> {
        self.wait("the stream", limit, |peer| {
            peer["mirror"]["mirroring"] == true && peer["mirror"]["backlog_bytes"] == 0
        })
    }

    /// Waits until the source says of its replica what is expected.
    pub fn wait(
        &self,
        what: &str,
        limit: Duration,
        is_there: impl Fn(&Value) -> bool,
    ) -> Result<(), String> {
        let mut peer = Value::Null;
        let there = || {
            peer = self.status()?["peers"][0].take();
            Ok(is_there(&peer))
        };
        let waited = process::wait_until(what, limit, Duration::from_millis(50), there);
        waited.map_err(|e| format!("{e}: {peer}"))
    }

    /// How often the queue of the stream was full.
    pub fn overflows(&self) -> Result<u64, String> {
        Ok(self.status()?["peers"][0]["mirror"]["overflows"].as_u64().unwrap_or_default())
    }

    /// The replica's status.
    pub fn replica_status(&self) -> Result<Value, String> {
        let words = process::run(self.secondary().args(["status", NAME, "--json"]))?;
        serde_json::from_str(&words).map_err(|e| format!("the status: {e}"))
    }

    /// Brings the replica up by a dump and a load through a directory that is removed again.
    pub fn seed(&self) -> Result<(), String> {
        let medium = self.dir.join("medium");
        process::run(&mut self.dump(&medium))?;
        process::run(&mut self.load(&medium))?;
        std::fs::remove_dir_all(&medium).map_err(|e| format!("medium: {e}"))
    }

    /// A full dump, sealed and not compressed.
    pub fn dump(&self, to: &Path) -> Command {
        let mut command = self.primary();
        command.args(["dump", NAME, "--compress", "off", "--to"]).arg(to);
        command
    }

    /// Loads a medium.
    pub fn load(&self, from: &Path) -> Command {
        let mut command = self.secondary();
        command.args(["load", NAME]).arg(from);
        command
    }

    /// Catches up once and ends.
    pub fn catch_up(&self) -> Command {
        let mut command = self.secondary();
        command.args(["serve", NAME, "--once"]);
        command
    }

    fn ticket(&self) -> PathBuf {
        self.dir.join("bench.ticket")
    }

    fn secondary_state(&self) -> PathBuf {
        self.dir.join("secondary")
    }

    /// The replica's state with its keys and nothing else.
    fn keys(&self) -> PathBuf {
        self.dir.join("secondary.keys")
    }

    fn primary(&self) -> Command {
        agent("primary-agent", &self.dir.join("primary"))
    }

    fn secondary(&self) -> Command {
        agent("secondary-agent", &self.secondary_state())
    }
}

/// One of our agents with its state in `state`.
fn agent(name: &str, state: &Path) -> Command {
    let mut command = binary(name);
    command.env("GRAINHAUL_STATE", state);
    command
}

/// A program built beside this one.
pub fn binary(name: &str) -> Command {
    let own = std::env::current_exe().unwrap_or_default();
    Command::new(own.with_file_name(name))
}

fn copy_dir(from: &Path, to: &Path) -> Result<(), String> {
    process::run(Command::new("cp").arg("--archive").arg(from).arg(to)).map(drop)
}

/// A port of this machine that nobody listens on at the moment.
pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|e| e.to_string())
}
