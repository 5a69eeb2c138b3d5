//! Dependencies between our packages run downward only.

use crate::tidy::{Finding, Package, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "layering",
    why: "what stands below must not know what stands above it, else neither can be tested alone",
    check,
};

/// Libraries from the bottom up. A package may depend on those before it.
const LAYERS: [&str; 9] =
    ["grain", "disk", "nbd", "wire", "media", "journal", "replication", "site", "agent"];

/// These stand alone: they depend on nothing of ours.
const ALONE: [&str; 1] = ["nbd"];

const BINARIES: usize = LAYERS.len();
const TESTS: usize = LAYERS.len() + 1;

/// The height of a package by its folder; `None` for a folder that is not in the table.
fn height(folder: &str) -> Option<usize> {
    match folder.split_once('/') {
        Some(("shared", name)) => LAYERS.iter().position(|layer| *layer == name),
        Some(("tests", _)) => Some(TESTS),
        None => Some(BINARIES),
        Some(_) => None,
    }
}

fn check(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for package in &tree.packages {
        let manifest = format!("{}/Cargo.toml", package.folder);
        let Some(upper) = height(&package.folder) else {
            found.push(Finding::whole(
                &manifest,
                "this folder has no place in the table of layers (tests/xtask, rule layering)",
            ));
            continue;
        };
        for name in &package.ours {
            let Some(lower) = tree.packages.iter().find(|other| other.name == *name) else {
                continue;
            };
            if let Some(words) = refusal(package, upper, lower) {
                found.push(Finding::whole(&manifest, words));
            }
        }
    }
    found
}

fn refusal(package: &Package, upper: usize, lower: &Package) -> Option<String> {
    if ALONE.iter().any(|name| package.folder == format!("shared/{name}")) {
        return Some(format!("depends on {}, but stands alone by design", lower.name));
    }
    let lower_height = height(&lower.folder)?;
    let is_fine = upper > lower_height || (upper == TESTS && lower_height == TESTS);
    (!is_fine).then(|| format!("depends on {}, which does not stand below it", lower.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(packages: &[(&str, &[&str])]) -> Vec<Finding> {
        let packages = packages
            .iter()
            .map(|(folder, ours)| Package {
                name: (*folder).to_owned(),
                folder: (*folder).to_owned(),
                ours: ours.iter().map(|name| (*name).to_owned()).collect(),
            })
            .collect();
        let mut tree = Tree::default();
        tree.packages = packages;
        check(&tree)
    }

    #[test]
    fn a_bad_sample_is_found() {
        let base: [(&str, &[&str]); 4] =
            [("shared/grain", &[]), ("shared/wire", &[]), ("tests/x", &[]), ("primary-agent", &[])];
        let with = |folder, ours| {
            let mut packages = base.to_vec();
            packages.push((folder, ours));
            findings(&packages).len()
        };
        assert_eq!(with("shared/disk", &["shared/wire"]), 1, "upward");
        assert_eq!(with("shared/nbd", &["shared/grain"]), 1, "stands alone");
        assert_eq!(with("shared/site", &["tests/x"]), 1, "product on tests");
        assert_eq!(with("media-tools", &["primary-agent"]), 1, "binary on binary");
        assert_eq!(with("shared/new", &[]), 1, "not in the table");
        assert_eq!(with("other/new", &[]), 1, "not in the table");
    }

    #[test]
    fn a_good_sample_passes() {
        let packages: [(&str, &[&str]); 6] = [
            ("shared/grain", &[]),
            ("shared/disk", &["shared/grain"]),
            ("shared/nbd", &[]),
            ("shared/replication", &["shared/grain", "shared/disk", "shared/nbd"]),
            ("primary-agent", &["shared/replication"]),
            ("tests/x", &["primary-agent", "shared/nbd"]),
        ];
        assert_eq!(findings(&packages), []);
    }
}
