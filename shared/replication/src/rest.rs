//! What a stopped site lacks, read from its files: without its lock, and without changing one.
//!
//! It is a look from outside. A file that cannot be read, or an agent that starts at this very moment,
//! leaves something unknown, and then it is said so, never guessed.

use std::path::Path;

use disk::Context;
use grain::GrainSet;

use crate::Result;
use crate::map::MapKind;
use crate::replica::Condition;
use crate::source::Owed;
use crate::state::{LayerRef, Role, StateStore};
use crate::track::{MapPool, recover};

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct AtRest {
    /// Source: written here, and not at every peer.
    pub dirty: Option<GrainSet>,
    /// Source: of it, only because of a power cut.
    pub suspected: GrainSet,
    /// Replica: should be held and is not.
    pub damaged: Option<GrainSet>,
    /// Replica: waits for its medium.
    pub unloaded: Option<GrainSet>,
    /// Replica: what it is.
    pub condition: Option<Condition>,
    /// What cannot be told while the agent does not run, in words.
    pub unknown: Vec<String>,
}

/// Looks at the site whose state is in `dir`.
pub async fn at_rest(ctx: &Context, dir: &Path, store: &StateStore) -> AtRest {
    let pool = MapPool::to_read(ctx, dir, store);
    let mut found = AtRest::default();
    match store.with(|s| s.role) {
        Role::Source => of_source(&pool, store, &mut found).await,
        Role::Replica => of_replica(&pool, store, &mut found).await,
    }
    found
}

async fn of_source(pool: &MapPool, store: &StateStore, found: &mut AtRest) {
    if store.with(|s| s.run.boot.is_empty()) {
        // Never started: nothing was served.
        found.dirty = Some(GrainSet::new());
        return;
    }
    let looked = async {
        let recovered = recover(pool, store).await?;
        let mut dirty = Owed::count(pool, store).await?.all().clone();
        dirty.union_with(&recovered.written);
        Result::<_>::Ok((dirty, recovered.suspected))
    };
    match looked.await {
        Ok((dirty, suspected)) => (found.dirty, found.suspected) = (Some(dirty), suspected),
        Err(e) => found.unknown.push(format!("what is dirty: {e}")),
    }
    if store.with(|s| s.run.seal.is_none()) {
        found.unknown.push(
            "whether the volumes were synced: the agent did not stop cleanly, and the next start may \
             add what was written since the last sync"
                .to_owned(),
        );
    }
}

async fn of_replica(pool: &MapPool, store: &StateStore, found: &mut AtRest) {
    let state = store.with(|s| s.replica.clone()).unwrap_or_default();
    found.damaged = map(pool, state.damaged, "what is damaged", &mut found.unknown).await;
    found.unloaded = map(pool, state.unloaded, "what waits for media", &mut found.unknown).await;
    if let (Some(damaged), Some(unloaded)) = (&found.damaged, &found.unloaded) {
        let (waits, lacks) = (!unloaded.is_empty(), !damaged.is_empty());
        found.condition = Some(store.with(|s| Condition::at_rest(s, waits, lacks)));
    }
    found
        .unknown
        .push("what the source has written since: it is asked at the next attach".to_owned());
    if store.with(|s| s.run.seal.is_none() && !s.run.boot.is_empty()) {
        found.unknown.push(
            "whether the journal holds a newer commit: the agent did not stop cleanly, and the next \
             start takes it up"
                .to_owned(),
        );
    }
}

async fn map(
    pool: &MapPool,
    at: Option<LayerRef>,
    what: &str,
    unknown: &mut Vec<String>,
) -> Option<GrainSet> {
    let Some(at) = at else { return Some(GrainSet::new()) };
    match pool.read_map(at, MapKind::Missing).await {
        Ok(content) => Some(content.set),
        Err(e) => {
            unknown.push(format!("{what}: {e}"));
            None
        }
    }
}
