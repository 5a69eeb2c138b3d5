//! Every Rust file is compiled: it is a root of its package or declared by a file that is.

use std::collections::BTreeSet;

use crate::tidy::modules::{declared, join};
use crate::tidy::{Finding, Rule, Tree};

/// The rule.
pub const RULE: Rule = Rule {
    name: "forgotten-files",
    why: "a test that no build reaches looks like a test that passes",
    check,
};

/// Folders of a package in which each file, and each folder with a `main.rs`, is a root.
const ROOT_FOLDERS: [&str; 4] = ["src/bin/", "tests/", "examples/", "benches/"];

fn check(tree: &Tree) -> Vec<Finding> {
    let folders: Vec<String> = tree
        .files
        .iter()
        .filter_map(|file| file.path.strip_suffix("Cargo.toml"))
        .map(str::to_owned)
        .collect();
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut waiting: Vec<&str> = Vec::new();
    for file in tree.rust() {
        // The package is the innermost folder with a manifest.
        let folder =
            folders.iter().filter(|f| file.path.starts_with(f.as_str())).max_by_key(|f| f.len());
        if folder.is_some_and(|folder| is_root(tree, folder, &file.path)) {
            waiting.push(&file.path);
        }
    }
    while let Some(path) = waiting.pop() {
        if !reached.insert(path) {
            continue;
        }
        let Some(file) = tree.rust().find(|file| file.path == path) else { continue };
        for candidate in declared(file).into_iter().flat_map(|module| module.candidates) {
            waiting.extend(tree.rust().map(|f| f.path.as_str()).find(|path| *path == candidate));
        }
    }
    tree.rust()
        .filter(|file| !reached.contains(file.path.as_str()))
        .map(|file| {
            Finding::whole(
                &file.path,
                "no `mod` leads here from a root of its package; it is never compiled",
            )
        })
        .collect()
}

fn is_root(tree: &Tree, folder: &str, path: &str) -> bool {
    let inner = &path[folder.len()..];
    if matches!(inner, "src/lib.rs" | "src/main.rs" | "build.rs") {
        return true;
    }
    let in_root_folder = ROOT_FOLDERS.iter().any(|root| {
        inner.strip_prefix(root).is_some_and(|rest| match rest.split_once('/') {
            None => true,
            Some((_, rest)) => rest == "main.rs",
        })
    });
    in_root_folder || is_named_in_manifest(tree, folder, path)
}

/// Whether the manifest names the file by a line `path = "..."`.
fn is_named_in_manifest(tree: &Tree, folder: &str, path: &str) -> bool {
    let manifest = format!("{folder}Cargo.toml");
    let Some(file) = tree.files.iter().find(|file| file.path == manifest) else { return false };
    file.text.lines().any(|line| {
        let value = line.trim().strip_prefix("path").and_then(|rest| rest.split('"').nth(1));
        value.is_some_and(|value| join(folder, value) == path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::rules::found;

    #[test]
    fn a_bad_sample_is_found() {
        let files = [
            ("a/Cargo.toml", ""),
            ("a/src/lib.rs", "mod used;\n// mod orphan;\n"),
            ("a/src/used.rs", ""),
            ("a/src/used/tests.rs", "fn never() {}"),
            ("a/src/orphan.rs", "mod child;"),
            ("a/src/orphan/child.rs", ""),
            ("a/tests/deep/case.rs", ""),
        ];
        assert_eq!(
            found(&RULE, &files),
            [
                "a/src/used/tests.rs:0",
                "a/src/orphan.rs:0",
                "a/src/orphan/child.rs:0",
                "a/tests/deep/case.rs:0"
            ]
        );
    }

    #[test]
    fn a_good_sample_passes() {
        let files = [
            ("a/Cargo.toml", "[[bin]]\npath = \"odd/place.rs\"\n"),
            ("a/src/main.rs", "mod used;"),
            ("a/src/used/mod.rs", "#[cfg(test)]\nmod tests;"),
            ("a/src/used/tests.rs", ""),
            ("a/tests/one.rs", "mod parts;"),
            ("a/tests/parts.rs", ""),
            ("a/tests/two/main.rs", "mod case;"),
            ("a/tests/two/case.rs", ""),
            ("a/odd/place.rs", ""),
            ("tests/b/Cargo.toml", ""),
            ("tests/b/src/lib.rs", ""),
        ];
        assert!(found(&RULE, &files).is_empty());
    }
}
