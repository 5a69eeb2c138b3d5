//! Tasks that run the product as it ships: `cargo xtask demo` and `cargo xtask bench`.
//!
//! Both build the binaries in the release profile and then start a program of `tests/`; the exit
//! code is that program's.

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

fn run(
    workspace: &Workspace,
    package: &str,
    binary: &str,
    arguments: &[String],
) -> Result<(), String> {
    if !workspace.has_binary(package, binary)? {
        return Err(format!("the package {package} of this tree has no binary `{binary}`"));
    }
    let shell = workspace.shell();
    let what = ["-p", "primary-agent", "-p", "secondary-agent", "-p", "media-tools", "-p", package];
    cmd!(shell, "cargo build --release --locked {what...}")
        .run()
        .map_err(|e| format!("{e}; the release build failed, its errors are above"))?;
    cmd!(
        shell,
        "cargo run --release --locked --quiet -p {package} --bin {binary} -- {arguments...}"
    )
    .run()
    .map_err(|e| e.to_string())
}
