//! Programs of others that a test needs: found, or named with the line that installs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A program that is installed.
#[derive(Clone, Debug)]
pub struct Tool {
    path: PathBuf,
}

impl Tool {
    /// Finds `name` in `PATH` or in the system's administration folders.
    ///
    /// # Panics
    /// With the line that installs `package`, when it is not there: a test that needs a tool and does
    /// not have it fails, it does not pass unseen.
    pub fn require(name: &str, package: &str) -> Tool {
        Tool::find(name).unwrap_or_else(|| {
            panic!("this test needs `{name}`, which is not installed: apt-get install {package}")
        })
    }

    /// As [`Tool::require`], for those who have another way without it.
    pub fn find(name: &str) -> Option<Tool> {
        let listed = std::env::var_os("PATH").unwrap_or_default();
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::split_paths(&listed)
            .chain(system)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .map(|path| Tool { path })
    }

    /// The program at `path`.
    ///
    /// # Panics
    /// As [`Tool::require`], when nothing is there.
    pub fn at(path: PathBuf, package: &str) -> Tool {
        let name = path.display();
        assert!(path.is_file(), "this test needs `{name}`: apt-get install {package}");
        Tool { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command line that begins with it.
    pub fn command(&self) -> Command {
        Command::new(&self.path)
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// With what it wrote, when it fails.
    pub fn run<I, S>(&self, arguments: I) -> Output
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        let mut command = self.command();
        command.args(arguments);
        succeed(command)
    }

    /// Runs it to its end and returns its standard output as text.
    ///
    /// # Panics
    /// As [`Tool::run`].
    pub fn text<I, S>(&self, arguments: I) -> String
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        String::from_utf8_lossy(&self.run(arguments).stdout).into_owned()
    }
}

/// Runs a command to its end.
///
/// # Panics
/// With what it wrote, when it fails.
pub(crate) fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_runs_and_answers() {
        assert_eq!(Tool::require("echo", "coreutils").text(["a", "b"]), "a b\n");
    }

    #[test]
    #[should_panic(expected = "apt-get install no-such-package")]
    fn a_missing_tool_says_how_to_install_it() {
        Tool::require("no-such-tool-anywhere", "no-such-package");
    }

    #[test]
    #[should_panic(expected = "exit status: 3")]
    fn a_failing_tool_fails_the_test() {
        Tool::require("sh", "dash").run(["-c", "exit 3"]);
    }
}
