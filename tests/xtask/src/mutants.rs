//! `cargo xtask mutants`: deliberate faults, one at a time, each of which a named test has to find.
//!
//! A fault is a file in `tests/mutations`: four lines of header, an empty line, a patch. It is applied to a
//! copy of the last commit, never to the tree that one works in; the tests of the workspace are not run
//! without it, that is what `cargo xtask test` is for.

use std::path::{Path, PathBuf};

use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// Where the faults are, from the top of the tree.
const FAULTS: &str = "tests/mutations";

/// One deliberate fault.
#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    name: String,
    /// What is done wrong.
    fault: String,
    /// Which promise that breaks.
    promise: String,
    /// The package of the test that finds it.
    package: String,
    /// What cargo is told besides: which test.
    test: Vec<String>,
}

/// What came of one.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Found,
    Missed,
}

/// Tries those whose names are given, or all; `--list` only shows them, `--check` only applies them.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<(), String> {
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|a| a.starts_with("--"));
    let (mut list, mut check) = (false, false);
    for flag in flags {
        match flag.as_str() {
            "--list" => list = true,
            "--check" => check = true,
            other => return Err(format!("mutants knows no {other}")),
        }
    }
    let chosen = choose(read_all(&workspace.top().join(FAULTS))?, &names)?;
    if list {
        chosen.iter().for_each(|m| println!("{}: {} (promise {})", m.name, m.fault, m.promise));
        return Ok(());
    }
    let bed = Bed::make(workspace)?;
    let mut missed = Vec::new();
    for mutant in &chosen {
        let outcome = match check {
            true => bed.apply(mutant).map(|()| Outcome::Found),
            false => bed.try_one(mutant),
        };
        bed.clean()?;
        match outcome? {
            Outcome::Found if check => println!("{}: applies", mutant.name),
            Outcome::Found => {
                println!("{}: found by {} {}", mutant.name, mutant.package, mutant.test.join(" "));
            }
            Outcome::Missed => {
                println!("{}: NOT FOUND", mutant.name);
                missed.push(mutant.name.as_str());
            }
        }
    }
    bed.remove()?;
    match missed.as_slice() {
        [] => Ok(()),
        _ => Err(format!("{} of {} not found: {}", missed.len(), chosen.len(), missed.join(", "))),
    }
}

fn read_all(dir: &Path) -> Result<Vec<Mutant>, String> {
    let cannot = |e: std::io::Error| format!("{}: {e}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let Some(name) = name.strip_suffix(".patch") else { continue };
        let text = std::fs::read_to_string(&path).map_err(cannot)?;
        found.push(parse(name, &text).map_err(|why| format!("{}: {why}", path.display()))?);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Reads the header.
fn parse(name: &str, text: &str) -> Result<Mutant, String> {
    let field = |key: &str| {
        let head = text.lines().take_while(|line| !line.is_empty());
        let found = head.filter_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).next();
        found.map(|value| value.trim().to_owned()).ok_or_else(|| format!("no line `{key}: `"))
    };
    if !text.contains("\n\n--- a/") {
        return Err("no patch after the header and an empty line".to_owned());
    }
    Ok(Mutant {
        name: name.to_owned(),
        fault: field("fault")?,
        promise: field("promise")?,
        package: field("package")?,
        test: field("test")?.split_whitespace().map(str::to_owned).collect(),
    })
}

fn choose(all: Vec<Mutant>, names: &[&String]) -> Result<Vec<Mutant>, String> {
    if let Some(name) = names.iter().find(|name| all.iter().all(|m| m.name != name.as_str())) {
        return Err(format!("there is no {FAULTS}/{name}.patch"));
    }
    let asked = |m: &Mutant| names.is_empty() || names.iter().any(|name| **name == m.name);
    Ok(all.into_iter().filter(asked).collect())
}

/// A copy of the last commit, with a target directory of its own.
struct Bed {
    shell: Shell,
    top: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Bed {
    fn make(workspace: &Workspace) -> Result<Bed, String> {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = workspace.top().join(target.unwrap_or("target".into())).join("mutants");
        let shell = Shell::new().map_err(|e| e.to_string())?;
        let (top, tree) = (workspace.top().to_owned(), target.join("tree"));
        shell.create_dir(&target).map_err(|e| e.to_string())?;
        // Left by a run that was broken off.
        if tree.exists() {
            cmd!(shell, "git -C {top} worktree remove --force {tree}").run().map_err(words)?;
        }
        cmd!(shell, "git -C {top} worktree add --quiet --detach {tree} HEAD")
            .run()
            .map_err(words)?;
        shell.change_dir(&tree);
        Ok(Bed { shell, top, tree, target })
    }

    fn apply(&self, mutant: &Mutant) -> Result<(), String> {
        let patch = self.top.join(FAULTS).join(format!("{}.patch", mutant.name));
        let applied = cmd!(self.shell, "git apply {patch}").quiet().run();
        applied.map_err(|_| format!("{}: the patch does not apply any more", mutant.name))
    }

    /// A fault that does not compile is an error, not one that was found.
    fn try_one(&self, mutant: &Mutant) -> Result<Outcome, String> {
        self.apply(mutant)?;
        let (shell, target) = (&self.shell, &self.target);
        let (package, test) = (&mutant.package, &mutant.test);
        let built = cmd!(
            shell,
            "cargo test --locked --quiet --no-run --target-dir {target} -p {package} {test...}"
        );
        let built = built.quiet().ignore_stdout().ignore_stderr().run();
        built.map_err(|_| format!("{}: it does not compile", mutant.name))?;
        let tested =
            cmd!(shell, "cargo test --locked --target-dir {target} -p {package} {test...}");
        let output = tested.quiet().ignore_status().output().map_err(words)?;
        let out = String::from_utf8_lossy(&output.stdout);
        judge(output.status.success(), &out).map_err(|why| format!("{}: {why}", mutant.name))
    }

    fn clean(&self) -> Result<(), String> {
        cmd!(self.shell, "git checkout --quiet -- .").quiet().run().map_err(words)
    }

    fn remove(self) -> Result<(), String> {
        let (top, tree) = (self.top, self.tree);
        self.shell.change_dir(&top);
        cmd!(self.shell, "git worktree remove --force {tree}").quiet().run().map_err(words)
    }
}

fn words(error: xshell::Error) -> String {
    error.to_string()
}

/// What the output of a test run says.
fn judge(success: bool, out: &str) -> Result<Outcome, String> {
    let ran =
        out.lines().filter_map(|line| line.strip_prefix("running ")).any(|n| !n.starts_with('0'));
    match (success, ran) {
        (_, false) => Err("no test ran: the header names none that there is".to_owned()),
        (true, true) => Ok(Outcome::Missed),
        (false, true) => Ok(Outcome::Found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "fault: a flush does not sync\npromise: 3\npackage: grainhaul-x\n\
                        test: --lib a::b\n\n--- a/x.rs\n+++ b/x.rs\n";

    #[test]
    fn headers_are_read_and_missing_lines_are_named() {
        let mutant = parse("flush", GOOD).unwrap();
        assert_eq!(
            (mutant.fault.as_str(), mutant.promise.as_str()),
            ("a flush does not sync", "3")
        );
        assert_eq!(mutant.test, ["--lib", "a::b"]);
        let without = GOOD.replace("promise: 3\n", "");
        assert!(parse("flush", &without).unwrap_err().contains("promise"));
        assert!(parse("flush", "fault: x\n").is_err());
    }

    #[test]
    fn a_run_without_tests_is_no_outcome() {
        let output = |n| format!("running {n} tests\ntest result: x\nrunning 0 tests\n");
        assert_eq!(judge(false, &output(2)), Ok(Outcome::Found));
        assert_eq!(judge(true, &output(1)), Ok(Outcome::Missed));
        assert!(judge(true, &output(0)).is_err());
        assert!(judge(false, "error: could not compile").is_err());
    }

    #[test]
    fn every_fault_of_the_tree_has_a_whole_header() {
        let workspace = Workspace::open().unwrap();
        let all = read_all(&workspace.top().join(FAULTS)).unwrap();
        assert!(all.len() >= 25, "{} deliberate faults", all.len());
        assert!(choose(all, &[&"no-such".to_owned()]).is_err());
    }
}
