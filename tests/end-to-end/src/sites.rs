//! Two sites on one machine: state folders, a volume each, media folders, our three programs. The
//! programs run with their own state folders and the primary listens on a fixed port of the loopback,
//! so either site can be killed and started again.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::{Process, Proxy, binary, compare, random_image, sparse_image};

/// Longer than anything takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(90);

/// A relationship called `job` between two sites.
pub struct Sites {
    folder: PathBuf,
    kept: Option<tempfile::TempDir>,
    address: SocketAddr,
}

impl Sites {
    /// Makes both sites: the primary's volume holds `data_bytes` random bytes and then a hole up to
    /// `bytes`, the replica's is a fresh file. `grain` is as `--grain` takes it.
    ///
    /// # Panics
    /// When one of the programs fails.
    pub fn new(bytes: u64, data_bytes: u64, grain: &str, seed: u64) -> Sites {
        let sites = Sites::unrelated(bytes, data_bytes, seed);
        sites.relate(grain, sites.address);
        sites
    }

    /// As [`Sites::new`], but the replica reaches the primary through a proxy.
    ///
    /// # Panics
    /// As [`Sites::new`].
    pub fn through_proxy(bytes: u64, data_bytes: u64, grain: &str, seed: u64) -> (Sites, Proxy) {
        let sites = Sites::unrelated(bytes, data_bytes, seed);
        let proxy = Proxy::start(sites.address);
        sites.relate(grain, proxy.address());
        (sites, proxy)
    }

    /// As [`Sites::through_proxy`], in `folder`, which is made and stays.
    ///
    /// # Panics
    /// As [`Sites::new`].
    pub fn in_folder(
        folder: &Path,
        bytes: u64,
        data_bytes: u64,
        grain: &str,
        seed: u64,
    ) -> (Sites, Proxy) {
        let made = std::fs::create_dir_all(folder);
        made.unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let sites = Sites::with_volumes(folder.to_owned(), None, bytes, data_bytes, seed);
        let proxy = Proxy::start(sites.address);
        sites.relate(grain, proxy.address());
        (sites, proxy)
    }

    /// A small pair in step, its primary serving: dumped, loaded, caught up.
    ///
    /// # Panics
    /// As [`Sites::new`].
    pub fn in_step(seed: u64) -> (Sites, Process) {
        let sites = Sites::new(16 << 20, 8 << 20, "64KiB", seed);
        let primary = sites.serve_primary();
        sites.ship();
        sites.catch_up();
        sites.assert_equal();
        (sites, primary)
    }

    /// Brings the replica up from a medium: dump at the serving primary, load at the secondary.
    ///
    /// # Panics
    /// As [`Sites::new`].
    pub fn ship(&self) {
        let mut dump = self.primary(["dump", "job", "--to"]);
        dump.arg(self.medium(1));
        self.ok(dump);
        let mut load = self.secondary(["load", "job"]);
        load.arg(self.medium(1));
        self.ok(load);
    }

    fn relate(&self, grain: &str, dialled: SocketAddr) {
        let identity = self.ok(self.secondary(["identity"]));
        let address = dialled.to_string();
        let volume = self.source_volume();
        let mut init = self.primary(["init", "job", "--grain", grain, "--address", &address]);
        init.args(["--peer", identity.trim(), "--volume"]).arg(volume);
        init.arg("--ticket").arg(self.ticket());
        self.ok(init);
        self.ok(self.replica_init(&self.ticket()));
    }

    /// The folders and volumes alone; nothing was `init`ed.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn unrelated(bytes: u64, data_bytes: u64, seed: u64) -> Sites {
        let kept = tempfile::tempdir().unwrap_or_else(|e| panic!("tempdir: {e}"));
        Sites::with_volumes(kept.path().to_owned(), Some(kept), bytes, data_bytes, seed)
    }

    fn with_volumes(
        folder: PathBuf,
        kept: Option<tempfile::TempDir>,
        bytes: u64,
        data_bytes: u64,
        seed: u64,
    ) -> Sites {
        let free = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr());
        let address = free.unwrap_or_else(|e| panic!("no free port: {e}"));
        let sites = Sites { folder, kept, address };
        random_image(&sites.source_volume(), data_bytes, seed);
        let file = File::options().write(true).open(sites.source_volume());
        let grown = file.and_then(|file| file.set_len(bytes));
        grown.unwrap_or_else(|e| panic!("volume: {e}"));
        sparse_image(&sites.replica_volume(), bytes, 0, 0, 0);
        sites
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the primary listens for replicas.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The primary's volume.
    pub fn source_volume(&self) -> PathBuf {
        self.folder.join("source.img")
    }

    /// The replica's volume.
    pub fn replica_volume(&self) -> PathBuf {
        self.folder.join("replica.img")
    }

    /// The ticket.
    pub fn ticket(&self) -> PathBuf {
        self.folder.join("job.ticket")
    }

    /// The NBD socket of the primary.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("nbd.sock")
    }

    /// The default export for clients that take a URI.
    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket().display())
    }

    /// The folder of a medium, made if it is not there.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn medium(&self, number: u32) -> PathBuf {
        let path = self.folder.join(format!("medium-{number}"));
        let made = std::fs::create_dir_all(&path);
        made.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    fn program<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(
        &self,
        name: &str,
        state: &str,
        arguments: I,
    ) -> Command {
        let mut command = Command::new(binary(name));
        command.arg("--state-dir").arg(self.folder.join(state)).args(arguments);
        command.current_dir(&self.folder);
        command
    }

    /// A command line of the primary agent at its site.
    pub fn primary<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        self.program("primary-agent", "primary", arguments)
    }

    /// A command line of the secondary agent at its site.
    pub fn secondary<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        self.program("secondary-agent", "secondary", arguments)
    }

    /// A command line of the media tools with the keys of the replica's site.
    pub fn media_tools<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Command {
        self.program("media-tools", "secondary", arguments)
    }

    /// `secondary-agent init` with the replica's volume.
    pub fn replica_init(&self, ticket: &Path) -> Command {
        let mut init = self.secondary(["init", "job", "--ticket"]);
        init.arg(ticket).arg("--volume").arg(self.replica_volume());
        init
    }

    /// Runs to the end, whatever that is.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn end(&self, mut command: Command) -> Output {
        command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    /// Runs to the end and returns standard output.
    ///
    /// # Panics
    /// With what it wrote, when it fails.
    pub fn ok(&self, command: Command) -> String {
        let words = format!("{command:?}");
        let output = self.end(command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{words}: {}\n{out}{err}", output.status);
        out
    }

    /// Runs `--json` to the end and returns what it answered.
    ///
    /// # Panics
    /// As [`Sites::ok`], or when the answer is not JSON.
    pub fn json(&self, mut command: Command) -> Value {
        command.arg("--json");
        let text = self.ok(command);
        let line = text.lines().last().unwrap_or_default();
        serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Starts `primary-agent serve` and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub fn serve_primary(&self) -> Process {
        self.serve_primary_with::<&str>(&[])
    }

    /// As [`Sites::serve_primary`], with more flags.
    ///
    /// # Panics
    /// As [`Sites::serve_primary`].
    pub fn serve_primary_with<S: AsRef<OsStr>>(&self, more: &[S]) -> Process {
        let mut process = self.launch_primary_with(more);
        process.wait_for_line("job is served", PATIENCE);
        process
    }

    /// Starts `primary-agent serve` without waiting.
    pub fn launch_primary(&self) -> Process {
        self.launch_primary_with::<&str>(&[])
    }

    /// As [`Sites::launch_primary`], with more flags.
    pub fn launch_primary_with<S: AsRef<OsStr>>(&self, more: &[S]) -> Process {
        let address = self.address.to_string();
        let mut command = self.primary(["serve", "job", "--listen", &address, "--nbd"]);
        command.arg(format!("unix:{}", self.socket().display())).args(more);
        Process::start(command, &self.folder, "primary")
    }

    /// Starts `secondary-agent serve` with short pauses, without waiting.
    pub fn launch_secondary<S: AsRef<OsStr>>(&self, more: &[S]) -> Process {
        let mut command = self.secondary(["serve", "job", "--max-pause", "1s"]);
        command.args(more);
        Process::start(command, &self.folder, "secondary")
    }

    /// Runs `secondary-agent serve --once` until the replica is in step, to the last byte if nobody
    /// writes.
    ///
    /// # Panics
    /// When it fails or takes too long.
    pub fn catch_up(&self) {
        let mut process = self.launch_secondary(&["--once", "--in-step", "0"]);
        let status = process.wait_for_exit(PATIENCE);
        assert!(status.success(), "serve --once: {status}\n{}", process.stderr());
    }

    /// # Panics
    /// With the first difference, when the two volumes differ.
    pub fn assert_equal(&self) {
        let difference = compare(&self.source_volume(), &self.replica_volume());
        assert_eq!(difference, None, "source and replica differ");
    }

    /// Keeps the folders after the test, for a look, and says where they are.
    pub fn keep(&mut self) {
        if let Some(kept) = self.kept.take() {
            eprintln!("kept: {}", kept.keep().display());
        }
    }
}

/// The largest file below `folder`.
///
/// # Panics
/// When there is none.
pub fn largest_file(folder: &Path) -> PathBuf {
    let mut open = vec![folder.to_owned()];
    let mut largest = (0, None);
    while let Some(path) = open.pop() {
        let entries =
            std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for entry in entries.flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) if meta.len() > largest.0 => largest = (meta.len(), Some(entry.path())),
                _ => {}
            }
        }
    }
    largest.1.unwrap_or_else(|| panic!("{} holds no files", folder.display()))
}

/// Flips a bit in the middle of a file.
///
/// # Panics
/// When the file cannot be changed.
pub fn flip_bit(path: &Path) {
    let flipped = (|| {
        let file = File::options().read(true).write(true).open(path)?;
        let middle = file.metadata()?.len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle)?;
        file.write_all_at(&[byte[0] ^ 0x10], middle)
    })();
    flipped.unwrap_or_else(|e: std::io::Error| panic!("{}: {e}", path.display()));
}
