//! In each package at most one file names `bincode`.

use std::collections::BTreeMap;

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "bincode-door",
    why: "nobody maintains bincode any more: a package has one door to it, with its limits, so that \
          it can be replaced there",
    check,
};

fn check(tree: &Tree) -> Vec<Finding> {
    let mut doors: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in tree.rust().filter(|file| !tree.is_test_file(&file.path)) {
        let package = file.path.split("/src/").next().unwrap_or("");
        if file.find_word("bincode").any(|offset| !file.is_test_at(offset)) {
            doors.entry(package).or_default().push(&file.path);
        }
    }
    let crowded = doors.into_values().filter(|files| files.len() > 1);
    crowded
        .flat_map(|files| {
            let first = files[0].to_owned();
            let words = format!("names `bincode`, and so does {first}; one of them is the door");
            files.into_iter().skip(1).map(move |path| Finding::whole(path, words.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let files = [
            ("shared/wire/src/a.rs", "use bincode::config;"),
            ("shared/wire/src/b.rs", "fn f() { bincode::serde::x() }"),
        ];
        assert_eq!(found(&RULE, &files), ["shared/wire/src/b.rs:0"]);
    }

    #[test]
    fn a_good_sample_passes() {
        let files = [
            ("shared/wire/src/a.rs", "use bincode::config;"),
            ("shared/wire/src/b.rs", "// bincode\n#[cfg(test)]\nmod t { use bincode::x; }"),
            ("shared/wire/src/a/tests.rs", "use bincode::config;"),
            ("shared/media/src/a.rs", "use bincode::config;"),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}
