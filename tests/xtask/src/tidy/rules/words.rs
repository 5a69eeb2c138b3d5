//! Words that do not belong into what we hand out.

use crate::tidy::source::find_word;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "words",
    why: "what is open belongs into an issue, and where packages come from is the builder's choice",
    check,
};

// Each is put together from halves, so that this file passes its own rule.
const FORBIDDEN: [&str; 11] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK:"),
    concat!("crates", ".io"),
    concat!("npm", "js.org"),
    concat!("npm", "js.com"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("rubygems", ".org"),
    concat!("deb.debian", ".org"),
];

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in &tree.files {
        for word in FORBIDDEN {
            for offset in find_word(&file.text, word) {
                found.push(Finding::at(file, offset, format!("`{word}` has no place here")));
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
        for word in FORBIDDEN {
            assert_eq!(found(&RULE, &[("a.rs", &format!("\n// {word} x"))]), ["a.rs:2"], "{word}");
            assert_eq!(found(&RULE, &[("docs/a.md", &format!("({word})"))]), ["docs/a.md:1"]);
        }
    }

    #[test]
    fn a_good_sample_passes() {
        assert!(found(&RULE, &[("a.md", concat!("XX", "XX and TO", "DOS and hack"))]).is_empty());
    }
}
