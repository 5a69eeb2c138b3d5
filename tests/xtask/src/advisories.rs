//! Known faults of the packages that we build from, checked without a network.
//!
//! `tests/xtask/advisories.toml` holds the facts: which advisory is about which versions of which
//! package. A locked version that is affected fails the check unless the reason why we live with it
//! is written down. The check knows only what is in that file; `docs/dependencies.md` says how to
//! refresh it.

use std::path::Path;

use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::workspace::{Dependency, Workspace};

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisories {
    /// The day on which the sources were last read, `YYYY-MM-DD`.
    looked_at: String,
    /// Where the facts come from.
    source: String,
    advisory: Vec<Advisory>,
    #[serde(default)]
    accepted: Vec<Accepted>,
}

/// One published fault.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    id: String,
    /// Name of the package.
    package: String,
    /// What is wrong, in a few words.
    about: String,
    /// Versions without the fault; empty when there are none.
    patched: Vec<VersionReq>,
    /// Versions that never had it.
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

/// An advisory that we live with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    id: String,
    reason: String,
}

/// Checks every package in the lock file against the committed facts.
pub fn run(workspace: &Workspace) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("advisories.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let known = parse(&text)?;
    let report = compare(&known, &workspace.dependencies()?)?;
    for words in &report.accepted {
        println!("  accepted: {words}");
    }
    for words in &report.refused {
        println!("  {words}");
    }
    if report.refused.is_empty() {
        println!(
            "{} advisories known, as of {} ({}); none hits a locked version unaccepted",
            known.advisory.len(),
            known.looked_at,
            known.source
        );
        return Ok(());
    }
    Err("advisories (listed above): update the package with `cargo update -p NAME`, or write into \
         tests/xtask/advisories.toml why we can live with it"
        .to_owned())
}

fn parse(text: &str) -> Result<Advisories, String> {
    let known: Advisories =
        toml::from_str(text).map_err(|e| format!("tests/xtask/advisories.toml: {e}"))?;
    for accepted in &known.accepted {
        if accepted.reason.trim().len() < 20 {
            return Err(format!("{} is accepted without a reason", accepted.id));
        }
        if !known.advisory.iter().any(|advisory| advisory.id == accepted.id) {
            return Err(format!("{} is accepted, but no advisory has this id", accepted.id));
        }
    }
    Ok(known)
}

/// What the comparison found, in words.
#[derive(Debug, Default)]
struct Report {
    refused: Vec<String>,
    accepted: Vec<String>,
}

fn compare(known: &Advisories, packages: &[Dependency]) -> Result<Report, String> {
    let mut report = Report::default();
    for advisory in &known.advisory {
        for package in packages.iter().filter(|p| p.name == advisory.package && !p.is_ours) {
            let version = Version::parse(&package.version)
                .map_err(|e| format!("{} {}: {e}", package.name, package.version))?;
            let is_safe =
                advisory.patched.iter().chain(&advisory.unaffected).any(|r| r.matches(&version));
            if is_safe {
                continue;
            }
            let words = format!("{} {version}: {}: {}", package.name, advisory.id, advisory.about);
            match known.accepted.iter().find(|accepted| accepted.id == advisory.id) {
                Some(accepted) => report.accepted.push(format!("{words} ({})", accepted.reason)),
                None => report.refused.push(words),
            }
        }
    }
    for accepted in &known.accepted {
        if !report.accepted.iter().any(|words| words.contains(&accepted.id)) {
            report.refused.push(format!(
                "{} is accepted, but hits nothing that we build from; remove the acceptance",
                accepted.id
            ));
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "looked_at = \"2026-01-01\"\nsource = \"a sample\"\n";
    const FAULT: &str = "[[advisory]]\nid = \"X-1\"\npackage = \"a\"\nabout = \"breaks\"\n\
        patched = [\">=1.2.3\", \"^1.0.7\"]\nunaffected = [\"<0.5\"]\n";

    fn package(name: &str, version: &str) -> Dependency {
        Dependency {
            name: name.to_owned(),
            version: version.to_owned(),
            licence: None,
            is_ours: false,
        }
    }

    fn report(text: &str, version: &str) -> Report {
        let known = parse(text).unwrap();
        compare(&known, &[package("a", version), package("b", "0.6.0")]).unwrap()
    }

    #[test]
    fn an_affected_version_is_refused_and_others_are_not() {
        let text = format!("{HEAD}{FAULT}");
        for bad in ["0.5.0", "0.9.9", "1.0.6"] {
            let refused = report(&text, bad).refused;
            assert_eq!(refused, [format!("a {bad}: X-1: breaks")]);
        }
        for good in ["0.4.9", "1.0.7", "1.1.0", "1.2.3", "2.0.0"] {
            assert!(report(&text, good).refused.is_empty(), "{good}");
        }
    }

    #[test]
    fn an_accepted_one_passes_with_its_reason_and_only_while_it_is_needed() {
        let text = format!(
            "{HEAD}{FAULT}[[accepted]]\nid = \"X-1\"\nreason = \"it is behind one module\"\n"
        );
        let hit = report(&text, "1.0.0");
        assert!(hit.refused.is_empty());
        assert!(hit.accepted[0].contains("behind one module"));
        assert!(report(&text, "2.0.0").refused[0].contains("remove the acceptance"));
    }

    #[test]
    fn an_acceptance_needs_a_reason_and_an_advisory() {
        let no_reason = format!("{HEAD}{FAULT}[[accepted]]\nid = \"X-1\"\nreason = \"ok\"\n");
        assert!(parse(&no_reason).unwrap_err().contains("without a reason"));
        let unknown = format!(
            "{HEAD}{FAULT}[[accepted]]\nid = \"X-2\"\nreason = \"it is behind one module\"\n"
        );
        assert!(parse(&unknown).unwrap_err().contains("no advisory"));
    }

    #[test]
    fn the_committed_file_can_be_read() {
        let known = parse(include_str!("../advisories.toml")).unwrap();
        assert!(!known.advisory.is_empty());
    }
}
