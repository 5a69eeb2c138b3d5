//! Pages of `docs/decisions/` are called `NNNN-title.md`, with a number of their own.

use std::collections::BTreeMap;

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule { name: "decisions", why: "a decision is quoted by its number", check };

const FOLDER: &str = "docs/decisions/";

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for path in tree.files.iter().map(|file| file.path.as_str()) {
        let Some(name) = path.strip_prefix(FOLDER) else { continue };
        let number = name.split('-').next().unwrap_or("");
        let is_number = number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit());
        if !is_number || !name.ends_with(".md") || name.len() <= "0000-.md".len() {
            found.push(Finding::whole(path, "is not called NNNN-title.md"));
        } else if let Some(first) = seen.insert(number, path) {
            found.push(Finding::whole(path, format!("has the number of {first}")));
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
            ("docs/decisions/0001-a.md", ""),
            ("docs/decisions/0001-b.md", ""),
            ("docs/decisions/12-c.md", ""),
            ("docs/decisions/0002-.md", ""),
        ];
        assert_eq!(
            found(&RULE, &files),
            ["docs/decisions/0001-b.md:0", "docs/decisions/12-c.md:0", "docs/decisions/0002-.md:0"]
        );
    }

    #[test]
    fn a_good_sample_passes() {
        let files = [("docs/decisions/0001-a.md", ""), ("docs/decisions/0002-a.md", "")];
        assert!(found(&RULE, &files).is_empty());
    }
}
