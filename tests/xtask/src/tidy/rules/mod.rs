//! The rules, one a file.

mod biased_select;
mod bincode_door;
mod decisions;
mod docs_index;
mod file_header;
mod file_length;
mod forgotten_files;
mod layering;
mod links;
mod names;
mod ordered_maps;
mod outside_world;
mod panics;
mod switched_off_tests;
mod thin_binaries;
mod words;

use super::Rule;

/// All rules, in the order in which they are printed.
pub const ALL: &[Rule] = &[
    layering::RULE,
    thin_binaries::RULE,
    outside_world::RULE,
    ordered_maps::RULE,
    biased_select::RULE,
    panics::RULE,
    bincode_door::RULE,
    forgotten_files::RULE,
    switched_off_tests::RULE,
    file_header::RULE,
    file_length::RULE,
    names::RULE,
    words::RULE,
    links::RULE,
    docs_index::RULE,
    decisions::RULE,
];

/// The library crates that role code is made of: they reach the world through the context alone.
const ROLE_CRATES: [&str; 4] = ["grain", "journal", "media", "replication"];

/// Whether a file is code of one of [`ROLE_CRATES`], or of the simulated disk, and not a test.
fn is_role_code(tree: &super::Tree, path: &str) -> bool {
    let in_role_crate =
        ROLE_CRATES.iter().any(|name| path.starts_with(&format!("shared/{name}/src/")));
    let in_disk = path.starts_with("shared/disk/src/") && !path.contains("/real");
    (in_role_crate || in_disk) && !tree.is_test_file(path)
}

/// Runs a rule over a sample tree; what it finds, as `path:line`.
#[cfg(test)]
fn found(rule: &Rule, files: &[(&str, &str)]) -> Vec<String> {
    let findings = (rule.check)(&super::Tree::sample(files));
    findings.into_iter().map(|finding| format!("{}:{}", finding.path, finding.line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_file_is_listed_and_proves_that_it_can_fail() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tidy/rules");
        let mut files = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with("mod.rs") {
                continue;
            }
            files += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains("fn a_bad_sample_is_found"), "{}", path.display());
            assert!(text.contains("fn a_good_sample_passes"), "{}", path.display());
        }
        assert_eq!(files, ALL.len());
        let mut names: Vec<_> = ALL.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|rule| !rule.why.is_empty()));
    }
}
