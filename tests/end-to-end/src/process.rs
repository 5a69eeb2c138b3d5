//! Processes under test: their output in files, killed hard or asked to end, always reaped.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How often something that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The path of one of our binaries: beside the running test, else in `CARGO_TARGET_DIR`.
///
/// # Panics
/// With the line that builds it, when it is not there.
pub fn binary(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|exe| {
        // target/PROFILE/deps/test-0123456789abcdef
        let deps = exe.parent()?;
        let profile = if deps.ends_with("deps") { deps.parent()? } else { deps };
        Some(profile.join(name))
    });
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let built = target.into_iter().flat_map(|t| [t.join("debug"), t.join("release")]);
    let candidates: Vec<PathBuf> =
        beside.into_iter().chain(built.map(|folder| folder.join(name))).collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => path.clone(),
        None => panic!(
            "{name} is not built ({candidates:?}): \
             cargo build -p primary-agent -p secondary-agent -p media-tools"
        ),
    }
}

/// Waits until `look` gives something.
///
/// # Panics
/// With `what` after `timeout`.
pub fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {timeout:?} for {what}");
        std::thread::sleep(LOOK);
    }
}

/// A running process. Dropping it kills and reaps it.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with no input, its outputs in `NAME.out` and `NAME.err` in `folder` (begun
    /// anew).
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Process {
        let [stdout, stderr] = ["out", "err"].map(|end| folder.join(format!("{name}.{end}")));
        let create = |path: &Path| match File::create(path) {
            Ok(file) => Stdio::from(file),
            Err(e) => panic!("{}: {e}", path.display()),
        };
        command.stdin(Stdio::null()).stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Process { name: name.to_owned(), child, stdout, stderr, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// The exit status, if it has ended.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap_or_else(|e| panic!("{}: {e}", self.name));
        }
        self.ended
    }

    /// Waits for a line of standard output or error that contains `pattern`.
    ///
    /// # Panics
    /// With what it wrote, after `timeout` or when it ends without such a line.
    pub fn wait_for_line(&mut self, pattern: &str, timeout: Duration) -> String {
        let end = Instant::now() + timeout;
        loop {
            let over = self.try_exit().is_some() || Instant::now() >= end;
            let (out, err) = (self.stdout(), self.stderr());
            let line = out.lines().chain(err.lines()).find(|line| line.contains(pattern));
            if let Some(line) = line {
                return line.to_owned();
            }
            if over {
                self.give_up(&format!("no line with `{pattern}`"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until something listens on the Unix socket at `path`.
    ///
    /// # Panics
    /// As [`Process::wait_for_line`].
    pub fn wait_for_socket(&mut self, path: &Path, timeout: Duration) {
        let end = Instant::now() + timeout;
        while UnixStream::connect(path).is_err() {
            if self.try_exit().is_some() || Instant::now() >= end {
                self.give_up(&format!("nothing listens on {}", path.display()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// As [`Process::wait_for_line`].
    pub fn wait_for_exit(&mut self, timeout: Duration) -> ExitStatus {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.try_exit() {
                return status;
            }
            if Instant::now() >= end {
                self.give_up("it does not end");
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills it with SIGKILL and reaps it; fine if it has ended.
    pub fn kill_9(&mut self) {
        if self.try_exit().is_none() {
            // It may end by itself just now; `wait` tells.
            drop(self.child.kill());
            self.ended = self.child.wait().ok();
        }
    }

    /// Asks it to end with SIGTERM, and waits.
    ///
    /// # Panics
    /// As [`Process::wait_for_line`].
    pub fn terminate(&mut self, timeout: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit(timeout)
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn interrupt(&mut self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGQUIT, which some servers take for an order to leave at once.
    pub fn quit(&mut self) {
        self.signal(Signal::QUIT);
    }

    /// Stops it (SIGSTOP) as a machine that hangs does, until [`Process::resume`].
    pub fn suspend(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Process::suspend`].
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal if it still runs; not reaped yet, its id is its own.
    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        if let (None, Some(pid)) = (self.try_exit(), pid)
            && let Err(e) = kill_process(pid, signal)
        {
            panic!("{}: cannot send {signal:?}: {e}", self.name);
        }
    }

    fn give_up(&mut self, why: &str) -> ! {
        let status = self.try_exit().map_or("still running".into(), |status| status.to_string());
        let (out, err) = (self.stdout(), self.stderr());
        panic!("{}: {why} ({status})\n--- stdout\n{out}--- stderr\n{err}", self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_9();
    }
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        // What cannot be read is shown as far as it could be.
        drop(file.read_to_end(&mut bytes));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(folder: &Path, script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, folder, "shell")
    }

    #[test]
    fn lines_and_exit_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = shell(folder.path(), "echo ready 7; echo trouble >&2; exit 5");
        assert_eq!(process.wait_for_line("ready", SOON), "ready 7");
        assert_eq!(process.wait_for_line("trouble", SOON), "trouble");
        assert_eq!(process.wait_for_exit(SOON).code(), Some(5));
        assert_eq!(process.stderr(), "trouble\n");
        process.kill_9();
    }

    #[test]
    fn dropping_kills_and_reaps() {
        let folder = tempfile::tempdir().unwrap();
        let process = shell(folder.path(), "sleep 1000");
        let proc = PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(proc.exists());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn signals_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.01; done";
        let mut process = shell(folder.path(), script);
        process.wait_for_line("up", SOON);
        process.suspend();
        process.resume();
        assert_eq!(process.terminate(SOON).code(), Some(3));
        assert_eq!(process.wait_for_line("bye", SOON), "bye");
    }

    #[test]
    #[should_panic(expected = "--- stderr\nno way")]
    fn a_process_that_ends_early_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        shell(folder.path(), "echo no way >&2").wait_for_line("ready", SOON);
    }

    #[test]
    fn a_socket_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut process = shell(folder.path(), "sleep 1000");
        let listen = path.clone();
        let thread = std::thread::spawn(move || std::os::unix::net::UnixListener::bind(listen));
        process.wait_for_socket(&path, SOON);
        assert!(thread.join().unwrap().is_ok());
    }

    #[test]
    #[should_panic(expected = "cargo build -p primary-agent")]
    fn a_binary_that_is_not_built_is_named() {
        binary("no-such-binary");
    }

    #[test]
    #[should_panic(expected = "for the moon")]
    fn waiting_has_an_end() {
        wait_for::<()>("the moon", Duration::from_millis(20), || None);
    }
}
