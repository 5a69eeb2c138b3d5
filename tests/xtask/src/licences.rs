//! Licences of everything that we build from: each must be satisfiable by the list below.
//!
//! It reads what the packages declare. It does not read their files, and it knows nothing of code
//! that was copied into a package.

use spdx::{Expression, ParseMode};

use crate::workspace::{Dependency, Workspace};

/// Licences that we accept; all are permissive and ask for nothing but notices.
/// `docs/dependencies.md` says more.
const ACCEPTED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Checks every package in the lock file.
pub fn run(workspace: &Workspace) -> Result<(), String> {
    let dependencies = workspace.dependencies()?;
    let refused: Vec<String> = dependencies.iter().filter_map(refusal).collect();
    for words in &refused {
        println!("  {words}");
    }
    if refused.is_empty() {
        println!("{} packages, all under accepted licences", dependencies.len());
        report_duplicates(&dependencies);
        return Ok(());
    }
    Err(format!(
        "{} packages with a licence that is not accepted; replace them, or add the licence to \
         tests/xtask/src/licences.rs after reading it, and say so in docs/dependencies.md",
        refused.len()
    ))
}

/// Why a package is refused, if it is.
fn refusal(package: &Dependency) -> Option<String> {
    let Dependency { name, version, licence, .. } = package;
    let Some(licence) = licence else {
        return Some(format!("{name} {version} names no licence"));
    };
    match is_accepted(licence) {
        Ok(true) => None,
        Ok(false) => Some(format!("{name} {version} is under {licence}")),
        Err(e) => Some(format!("{name} {version}: `{licence}` is no SPDX expression: {e}")),
    }
}

/// Whether the accepted licences satisfy an expression. Old forms (`MIT/Apache-2.0`) are read too.
fn is_accepted(licence: &str) -> Result<bool, String> {
    let expression =
        Expression::parse_mode(licence, ParseMode::LAX).map_err(|e| e.reason.to_string())?;
    Ok(expression.evaluate(|requirement| {
        let wanted = requirement.to_string();
        ACCEPTED.contains(&wanted.as_str())
    }))
}

/// Two versions of one package are not a fault, but somebody should see them.
fn report_duplicates(dependencies: &[Dependency]) {
    let twice: Vec<String> = dependencies
        .chunk_by(|a, b| a.name == b.name)
        .filter(|same| same.len() > 1)
        .map(|same| {
            let versions: Vec<_> = same.iter().map(|package| package.version.as_str()).collect();
            format!("{} ({})", same[0].name, versions.join(", "))
        })
        .collect();
    if !twice.is_empty() {
        println!("in more than one version: {}", twice.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(licence: Option<&str>) -> Dependency {
        Dependency {
            name: "sample".to_owned(),
            version: "1.0.0".to_owned(),
            licence: licence.map(str::to_owned),
            is_ours: false,
        }
    }

    #[test]
    fn accepted_licences_pass() {
        for licence in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0-only",
            "ISC AND (Apache-2.0 OR ISC)",
        ] {
            assert_eq!(refusal(&package(Some(licence))), None, "{licence}");
        }
    }

    #[test]
    fn what_is_not_accepted_is_named() {
        for licence in [
            "GPL-3.0-only",
            "MIT AND GPL-2.0-or-later",
            "SSPL-1.0",
            "MPL-2.0",
            "Apache-2.0 WITH Classpath-exception-2.0",
        ] {
            let words = refusal(&package(Some(licence))).unwrap();
            assert!(words.contains("sample 1.0.0 is under"), "{words}");
        }
        assert!(refusal(&package(None)).unwrap().contains("names no licence"));
        assert!(refusal(&package(Some("my own"))).unwrap().contains("no SPDX expression"));
    }
}
