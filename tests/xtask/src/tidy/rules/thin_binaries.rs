//! The `main.rs` of a binary that ships has at most 150 lines.

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "thin-binaries",
    why: "binaries hold arguments, assembly and words; what they do lives in the libraries",
    check,
};

const LINES: usize = 150;
const BINARIES: [&str; 3] = ["primary-agent", "secondary-agent", "media-tools"];

fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| BINARIES.iter().any(|name| file.path == format!("{name}/src/main.rs")))
        .filter_map(|file| {
            let lines = file.text.lines().count();
            let words = format!("{lines} lines, more than {LINES}; one file per verb beside it");
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
        let long = "x\n".repeat(151);
        assert_eq!(
            found(&RULE, &[("primary-agent/src/main.rs", &long)]),
            ["primary-agent/src/main.rs:0"]
        );
    }

    #[test]
    fn a_good_sample_passes() {
        let long = "x\n".repeat(151);
        let fits = "x\n".repeat(150);
        let files = [("media-tools/src/main.rs", fits.as_str()), ("tests/a/src/main.rs", &long)];
        assert!(found(&RULE, &files).is_empty());
    }
}
