//! The guard: a small shell process that runs the hooks, so that a thaw follows a freeze whatever
//! becomes of us.
//!
//! It freezes, says so, waits for a word on its stdin for as long as the timeout, and thaws; the end of
//! its stdin, which is our death, counts as the word. One process does both, so no thaw can overtake
//! a freeze that is still running. It is in a process group of its own and deaf to the signals that
//! end a session; only SIGKILL stops it, and then the marker is left. Hooks write into a file, not into a
//! pipe that would break with us (`docs/decisions/0013`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::{Error, Result};

/// Arguments: limit in seconds, freeze command or nothing, thaw command, file for what they print.
/// Lines on stdout: `frozen CODE`, `thawed CODE in-time` or `thawed CODE late`.
const SCRIPT: &str = r#"
trap '' HUP INT TERM QUIT PIPE
limit=$1 freeze=$2 thaw=$3 said=$4
run() (
    trap - HUP INT TERM QUIT PIPE
    exec timeout -s KILL "$limit" /bin/sh -c "$1" </dev/null >>"$said" 2>&1
)
: >"$said"
how=in-time
if [ -n "$freeze" ]; then
    run "$freeze"
    code=$?
    echo "frozen $code"
    if [ "$code" -eq 0 ]; then
        timeout -s KILL "$limit" /bin/sh -c 'IFS= read -r word && [ "$word" = thaw ]' || how=late
    fi
fi
for attempt in 1 2 3; do
    run "$thaw"
    code=$?
    [ "$code" -eq 0 ] && break
    sleep 1
done
echo "thawed $code $how"
"#;

/// What the guard's own work and a busy machine may add to the time of a hook.
const SLACK: Duration = Duration::from_secs(30);

/// The end of what hooks printed that is quoted in an error, in bytes.
const QUOTE: usize = 1000;

/// A guard that was started.
pub struct Guard {
    _child: Child,
    words: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    limit: Duration,
    said: PathBuf,
}

impl Guard {
    /// Starts it; it begins to freeze (or, without `freeze`, to thaw) at once. What the hooks print
    /// goes to a file beside `marker`.
    pub fn start(
        freeze: Option<&str>,
        thaw: &str,
        limit: Duration,
        marker: &Path,
    ) -> Result<Guard> {
        let said = marker.with_extension("out");
        let failed = |error| Error::io("run /bin/sh for", marker)(error);
        let mut child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "grainhaul-hooks", &limit.as_secs().to_string()])
            .args([freeze.unwrap_or(""), thaw])
            .arg(&said)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let words = child.stdin.take();
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or(std::io::ErrorKind::BrokenPipe.into()).map_err(failed)?;
        let lines = BufReader::new(stdout).lines();
        Ok(Guard { _child: child, words, lines, limit, said })
    }

    /// Waits until the freeze has ended; the reason when it failed.
    pub async fn frozen(&mut self) -> Result<(), String> {
        let line = self.line(self.limit).await?;
        match line.strip_prefix("frozen ") {
            Some("0") => Ok(()),
            Some(code) => Err(self.failure(code)),
            None => Err(format!("the guard said `{line}`")),
        }
    }

    /// Tells it to thaw.
    pub async fn ask_to_thaw(&mut self) {
        if let Some(mut words) = self.words.take() {
            // A guard that is gone has thawed already; its last line says how.
            drop(words.write_all(b"thaw\n").await);
        }
    }

    /// Waits until the thaw has ended; whether it was by our word.
    pub async fn thawed(&mut self) -> Result<bool, String> {
        let line = self.line(self.limit * 4).await?;
        match line.strip_prefix("thawed ").and_then(|rest| rest.split_once(' ')) {
            Some(("0", how)) => Ok(how == "in-time"),
            Some((code, _)) => Err(self.failure(code)),
            None => Err(format!("the guard said `{line}`")),
        }
    }

    async fn line(&mut self, limit: Duration) -> Result<String, String> {
        match timeout(limit + SLACK, self.lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => Err("the guard was killed".to_owned()),
            Ok(Err(error)) => Err(format!("the guard cannot be heard: {error}")),
            Err(_) => Err("the guard does not answer".to_owned()),
        }
    }

    fn failure(&self, code: &str) -> String {
        // `timeout` answers so when it had to kill.
        let how = match code {
            "137" | "124" => format!("it took more than {} s", self.limit.as_secs()),
            code => format!("exit code {code}"),
        };
        let said = std::fs::read(&self.said).unwrap_or_default();
        let tail = &said[said.len().saturating_sub(QUOTE)..];
        match String::from_utf8_lossy(tail).trim() {
            "" => how,
            tail => format!("{how}: {tail}"),
        }
    }
}
