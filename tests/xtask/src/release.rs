//! Tasks in the release profile: `cargo xtask demo`, `bench`, `sim` and `soak`.
//!
//! Each starts a program of `tests/`, the first two after the binaries of the product were built;
//! the exit code is that program's.

use xshell::cmd;

use crate::tools;
use crate::workspace::Workspace;

/// Builds the binaries and runs the benches; `arguments` go to `tests/bench`.
pub fn bench(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    tools::ensure(workspace.shell(), &[tools::FOR_TESTS, tools::FOR_BENCH])?;
    run(workspace, "grainhaul-bench", "grainhaul-bench", arguments)
}

/// Builds the binaries and runs the demo; `arguments` go to it. Needs no other tool.
pub fn demo(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    run(workspace, "grainhaul-end-to-end", "demo", arguments)
}

/// From so many histories on, a binary that takes minutes longer to build is ready sooner.
const MANY_SEEDS: u64 = 100_000;

/// Plays simulated histories; `arguments` go to the simulator. Many of them are played by the binary of the
/// profile `simulator`.
pub fn sim(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let long = is_long(arguments);
    start(workspace, long.then_some("simulator"), "grainhaul-simulation", "simulate", arguments)
}

fn is_long(arguments: &[String]) -> bool {
    let seeds = arguments.iter().skip_while(|argument| *argument != "--seeds").nth(1);
    let many = seeds.and_then(|n| n.parse().ok()).is_some_and(|n: u64| n >= MANY_SEEDS);
    many || arguments.iter().any(|argument| argument == "--hours")
}

/// Rounds of the kill loop in a soak.
const KILL_ROUNDS: &str = "500";

/// The kill loop with real processes, `--rounds N` (500 when not given; 0 leaves it out), then simulated
/// histories of fresh seeds for hours: `--hours H`, 1 when not given (0 leaves them out). Needs root.
pub fn soak(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let mut arguments = arguments.to_vec();
    let rounds = taken(&mut arguments, "--rounds")?.unwrap_or_else(|| KILL_ROUNDS.to_owned());
    let hours = taken(&mut arguments, "--hours")?.unwrap_or_else(|| "1".to_owned());
    if rounds != "0" {
        tools::ensure(workspace.shell(), &[tools::FOR_TESTS])?;
        let kills = ["--rounds".to_owned(), rounds];
        run(workspace, "grainhaul-end-to-end", "kill_loop", &kills)?;
    }
    if hours == "0" {
        return Ok(());
    }
    arguments.extend(["--hours".to_owned(), hours]);
    sim(workspace, &arguments)
}

/// Takes `flag` and its value out of the arguments.
fn taken(arguments: &mut Vec<String>, flag: &str) -> Result<Option<String>, String> {
    let Some(at) = arguments.iter().position(|argument| argument == flag) else { return Ok(None) };
    if at + 1 >= arguments.len() {
        return Err(format!("{flag} needs a number"));
    }
    Ok(arguments.drain(at..at + 2).nth(1))
}

fn run(
    workspace: &Workspace,
    package: &str,
    binary: &str,
    arguments: &[String],
) -> Result<(), String> {
    let shell = workspace.shell();
    let what = ["-p", "primary-agent", "-p", "secondary-agent", "-p", "media-tools", "-p", package];
    cmd!(shell, "cargo build --release --locked {what...}")
        .run()
        .map_err(|e| format!("{e}; the release build failed, its errors are above"))?;
    start(workspace, None, package, binary, arguments)
}

fn start(
    workspace: &Workspace,
    profile: Option<&str>,
    package: &str,
    binary: &str,
    arguments: &[String],
) -> Result<(), String> {
    if !workspace.has_binary(package, binary)? {
        return Err(format!("the package {package} of this tree has no binary `{binary}`"));
    }
    let shell = workspace.shell();
    let profile = profile.unwrap_or("release");
    cmd!(
        shell,
        "cargo run --profile {profile} --locked --quiet -p {package} --bin {binary} -- {arguments...}"
    )
    .run()
    .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_known_by_its_arguments() {
        let long = |line: &str| is_long(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(long("--small --seeds 1000000"));
        assert!(long("--hours 2"));
        assert!(!long("--seeds 300 --from 100000"));
        assert!(!long("--seed 1000000"));
    }

    #[test]
    fn a_flag_is_taken_with_its_value() {
        let mut arguments: Vec<String> = ["a", "--rounds", "7", "b"].map(str::to_owned).to_vec();
        assert_eq!(taken(&mut arguments, "--rounds"), Ok(Some("7".to_owned())));
        assert_eq!(arguments, ["a", "b"]);
        assert_eq!(taken(&mut arguments, "--rounds"), Ok(None));
        assert!(taken(&mut arguments, "b").is_err());
    }
}
