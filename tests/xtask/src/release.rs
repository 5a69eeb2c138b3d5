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

/// Plays simulated histories; `arguments` go to the simulator.
pub fn sim(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    start(workspace, "grainhaul-simulation", "simulate", arguments)
}

/// Plays simulated histories of fresh seeds for hours: `--hours H`, 1 when not given.
pub fn soak(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let mut arguments = arguments.to_vec();
    if !arguments.iter().any(|argument| argument == "--hours") {
        arguments.extend(["--hours".to_owned(), "1".to_owned()]);
    }
    sim(workspace, &arguments)
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
    start(workspace, package, binary, arguments)
}

fn start(
    workspace: &Workspace,
    package: &str,
    binary: &str,
    arguments: &[String],
) -> Result<(), String> {
    if !workspace.has_binary(package, binary)? {
        return Err(format!("the package {package} of this tree has no binary `{binary}`"));
    }
    let shell = workspace.shell();
    cmd!(
        shell,
        "cargo run --release --locked --quiet -p {package} --bin {binary} -- {arguments...}"
    )
    .run()
    .map_err(|e| e.to_string())
}
