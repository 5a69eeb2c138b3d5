//! A relationship at one site, from its first command to its daemon: keys, `init` at both ends,
//! opening what is there.
//!
//! Below the state directory: `site.key`, and one directory a relationship under `relationships/`.

mod init;
mod keys;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use disk::Context;
use replication::state::{Role, StateStore};
use site::location::{DirLock, Name, RelationshipDir, StateDir};
use wire::{Identity, SiteKeys};

pub use init::{
    InitReplica, InitSource, Initialised, VolumeArgument, default_grain, init_replica, init_source,
};
pub use keys::{load_keys, load_or_make_keys};

/// What goes wrong before a daemon runs.
#[derive(Debug, thiserror::Error)]
pub enum RelationshipError {
    /// The operator asked for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// There is one already.
    #[error("the relationship `{0}` exists already")]
    Exists(String),
    /// It has the other role.
    #[error("`{name}` is a {is:?} at this site, not a {wanted:?}")]
    WrongRole {
        /// Its name.
        name: String,
        /// What it is.
        is: Role,
        /// What is needed.
        wanted: Role,
    },
    /// A file operation.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The state directory.
    #[error(transparent)]
    Site(#[from] site::Error),
    /// Keys, tickets, identities.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// The state or the volumes.
    #[error(transparent)]
    Replication(#[from] replication::Error),
}

impl RelationshipError {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(
        what: &'static str,
        path: &Path,
    ) -> impl FnOnce(std::io::Error) -> RelationshipError {
        let path = path.to_owned();
        move |source| RelationshipError::Io { what, path, source }
    }
}

/// A relationship that is there: its directory, its state, the site's keys.
pub struct Relationship {
    /// Its directory.
    pub dir: RelationshipDir,
    /// Its state.
    pub store: StateStore,
    /// The site's keys.
    pub keys: Arc<SiteKeys>,
    /// The same for the thread of the relationship.
    pub local_keys: Rc<SiteKeys>,
}

impl Relationship {
    /// Opens what `init` made. Takes no lock.
    pub async fn open(
        ctx: &Context,
        state: &StateDir,
        name: &Name,
    ) -> Result<Relationship, RelationshipError> {
        let dir = state.existing(name)?;
        let store = StateStore::open(ctx, dir.path()).await?;
        let keys = Arc::new(load_keys(ctx, state).await?);
        let local_keys = Rc::new(load_keys(ctx, state).await?);
        Ok(Relationship { dir, store, keys, local_keys })
    }

    /// The same under the relationship's lock, which lasts as long as what is given with it; with a role, fails
    /// unless the site has it.
    pub async fn open_locked(
        ctx: &Context,
        state: &StateDir,
        name: &Name,
        role: Option<Role>,
    ) -> Result<(Relationship, DirLock), RelationshipError> {
        let found = Relationship::open(ctx, state, name).await?;
        role.map_or(Ok(()), |role| found.require(role))?;
        let lock = found.dir.lock()?;
        // The state may have changed until the lock was ours.
        let found = Relationship::open(ctx, state, name).await?;
        role.map_or(Ok(()), |role| found.require(role))?;
        Ok((found, lock))
    }

    /// Fails unless the site has this role.
    pub fn require(&self, wanted: Role) -> Result<(), RelationshipError> {
        let is = self.store.with(|s| s.role);
        if is == wanted {
            return Ok(());
        }
        let name = self.dir.name().to_string();
        Err(RelationshipError::WrongRole { name, is, wanted })
    }

    /// The identities of the peers.
    pub fn peers(&self) -> Result<Vec<Identity>, RelationshipError> {
        let texts: Vec<String> =
            self.store.with(|s| s.peers.iter().map(|p| p.identity.clone()).collect());
        Ok(texts.iter().map(|t| t.parse()).collect::<Result<_, wire::Error>>()?)
    }
}
