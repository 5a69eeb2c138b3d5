//! `cargo xtask test`: everything that has to hold before a change goes in, step by step.
//!
//! Each step is announced, timed, and stops the run when it fails, with words on what to do. The
//! steps are cheap first, so that a slip of the pen is told within seconds.

use std::time::{Duration, Instant};

use xshell::cmd;

use crate::workspace::Workspace;
use crate::{advisories, licences, suite, tidy, tools};

/// One step.
struct Step {
    /// Its name, for `--only`.
    name: &'static str,
    /// What it does.
    about: &'static str,
    run: fn(&Workspace) -> Result<(), String>,
}

const STEPS: &[Step] = &[
    Step { name: "tools", about: "programs that the tests run", run: tools_step },
    Step { name: "fetch", about: "sources of the dependencies, as locked", run: fetch },
    Step { name: "format", about: "rustfmt", run: format },
    Step { name: "tidy", about: "house rules", run: tidy::run },
    Step { name: "licences", about: "licences of the dependencies", run: licences::run },
    Step { name: "advisories", about: "known faults of the dependencies", run: advisories::run },
    Step { name: "clippy", about: "clippy on all targets, warnings are errors", run: clippy },
    Step { name: "build", about: "all binaries, development profile", run: build },
    Step { name: "tests", about: "cargo test, the whole workspace", run: suite::run },
];

/// What the caller asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Run only the step of this name.
    pub only: Option<String>,
    /// Leave out the step that installs programs.
    pub skip_install: bool,
}

impl Options {
    /// Reads the arguments behind `cargo xtask test`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--skip-install" => options.skip_install = true,
                "--only" => {
                    let name = arguments.next().ok_or("--only needs the name of a step")?;
                    if !STEPS.iter().any(|step| step.name == name) {
                        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
                        return Err(format!("no step {name}; there are {}", names.join(", ")));
                    }
                    options.only = Some(name.clone());
                }
                other => return Err(format!("{other}: not known; see `cargo xtask help`")),
            }
        }
        Ok(options)
    }

    fn wants(&self, step: &Step) -> bool {
        match &self.only {
            Some(only) => only == step.name,
            None => !(self.skip_install && step.name == "tools"),
        }
    }
}

/// Runs the steps.
pub fn run(workspace: &Workspace, options: &Options) -> Result<(), String> {
    let start = Instant::now();
    for step in STEPS.iter().filter(|step| options.wants(step)) {
        println!("==> {}: {}", step.name, step.about);
        let begin = Instant::now();
        (step.run)(workspace).map_err(|words| {
            let again = format!("again: cargo xtask test --only {}", step.name);
            format!("step {} failed after {}: {words}\n{again}", step.name, shown(begin.elapsed()))
        })?;
        println!("<== {}: done in {}", step.name, shown(begin.elapsed()));
    }
    println!("all steps passed in {}", shown(start.elapsed()));
    Ok(())
}

/// The names of the steps and what they do, a line each.
pub fn list() -> String {
    STEPS.iter().map(|step| format!("    {:<12}{}\n", step.name, step.about)).collect()
}

fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60)
}

fn tools_step(workspace: &Workspace) -> Result<(), String> {
    tools::ensure(workspace.shell(), &[tools::FOR_TESTS])
}

fn fetch(workspace: &Workspace) -> Result<(), String> {
    let shell = workspace.shell();
    cmd!(shell, "cargo fetch --quiet --locked").run().map_err(|e| {
        format!("{e}; if the lock file is out of date, run `cargo check` and commit Cargo.lock")
    })
}

fn format(workspace: &Workspace) -> Result<(), String> {
    let shell = workspace.shell();
    let run = cmd!(shell, "cargo fmt --all -- --check").run();
    run.map_err(|e| format!("{e}; run `cargo fmt --all` and look at what it changed"))
}

fn clippy(workspace: &Workspace) -> Result<(), String> {
    let shell = workspace.shell();
    cmd!(shell, "cargo clippy --quiet --workspace --all-targets --locked -- -D warnings")
        .run()
        .map_err(|e| format!("{e}; mend what is listed above"))
}

fn build(workspace: &Workspace) -> Result<(), String> {
    let shell = workspace.shell();
    cmd!(shell, "cargo build --quiet --workspace --bins --locked")
        .run()
        .map_err(|e| format!("{e}; the errors are above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        Options::parse(&arguments)
    }

    fn wanted(options: &Options) -> Vec<&'static str> {
        STEPS.iter().filter(|step| options.wants(step)).map(|step| step.name).collect()
    }

    #[test]
    fn flags_choose_the_steps() {
        assert_eq!(wanted(&parse(&[]).unwrap()).len(), STEPS.len());
        assert_eq!(wanted(&parse(&["--only", "tidy"]).unwrap()), ["tidy"]);
        let skipped = wanted(&parse(&["--skip-install"]).unwrap());
        assert_eq!(skipped.len(), STEPS.len() - 1);
        assert!(!skipped.contains(&"tools"));
    }

    #[test]
    fn wrong_flags_are_named() {
        assert!(parse(&["--only"]).unwrap_err().contains("needs the name"));
        assert!(parse(&["--only", "nothing"]).unwrap_err().contains("there are tools, fetch"));
        assert!(parse(&["--fast"]).unwrap_err().contains("--fast"));
    }

    #[test]
    fn durations_are_for_people() {
        assert_eq!(shown(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(shown(Duration::from_secs(125)), "2 min 05 s");
    }
}
