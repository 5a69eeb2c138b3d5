//! All files that the tidy rules look at, and the dependencies between our packages.
//!
//! The tree is read once; rules are pure functions over it, so that each can be shown a bad sample
//! made of a few lines.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::modules;
use super::source::Source;

/// What the rules look at.
#[derive(Debug, Default)]
pub struct Tree {
    /// Text files, sorted by path.
    pub files: Vec<Source>,
    /// Every path, of directories too, from the top of the tree.
    pub paths: BTreeSet<String>,
    /// Our packages.
    pub packages: Vec<Package>,
    /// Paths of files that a `#[cfg(test)] mod` declares, whether they are there or not.
    declared_for_tests: BTreeSet<String>,
}

/// One package of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its folder from the top of the tree, with `/`.
    pub folder: String,
    /// The names of those of our packages that it depends on, for tests too.
    pub ours: Vec<String>,
}

/// Endings of files that are read as text.
const TEXT: [&str; 9] = ["rs", "md", "toml", "sh", "json", "txt", "py", "yml", "yaml"];

impl Tree {
    /// Reads the tree below `top`; build output and what git keeps for itself are left out.
    pub fn read(top: &Path, packages: Vec<Package>) -> io::Result<Self> {
        let mut tree = Self { packages, ..Self::default() };
        tree.walk(top, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree.note_test_modules();
        Ok(tree)
    }

    fn walk(&mut self, dir: &Path, prefix: &str) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                // Cargo puts this file into every directory that it builds in.
                let is_built = entry.path().join("CACHEDIR.TAG").exists();
                if name != ".git" && name != "target" && !is_built {
                    self.paths.insert(path.clone());
                    self.walk(&entry.path(), &format!("{path}/"))?;
                }
            } else if kind.is_file() {
                self.paths.insert(path.clone());
                let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
                if TEXT.contains(&ending) || prefix == ".ci/" {
                    let text = std::fs::read_to_string(entry.path())
                        .map_err(|e| io::Error::new(e.kind(), format!("{path}: {e}")))?;
                    self.files.push(Source::new(&path, &text));
                }
            }
        }
        Ok(())
    }

    /// The Rust files.
    pub fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// Whether a path is in the tree.
    pub fn has(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// Whether a file holds tests only: it stands in a folder `tests`, is called `tests.rs`, or is
    /// declared by a `#[cfg(test)] mod` somewhere.
    pub fn is_test_file(&self, path: &str) -> bool {
        let folders_or_name = path.split('/').any(|part| part == "tests" || part == "tests.rs");
        folders_or_name || self.declared_for_tests.contains(path)
    }

    fn note_test_modules(&mut self) {
        let declared = self.rust().flat_map(|file| {
            let modules = modules::declared(file).into_iter();
            modules.filter(|module| file.is_test_at(module.offset)).flat_map(|m| m.candidates)
        });
        self.declared_for_tests = declared.collect();
    }

    /// A tree made of a few files, for the tests of the rules.
    #[cfg(test)]
    pub fn sample(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            let mut folder = String::new();
            for part in path.split('/') {
                folder.push_str(part);
                tree.paths.insert(folder.clone());
                folder.push('/');
            }
            tree.files.push(Source::new(path, text));
        }
        tree.note_test_modules();
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_tests_are_known() {
        let tree = Tree::sample(&[
            ("shared/a/src/lib.rs", "#[cfg(test)]\nmod oracle;\nmod plain;\n"),
            ("shared/a/src/oracle.rs", ""),
            ("shared/a/src/plain.rs", ""),
            ("shared/a/src/plain/tests.rs", ""),
            ("shared/a/tests/whole.rs", ""),
        ]);
        let of_tests: Vec<_> = tree
            .rust()
            .map(|file| file.path.as_str())
            .filter(|path| tree.is_test_file(path))
            .collect();
        assert_eq!(
            of_tests,
            ["shared/a/src/oracle.rs", "shared/a/src/plain/tests.rs", "shared/a/tests/whole.rs"]
        );
    }

    #[test]
    fn a_tree_is_read_without_what_is_built() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        for path in
            ["a.rs", ".ci/run", "b/c.md", "b/d.bin", ".git/e.rs", "target/f.rs", "o/CACHEDIR.TAG"]
        {
            put(path);
        }
        put("o/g.rs");
        let tree = Tree::read(dir.path(), Vec::new()).unwrap();
        let files: Vec<_> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(files, [".ci/run", "a.rs", "b/c.md"]);
        assert!(tree.has("b/d.bin") && tree.has("b"));
    }
}
