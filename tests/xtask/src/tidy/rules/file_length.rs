//! A Rust file has at most 500 lines.

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "file-length",
    why: "a file is one idea; a file that outgrows 500 lines holds several",
    check,
};

const LINES: usize = 500;

fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter_map(|file| {
            let lines = file.text.lines().count();
            let words = format!("{lines} lines, more than {LINES}; split it by what it is about");
            (lines > LINES).then(|| Finding::whole(&file.path, words))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        assert_eq!(found(&RULE, &[("a.rs", &"x\n".repeat(501))]), ["a.rs:0"]);
    }

    #[test]
    fn a_good_sample_passes() {
        assert!(
            found(&RULE, &[("a.rs", &"x\n".repeat(500)), ("a.md", &"x\n".repeat(900))]).is_empty()
        );
    }
}
