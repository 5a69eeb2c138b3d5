//! House rules that a machine can check: `cargo xtask tidy`.
//!
//! Each rule is one file in `rules/`, a pure function over the [`Tree`], with tests that show it a
//! bad sample. What the compiler, rustfmt and clippy can say is left to them. Rules are about the
//! text of the tree; they do not prove that the code is right.

mod modules;
mod paths;
mod rules;
mod source;
mod tree;

use crate::workspace::Workspace;
pub use tree::Package;
use tree::Tree;

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the top of the tree.
    pub path: String,
    /// Line, counted from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong, and what to do.
    pub words: String,
}

impl Finding {
    fn whole(path: &str, words: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: 0, words: words.into() }
    }

    fn at(file: &source::Source, offset: usize, words: impl Into<String>) -> Self {
        Self { path: file.path.clone(), line: file.line_of(offset), words: words.into() }
    }
}

/// One rule.
struct Rule {
    /// Its name, as printed.
    name: &'static str,
    /// Why it is there.
    why: &'static str,
    /// Finds the breaches.
    check: fn(&Tree) -> Vec<Finding>,
}

/// Checks the whole tree; prints what is wrong and fails if anything is.
pub fn run(workspace: &Workspace) -> Result<(), String> {
    let packages = workspace.own_packages()?;
    let tree =
        Tree::read(workspace.top(), packages).map_err(|e| format!("cannot read the tree: {e}"))?;
    let mut total = 0;
    for rule in rules::ALL {
        let mut findings = (rule.check)(&tree);
        findings.sort();
        findings.dedup();
        if findings.is_empty() {
            continue;
        }
        total += findings.len();
        println!("{}: {}", rule.name, rule.why);
        for finding in findings {
            match finding.line {
                0 => println!("  {}: {}", finding.path, finding.words),
                line => println!("  {}:{line}: {}", finding.path, finding.words),
            }
        }
    }
    if total == 0 {
        println!("{} files, {} rules, nothing to say", tree.files.len(), rules::ALL.len());
        return Ok(());
    }
    Err(format!("{total} breaches of the house rules (listed above); mend the files named"))
}
