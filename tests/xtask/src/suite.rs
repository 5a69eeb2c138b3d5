//! The step `tests`: `cargo test` over the workspace, with the lines that matter.
//!
//! A run of some thousand tests prints a line for each; here those that passed are counted and left
//! out, and which binary runs, what fails and each closing `test result:` line are shown.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::workspace::Workspace;

/// Runs the tests of all packages.
pub fn run(workspace: &Workspace) -> Result<(), String> {
    let mut child = Command::new("cargo")
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .current_dir(workspace.top())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cargo test: {e}"))?;
    let mut tally = Tally::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).split(b'\n') {
            let line = line.map_err(|e| format!("cargo test: {e}"))?;
            let line = String::from_utf8_lossy(&line);
            if tally.take(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait().map_err(|e| format!("cargo test: {e}"))?;
    if !status.success() {
        return Err(format!(
            "{} tests failed, {} passed ({status}); their names and words are above, and \
             `cargo test -p PACKAGE NAME` runs one alone",
            tally.failed, tally.passed
        ));
    }
    if tally.passed == 0 {
        return Err("not a single test ran; something is wrong with the workspace".to_owned());
    }
    println!("{} tests passed in {} binaries", tally.passed, tally.binaries);
    Ok(())
}

/// What the closing lines add up to.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    binaries: u64,
}

impl Tally {
    /// Takes one line in; says whether it is worth showing.
    fn take(&mut self, line: &str) -> bool {
        if line.starts_with("test result:") {
            self.binaries += 1;
            self.passed += count_before(line, " passed");
            self.failed += count_before(line, " failed");
            return true;
        }
        let is_passed_test = line.starts_with("test ") && line.ends_with(" ... ok");
        let is_opening = line.starts_with("running ") && line.trim_end().ends_with("tests");
        !(is_passed_test || is_opening || line.trim().is_empty())
    }
}

/// The number right before `words`, 0 when there is none.
fn count_before(line: &str, words: &str) -> u64 {
    let head = line.split(words).next().unwrap_or("");
    head.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_and_failures_are_shown_and_the_rest_is_counted() {
        let output = [
            ("running 3 tests", false),
            ("test a::b ... ok", false),
            ("test a::c ... FAILED", true),
            ("test a::d has been running for over 60 seconds", true),
            ("", false),
            ("thread 'a::c' panicked at x.rs:1:2:", true),
            ("test result: FAILED. 2 passed; 1 failed; 0 ignored; finished in 0.01s", true),
            ("test result: ok. 40 passed; 0 failed; 0 ignored; finished in 0.01s", true),
        ];
        let mut tally = Tally::default();
        for (line, is_shown) in output {
            assert_eq!(tally.take(line), is_shown, "{line}");
        }
        assert_eq!((tally.passed, tally.failed, tally.binaries), (42, 1, 2));
    }
}
