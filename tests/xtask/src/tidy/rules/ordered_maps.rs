//! Role code keeps its maps and sets in an order of its own.

use super::is_role_code;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "ordered-maps",
    why: "the order of a hash map changes with every run, and a history must replay bit for bit",
    check,
};

const FORBIDDEN: [&str; 5] = ["HashMap", "HashSet", "RandomState", "IndexMap", "DashMap"];

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust().filter(|file| is_role_code(tree, &file.path)) {
        for word in FORBIDDEN {
            for offset in file.find_word(word).filter(|&offset| !file.is_test_at(offset)) {
                let words = format!("`{word}`: take `BTreeMap` or `BTreeSet`");
                found.push(Finding::at(file, offset, words));
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
        let text = "use std::collections::HashMap;\ntype A = HashSet<u8>;\n";
        assert_eq!(
            found(&RULE, &[("shared/journal/src/a.rs", text)]),
            ["shared/journal/src/a.rs:1", "shared/journal/src/a.rs:2"]
        );
    }

    #[test]
    fn a_good_sample_passes() {
        let files = [
            ("shared/journal/src/a.rs", "use std::collections::BTreeMap; // not HashMap"),
            ("shared/site/src/a.rs", "use std::collections::HashMap;"),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}
