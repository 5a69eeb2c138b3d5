//! Programs that the tests and benches run beside our own, and the Debian packages they come in.
//!
//! What is there is found by looking for the programs, so that a machine that has them from
//! elsewhere is fine. As root missing ones are installed; otherwise the exact line to run is said.

use std::path::Path;

use xshell::{Shell, cmd};

/// One Debian package.
pub struct Tool {
    /// Its name.
    pub package: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// How its presence is seen.
    probe: Probe,
}

enum Probe {
    /// A program in the search path.
    Program(&'static str),
    /// A module that Debian's `python3` (or the one in the search path) can import.
    PythonModule(&'static str),
    /// A program in a folder for each version, which Debian keeps out of the search path:
    /// `FOLDER/VERSION/bin/PROGRAM`; or anywhere in the search path.
    Versioned(&'static str, &'static str),
}

/// What `cargo xtask test` needs.
pub const FOR_TESTS: &[Tool] = &[
    tool("gcc", "cc", "links, and compiles the C and assembler parts of aws-lc and zstd"),
    tool("libc6-dev", "ldd", "headers and start files for the linker"),
    tool("util-linux", "losetup", "loop devices, mount, flock: block volumes in the tests"),
    tool("e2fsprogs", "mke2fs", "ext4 on exported volumes; fills an image from a folder"),
    tool("xfsprogs", "mkfs.xfs", "xfs on exported volumes"),
    tool("btrfs-progs", "mkfs.btrfs", "btrfs on exported volumes"),
    tool("fuse3", "fusermount3", "mounts nbdfuse, through which a loop device sees an export"),
    tool("libnbd-bin", "nbdinfo", "nbdinfo, nbdcopy, nbdfuse: clients of another make"),
    Tool {
        package: "python3-libnbd",
        why: "nbdsh: single NBD requests, well formed and not",
        probe: Probe::PythonModule("nbd"),
    },
    tool("nbdkit", "nbdkit", "a server of another make: the peer of our client and in the bench"),
    tool("qemu-utils", "qemu-img", "qemu-img, qemu-io, qemu-nbd: clients and a server"),
    tool("fio", "fio", "load with verification, and the bench"),
    Tool {
        package: "postgresql",
        why: "a database on an exported volume, with pgbench; run with data of its own as its own user",
        probe: Probe::Versioned("/usr/lib/postgresql", "initdb"),
    },
    tool("openssl", "openssl", "s_client: a stranger that knocks at the link"),
];

/// What `cargo xtask bench` needs besides.
pub const FOR_BENCH: &[Tool] =
    &[tool("rsync", "rsync", "the peer that a catch-up is measured against")];

const fn tool(package: &'static str, program: &'static str, why: &'static str) -> Tool {
    Tool { package, why, probe: Probe::Program(program) }
}

/// Installs what is missing of `tools`, or says how to.
pub fn ensure(shell: &Shell, tools: &[&'static [Tool]]) -> Result<(), String> {
    let missing: Vec<&Tool> =
        tools.iter().flat_map(|tools| *tools).filter(|tool| !is_there(shell, tool)).collect();
    if missing.is_empty() {
        println!("all tools are there");
        return Ok(());
    }
    for tool in &missing {
        println!("  missing: {} ({})", tool.package, tool.why);
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let by_hand = format!("apt-get update && apt-get install -y {}", packages.join(" "));
    let has_apt = find_program("apt-get");
    if !is_root(shell) || !has_apt {
        return Err(format!("run this as root, then start again: {by_hand}"));
    }
    install(shell, &packages).map_err(|e| format!("{e}; by hand: {by_hand}"))?;
    let still: Vec<&str> =
        missing.iter().filter(|tool| !is_there(shell, tool)).map(|tool| tool.package).collect();
    if still.is_empty() {
        return Ok(());
    }
    Err(format!("installed, but their programs are still not found: {}", still.join(" ")))
}

fn install(shell: &Shell, packages: &[&str]) -> Result<(), xshell::Error> {
    let _quiet = shell.push_env("DEBIAN_FRONTEND", "noninteractive");
    cmd!(shell, "apt-get -q update").run()?;
    cmd!(shell, "apt-get -q install -y --no-install-recommends {packages...}").run()
}

fn is_there(shell: &Shell, tool: &Tool) -> bool {
    match tool.probe {
        Probe::Program(program) => find_program(program),
        Probe::Versioned(folder, program) => {
            find_program(program) || find_versioned(Path::new(folder), program)
        }
        Probe::PythonModule(module) => {
            let import = format!("import {module}");
            // Debian's own first: another python3 in the search path does not see its modules.
            ["/usr/bin/python3", "python3"].iter().any(|python| {
                let python = cmd!(shell, "{python} -c {import}").quiet();
                python.ignore_stdout().ignore_stderr().run().is_ok()
            })
        }
    }
}

/// Whether a program stands in the search path, or where those for root stand.
fn find_program(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let for_root = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_owned());
    std::env::split_paths(&path).chain(for_root).any(|dir| dir.join(program).is_file())
}

/// Whether a program stands in `folder` for some version.
fn find_versioned(folder: &Path, program: &str) -> bool {
    let mut versions = std::fs::read_dir(folder).into_iter().flatten().flatten();
    versions.any(|version| version.path().join("bin").join(program).is_file())
}

fn is_root(shell: &Shell) -> bool {
    cmd!(shell, "id -u").quiet().read().is_ok_and(|uid| uid == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_and_missed() {
        assert!(find_program("sh"));
        assert!(!find_program("no-such-program-anywhere"));
        let shell = Shell::new().unwrap();
        let odd =
            Tool { package: "x", why: "x", probe: Probe::PythonModule("no_such_module_anywhere") };
        assert!(!is_there(&shell, &odd));
    }

    #[test]
    fn a_program_is_found_in_the_folder_of_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("15/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("initdb"), "").unwrap();
        assert!(find_versioned(folder.path(), "initdb"));
        assert!(!find_versioned(folder.path(), "postgres"));
        assert!(!find_versioned(&folder.path().join("none"), "initdb"));
    }

    #[test]
    fn no_package_is_listed_twice() {
        let mut names: Vec<_> = FOR_TESTS.iter().chain(FOR_BENCH).map(|t| t.package).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
