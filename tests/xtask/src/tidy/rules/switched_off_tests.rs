//! No test is switched off.

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "switched-off-tests",
    why: "a test that does not run protects nothing; mend it or remove it with its reason",
    check,
};

/// In Rust files.
const IN_CODE: [&str; 4] = ["#[ignore", "#[cfg(any())]", "#[cfg(all(test, any()", "#![cfg(any())]"];

/// In manifests, at the start of a line.
const IN_MANIFESTS: [&str; 3] = ["autotests=false", "test=false", "autobins=false"];

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for word in IN_CODE {
            for (offset, _) in file.code.match_indices(word) {
                found.push(Finding::at(file, offset, format!("`{word}` switches it off")));
            }
        }
    }
    for file in tree.files.iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        for (number, line) in file.text.lines().enumerate() {
            let line: String = line.chars().filter(|c| !c.is_whitespace()).collect();
            if IN_MANIFESTS.iter().any(|word| line.starts_with(word)) {
                let words = format!("`{line}` switches tests off");
                found.push(Finding { path: file.path.clone(), line: number + 1, words });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let files = [
            ("a.rs", "#[test]\n#[ignore]\nfn a() {}\n#[ignore = \"slow\"]\n#[cfg(any())]\n"),
            ("b/Cargo.toml", "[lib]\ntest = false\n"),
        ];
        assert_eq!(found(&RULE, &files), ["a.rs:2", "a.rs:4", "a.rs:5", "b/Cargo.toml:2"]);
    }

    #[test]
    fn a_good_sample_passes() {
        let files = [
            ("a.rs", "// #[ignore]\n#[cfg(any(unix, test))]\n#[test]\nfn a() {}\n"),
            ("b/Cargo.toml", "[lib]\ndoctest = false\n"),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}
