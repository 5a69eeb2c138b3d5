//! `cargo xtask fuzz`: hostile bytes for every parser, guided by the counters of LLVM's pass
//! `sancov-module`, which the stable compiler can switch on by itself.

use xshell::cmd;

use crate::workspace::Workspace;

/// Puts a counter on every edge. The pass that places them is part of the compiler; what reads them is
/// `tests/fuzz/src/coverage.rs`.
const COUNTERS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters=1";

/// Builds the fuzzer and runs it; `arguments` go to it. The counters are for its own target directory
/// and the host's triple only, so that build scripts and macros do without.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let shell = workspace.shell();
    let version = cmd!(shell, "rustc -vV").quiet().read().map_err(|e| e.to_string())?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc does not say its host")?;
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    let dir = format!("{target}/fuzz");
    cmd!(
        shell,
        "cargo run --release --locked --quiet --config profile.release.lto=false
            --target {host} --target-dir {dir} -p grainhaul-fuzz --bin fuzz -- {arguments...}"
    )
    .env("RUSTFLAGS", COUNTERS)
    .run()
    .map_err(|e| e.to_string())
}
