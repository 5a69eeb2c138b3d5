//! Every `select!` is `biased`.

use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "biased-select",
    why: "an unbiased select draws its own random numbers, and nobody can replay them",
    check,
};

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for offset in file.find_word("select!") {
            let body = file.code[offset + "select!".len()..].trim_start();
            let is_call = body.starts_with(['{', '(', '[']);
            let first = body.get(1..).unwrap_or("").trim_start();
            if is_call && !first.starts_with("biased;") {
                found.push(Finding::at(file, offset, "begin it with `biased;`"));
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
        let text = "\ntokio::select! {\n    a = b => {}\n}\n";
        assert_eq!(found(&RULE, &[("a.rs", text)]), ["a.rs:2"]);
    }

    #[test]
    fn a_good_sample_passes() {
        let text =
            "// select! { a }\ntokio::select! {\n    // first\n    biased;\n    a = b => {}\n}\n";
        assert!(found(&RULE, &[("a.rs", text)]).is_empty());
    }
}
