//! Where state lives, and who may use it.
//!
//! ```text
//! STATE/site.key                      the site's keys (0600)
//! STATE/relationships/NAME/state.json identity, geometry, lineage, peers
//! STATE/relationships/NAME/layers/    maps of what was written
//! STATE/relationships/NAME/journal/   the replica's redo journal
//! STATE/relationships/NAME/frozen.json  marker of a hook that froze the application
//! STATE/relationships/NAME/control.sock the control socket (0600)
//! STATE/relationships/NAME/lock       held by the process that serves it; its pid inside
//! ```
//!
//! STATE is `--state-dir`, else `GRAINHAUL_STATE`, else `/var/lib/grainhaul` for root and
//! `$XDG_STATE_HOME/grainhaul` or `~/.local/state/grainhaul` for others. It is 0700, and one that others
//! can enter is refused: the keys are in it.

mod lock;
mod name;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use lock::DirLock;
pub use name::Name;

use crate::{Error, Result};

/// The environment variable that names the state directory.
pub const STATE_VARIABLE: &str = "GRAINHAUL_STATE";

/// A state directory, see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

/// What the choice of a state directory depends on, beside the option.
struct Surroundings {
    is_root: bool,
    variable: Box<Variables>,
}

/// Looks up an environment variable.
type Variables = dyn Fn(&str) -> Option<OsString>;

impl StateDir {
    /// Chooses the state directory; `option` is that of `--state-dir`. Makes nothing.
    pub fn choose(option: Option<&Path>) -> Result<StateDir> {
        let around = Surroundings {
            is_root: rustix::process::geteuid().is_root(),
            variable: Box::new(|name| std::env::var_os(name)),
        };
        let root = choose(option, &around)?;
        let root = std::path::absolute(&root).map_err(Error::io("find", root))?;
        Ok(StateDir { root })
    }

    /// The directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory (0700) if it is missing, and refuses one that others can enter.
    pub fn prepare(&self) -> Result<()> {
        make_private(&self.root)?;
        let found = fs::metadata(&self.root).map_err(Error::io("look at", &self.root))?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::NotPrivate { path: self.root.clone(), mode });
        }
        Ok(())
    }

    /// The file of the site's keys.
    pub fn site_key(&self) -> PathBuf {
        self.root.join("site.key")
    }

    /// The directory of a relationship, whether or not it exists.
    pub fn relationship(&self, name: &Name) -> RelationshipDir {
        let path = self.root.join("relationships").join(name.as_str());
        RelationshipDir { name: name.clone(), path }
    }

    /// The directory of a relationship that exists here.
    pub fn existing(&self, name: &Name) -> Result<RelationshipDir> {
        let dir = self.relationship(name);
        match dir.state_file().try_exists() {
            Ok(true) => Ok(dir),
            Ok(false) => {
                Err(Error::NoRelationship { name: name.to_string(), root: self.root.clone() })
            }
            Err(error) => Err(Error::io("look at", dir.state_file())(error)),
        }
    }

    /// The names of all relationships here, in order.
    pub fn relationships(&self) -> Result<Vec<Name>> {
        let folder = self.root.join("relationships");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(Error::io("list", &folder))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &folder))?;
            // What has no proper name, or no state, was not made by us.
            let name = entry.file_name().to_str().and_then(|name| name.parse::<Name>().ok());
            if let Some(name) = name.filter(|name| self.relationship(name).state_file().exists()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// The directory of one relationship, see the module. Paths only; nothing need exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationshipDir {
    name: Name,
    path: PathBuf,
}

impl RelationshipDir {
    /// The relationship's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory (0700) if it is missing.
    pub fn prepare(&self) -> Result<()> {
        make_private(&self.path)
    }

    /// Identity, geometry, lineage, peers.
    pub fn state_file(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// The folder of layers.
    pub fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// The folder of the replica's journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// The folder of what a replica was before.
    pub fn history(&self) -> PathBuf {
        self.path.join("history")
    }

    /// The marker of a frozen application.
    pub fn frozen_marker(&self) -> PathBuf {
        self.path.join("frozen.json")
    }

    /// The control socket.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Takes the relationship for this process, until the lock is dropped.
    pub fn lock(&self) -> Result<DirLock> {
        DirLock::take(&self.name, &self.path.join("lock"))
    }
}

fn make_private(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(Error::io("make", path))
}

fn choose(option: Option<&Path>, around: &Surroundings) -> Result<PathBuf> {
    if let Some(option) = option {
        return Ok(option.to_owned());
    }
    // An empty variable counts as unset, and so does a relative XDG_STATE_HOME, as its specification
    // has it.
    let set = |name: &str| (around.variable)(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(chosen) = set(STATE_VARIABLE) {
        return Ok(chosen);
    }
    if around.is_root {
        return Ok(PathBuf::from("/var/lib/grainhaul"));
    }
    if let Some(base) = set("XDG_STATE_HOME").filter(|base| base.is_absolute()) {
        return Ok(base.join("grainhaul"));
    }
    set("HOME").map(|home| home.join(".local/state/grainhaul")).ok_or(Error::NoStateDir)
}

#[cfg(test)]
mod tests;
