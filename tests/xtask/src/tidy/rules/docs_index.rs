//! Every page of `docs/` can be found from `docs/README.md`.

use super::links::targets;
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "docs-index",
    why: "a page that no index names is not found by those who need it",
    check,
};

const INDEX: &str = "docs/README.md";

fn check(tree: &Tree) -> Vec<Finding> {
    let index = tree.files.iter().find(|file| file.path == INDEX);
    let listed: Vec<String> = index
        .map(|index| targets(index).into_iter().filter_map(|link| link.path).collect())
        .unwrap_or_default();
    tree.files
        .iter()
        .map(|file| file.path.as_str())
        .filter(|path| path.starts_with("docs/") && path.ends_with(".md") && *path != INDEX)
        .filter(|path| !listed.iter().any(|listed| listed == path))
        .map(|path| Finding::whole(path, format!("is not linked from {INDEX}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let files = [
            ("docs/README.md", "[a](formats/a.md)\n```\n[b](formats/b.md)\n```\n"),
            ("docs/formats/a.md", ""),
            ("docs/formats/b.md", ""),
        ];
        assert_eq!(found(&RULE, &files), ["docs/formats/b.md:0"]);
        assert_eq!(found(&RULE, &[("docs/x.md", "")]), ["docs/x.md:0"]);
    }

    #[test]
    fn a_good_sample_passes() {
        let files = [
            ("docs/README.md", "[a](formats/a.md#top)"),
            ("docs/formats/a.md", ""),
            ("docs/bench/raw.txt", ""),
            ("README.md", ""),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}
