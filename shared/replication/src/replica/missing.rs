//! Grains that the replica should hold and does not, on disk: set when that becomes known, struck only
//! after the grain was written and synced. What does not check reads as missing.

use std::cell::RefCell;

use grain::{GrainSet, Run};

use crate::map::{MapFile, MapKind};
use crate::state::{LayerRef, StateStore};
use crate::track::MapPool;
use crate::{Error, Result};

/// One such map; there may be none. Its place in the state is told by whoever owns it.
#[derive(Default)]
pub(super) struct MissingMap {
    map: RefCell<Option<(LayerRef, MapFile)>>,
}

impl MissingMap {
    /// Opens the map that the state names.
    pub(super) async fn open(pool: &MapPool, at: Option<LayerRef>) -> Result<MissingMap> {
        let map = match at {
            Some(at) => match pool.open_map(at, MapKind::Missing).await {
                Ok((map, _)) => {
                    // A process that was killed may have struck grains whose bits only the page cache has.
                    // What is said from here on rests on them.
                    map.sync().await?;
                    Some((at, map))
                }
                Err(Error::Corrupt { path, detail }) => {
                    tracing::error!(path = %path.display(), %detail, "everything counts as missing");
                    let (at, map) = pool.create(MapKind::Missing).await?;
                    map.union_with(&GrainSet::full(&pool.geometry()));
                    map.sync().await?;
                    Some((at, map))
                }
                Err(e) => return Err(e),
            },
            None => None,
        };
        Ok(MissingMap { map: RefCell::new(map) })
    }

    fn handle(&self) -> Option<MapFile> {
        self.map.borrow().as_ref().map(|(_, map)| map.clone())
    }

    pub(super) fn set(&self) -> GrainSet {
        self.handle().map_or_else(GrainSet::new, |map| map.with_set(GrainSet::clone))
    }

    pub(super) fn len(&self) -> u64 {
        self.handle().map_or(0, |map| map.with_set(GrainSet::len))
    }

    pub(super) fn intersects(&self, set: &GrainSet) -> bool {
        self.handle()
            .is_some_and(|map| map.with_set(|mine| set.runs().any(|run| mine.intersects(run))))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds grains, durably; makes the map if there is none. Gives its place, for the state.
    pub(super) async fn add(&self, pool: &MapPool, set: &GrainSet) -> Result<Option<LayerRef>> {
        if set.is_empty() {
            return Ok(self.at());
        }
        let map = match self.handle() {
            Some(map) => map,
            None => {
                let made = pool.create(MapKind::Missing).await?;
                let map = made.1.clone();
                *self.map.borrow_mut() = Some(made);
                map
            }
        };
        map.union_with(set);
        map.sync().await?;
        Ok(self.at())
    }

    /// A map with these grains, durable, that is not in use yet.
    pub(super) async fn make(
        pool: &MapPool,
        set: &GrainSet,
    ) -> Result<Option<(LayerRef, MapFile)>> {
        if set.is_empty() {
            return Ok(None);
        }
        let (at, map) = pool.create(MapKind::Missing).await?;
        map.union_with(set);
        map.sync().await?;
        Ok(Some((at, map)))
    }

    /// Puts what [`MissingMap::make`] made in the place of the map that there was. Gives the file of the
    /// old one, to be freed by the record that forgets it.
    pub(super) fn put(&self, made: Option<(LayerRef, MapFile)>) -> Option<LayerRef> {
        self.map.replace(made).map(|(at, _)| at)
    }

    /// Strikes grains that are in the base, synced.
    pub(super) async fn strike(&self, runs: impl IntoIterator<Item = Run>) -> Result<()> {
        let Some(map) = self.handle() else { return Ok(()) };
        for run in runs {
            map.remove(run);
        }
        map.sync().await
    }

    /// Forgets the map in memory; gives its file, to be freed by the record that forgets it.
    pub(super) fn forget(&self) -> Option<LayerRef> {
        self.map.borrow_mut().take().map(|(at, _)| at)
    }

    pub(super) fn at(&self) -> Option<LayerRef> {
        self.map.borrow().as_ref().map(|(at, _)| *at)
    }
}

/// Frees files in the record that forgets them.
pub(super) fn free(store: &StateStore, files: impl IntoIterator<Item = LayerRef>) {
    store.change(|s| s.layers.free.extend(files));
}
