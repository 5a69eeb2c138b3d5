//! No module, folder or package is called after the fact that it had no better name.

use crate::tidy::source::find_word;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "names",
    why: "a thing lives with what it is about; a drawer for odds and ends only grows",
    check,
};

const FORBIDDEN: [&str; 7] = ["utils", "util", "common", "helpers", "helper", "misc", "stuff"];

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for path in &tree.paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        let stem = name.strip_suffix(".rs").unwrap_or(name);
        if FORBIDDEN.contains(&stem) {
            found.push(Finding::whole(path, format!("`{stem}` does not say what it is about")));
        }
    }
    for file in tree.rust() {
        for name in FORBIDDEN {
            let inline = format!("mod {name}");
            for offset in find_word(&file.code, &inline) {
                found.push(Finding::at(
                    file,
                    offset,
                    format!("`{inline}` does not say what it is about"),
                ));
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
        let files =
            [("a/utils.rs", ""), ("b/common/mod.rs", ""), ("c.rs", "\npub mod helpers {}\n")];
        assert_eq!(found(&RULE, &files), ["a/utils.rs:0", "b/common:0", "c.rs:2"]);
    }

    #[test]
    fn a_good_sample_passes() {
        assert!(
            found(&RULE, &[("a/common_cut.rs", "mod common_cut;"), ("util.md", "")]).is_empty()
        );
    }
}
