//! Every Rust file opens with `//!`.

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "file-header",
    why: "a file says first what it is for, what it promises and what it does not do",
    check,
};

fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| {
            let first = file.text.lines().next().unwrap_or("");
            first.strip_prefix("//!").is_none_or(|words| words.trim().is_empty())
        })
        .map(|file| Finding::whole(&file.path, "does not open with `//!` and what it is for"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let files = [("a.rs", "fn f() {}\n"), ("b.rs", "//!\n"), ("c.rs", ""), ("d.rs", "// x\n")];
        assert_eq!(found(&RULE, &files), ["a.rs:0", "b.rs:0", "c.rs:0", "d.rs:0"]);
    }

    #[test]
    fn a_good_sample_passes() {
        assert!(found(&RULE, &[("a.rs", "//! Says what it is for.\nfn f() {}\n")]).is_empty());
    }
}
