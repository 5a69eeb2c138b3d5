//! Processes of a bench: those that run to their end, and servers that live as long as a value.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it can be connected to, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much of what a process said is repeated in an error.
const SAID_BYTES: usize = 2000;

/// A server; ends when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts a server and waits until its Unix socket takes connections. What it says goes to a
    /// file beside the socket.
    pub fn start(command: &mut Command, socket: &Path) -> Result<Self, String> {
        let log = socket.with_extension("log");
        Self::start_until(command, log, || UnixStream::connect(socket).is_ok())
    }

    /// Starts a server, whose words go to `log`, and waits until `is_up`.
    pub fn start_until(
        command: &mut Command,
        log: PathBuf,
        is_up: impl Fn() -> bool,
    ) -> Result<Self, String> {
        let name = words(command);
        let out = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let err = out.try_clone().map_err(|e| e.to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(|e| format!("{name}: {e}"))?;
        let mut server = Self { child, log };
        let start = Instant::now();
        loop {
            if is_up() {
                return Ok(server);
            }
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("{name} ended at once, {status}: {}", server.said()));
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("{name} takes no connection: {}", server.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what the server said.
    fn said(&self) -> String {
        tail(&std::fs::read(&self.log).unwrap_or_default())
    }

    /// Asks the server to end and waits for it.
    pub fn stop(mut self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        run(Command::new("kill").args(["-TERM", &pid]))?;
        let start = Instant::now();
        loop {
            match self.child.try_wait().map_err(|e| e.to_string())? {
                Some(status) => return is_clean_end(status, &self.said()),
                None if start.elapsed() > PATIENCE => {
                    return Err(format!("a server did not end when asked: {}", self.said()));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// A server that was asked to end may say so by its status or by the signal.
fn is_clean_end(status: ExitStatus, said: &str) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt;
    const SIGTERM: i32 = 15;
    if status.success() || status.signal() == Some(SIGTERM) {
        return Ok(());
    }
    Err(format!("a server ended with {status}: {said}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Runs a command to its end; its standard output when it succeeded.
pub fn run(command: &mut Command) -> Result<String, String> {
    let name = words(command);
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{name}: {e}"))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(format!("{name}: {}, {} {}", out.status, tail(&out.stdout), tail(&out.stderr)))
}

/// Runs a command to its end; how long it took, in seconds.
pub fn timed(command: &mut Command) -> Result<f64, String> {
    let start = Instant::now();
    run(command)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Waits until something is done, which is asked anew after each pause.
pub fn wait_until(
    what: &str,
    limit: Duration,
    pause: Duration,
    mut done: impl FnMut() -> Result<bool, String>,
) -> Result<(), String> {
    let start = Instant::now();
    while !done()? {
        if start.elapsed() > limit {
            return Err(format!("{what} does not come about within {} s", limit.as_secs()));
        }
        std::thread::sleep(pause);
    }
    Ok(())
}

/// Writes back what the page cache holds for the file system of `path`, so that one contender does
/// not pay for what another left.
pub fn settle(path: &Path) -> Result<(), String> {
    run(Command::new("sync").arg("--file-system").arg(path)).map(drop)
}

fn words(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().map(OsStr::to_string_lossy).unwrap_or_default().into_owned()
}

fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(SAID_BYTES);
    String::from_utf8_lossy(&bytes[from..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_says_what_it_said() {
        let told = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        let told = told.unwrap_err();
        for part in ["sh", "3", "out", "err"] {
            assert!(told.contains(part), "{told}");
        }
        assert!(run(&mut Command::new("no-such-program-anywhere")).is_err());
    }

    #[test]
    fn a_server_that_ends_at_once_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo cannot serve; exit 1"]);
        let told = Server::start(&mut command, &dir.path().join("socket")).unwrap_err();
        assert!(told.contains("ended at once") && told.contains("cannot serve"), "{told}");
    }
}
