//! The workspace as cargo describes it, and the shell in which the tasks run.

use std::path::{Path, PathBuf};

use serde_json::Value;
use xshell::{Shell, cmd};

use crate::tidy::Package;

/// The top of the tree and a shell that stands in it.
pub struct Workspace {
    top: PathBuf,
    shell: Shell,
}

/// A package that is built from, ours or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression; `None` when the package does not say.
    pub licence: Option<String>,
    /// True for a package of this workspace.
    pub is_ours: bool,
}

impl Workspace {
    /// Finds the tree that this program was built from.
    pub fn open() -> Result<Self, String> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let top = package.ancestors().nth(2).ok_or("the package has no workspace above it")?;
        let shell = Shell::new().map_err(|e| e.to_string())?;
        shell.change_dir(top);
        Ok(Self { top: top.to_owned(), shell })
    }

    /// The top of the tree.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The shell; its directory is the top of the tree.
    pub fn shell(&self) -> &Shell {
        &self.shell
    }

    /// The packages of this workspace and what they need of each other.
    pub fn own_packages(&self) -> Result<Vec<Package>, String> {
        let metadata = self.metadata(&["--no-deps"])?;
        let top = self.top.to_string_lossy().into_owned();
        packages(&metadata).map(|package| own_package(package, &top)).collect()
    }

    /// Every package in the lock file, for any platform, sorted.
    pub fn dependencies(&self) -> Result<Vec<Dependency>, String> {
        let metadata = self.metadata(&[])?;
        let mut found = packages(&metadata)
            .map(|package| {
                Ok(Dependency {
                    name: text(package, "name")?,
                    version: text(package, "version")?,
                    licence: package["license"].as_str().map(str::to_owned),
                    is_ours: package["source"].is_null(),
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        found.sort();
        Ok(found)
    }

    /// Whether a package has a binary of this name.
    pub fn has_binary(&self, package: &str, binary: &str) -> Result<bool, String> {
        let metadata = self.metadata(&["--no-deps"])?;
        let is_it = |target: &Value| {
            target["name"] == binary
                && target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "bin"))
        };
        Ok(packages(&metadata)
            .filter(|found| found["name"] == package)
            .filter_map(|found| found["targets"].as_array())
            .any(|targets| targets.iter().any(is_it)))
    }

    fn metadata(&self, more: &[&str]) -> Result<Value, String> {
        let shell = &self.shell;
        let out = cmd!(shell, "cargo metadata --offline --locked --format-version 1 {more...}")
            .quiet()
            .read()
            .map_err(|e| format!("{e}; run `cargo fetch --locked` first"))?;
        serde_json::from_str(&out).map_err(|e| format!("cargo metadata: {e}"))
    }
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text(package: &Value, key: &str) -> Result<String, String> {
    let value = package[key].as_str();
    value.map(str::to_owned).ok_or_else(|| format!("cargo metadata: a package without `{key}`"))
}

fn own_package(package: &Value, top: &str) -> Result<Package, String> {
    let manifest = text(package, "manifest_path")?;
    let folder = manifest
        .strip_prefix(top)
        .and_then(|path| path.strip_suffix("/Cargo.toml"))
        .ok_or_else(|| format!("{manifest} is not below {top}"))?;
    let ours = package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|dependency| dependency["path"].is_string())
        .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned))
        .collect();
    Ok(Package {
        name: text(package, "name")?,
        folder: folder.trim_start_matches('/').to_owned(),
        ours,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_packages_and_their_needs_are_seen() {
        let packages = Workspace::open().unwrap().own_packages().unwrap();
        let site = packages.iter().find(|package| package.name == "grainhaul-site").unwrap();
        assert_eq!(site.folder, "shared/site");
        assert!(site.ours.contains(&"grainhaul-disk".to_owned()), "{:?}", site.ours);
    }
}
