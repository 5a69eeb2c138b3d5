//! What a site finds in its map files when it starts.
//!
//! * The file that the state names as the open layer, and every layer file that no record names, are
//!   taken together: a cut whose record was lost left its new layer unnamed.
//! * After a killed process (same boot id) that is exact, for the page cache is still there. After a
//!   power cut, all grains of active regions count as written, too, and are flagged *suspected*.
//! * After a killed process that was syncing layers the same holds as after a power cut: a sync that failed
//!   may have cost pages (see `regions`).
//! * What does not check reads as dirty.

use grain::{GrainSet, LayerId};

use super::pool::MapPool;
use super::regions::{grains_of_regions, settling_bit};
use crate::map::{MapFile, MapKind};
use crate::state::{LayerRef, StateStore};
use crate::{Error, Result};

/// The name of the region map in the directory of map files.
pub(crate) const REGIONS_FILE: &str = "regions.ghm";

/// What was written in the epoch that was open when the site stopped.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Every grain that may have been written.
    pub written: GrainSet,
    /// Those of them that only a power cut put there.
    pub suspected: GrainSet,
    /// Files that no record named; free once their content is in a recorded layer.
    pub unnamed: Vec<LayerRef>,
    /// Sectors or headers that did not check.
    pub damaged_sectors: u64,
    /// The machine was booted anew since the site last ran, and that had not stopped cleanly.
    pub power_cut: bool,
    /// One more than the largest file number present.
    pub next_file: u32,
}

/// Reads the map files; changes nothing on disk.
pub async fn recover(pool: &MapPool, store: &StateStore) -> Result<Recovered> {
    let (table, run) = store.with(|s| (s.layers.clone(), s.run.clone()));
    let now = pool.context().boot();
    // Before a first start nothing was written, and at a clean stop everything was synced.
    let power_cut = !run.boot.is_empty() && run.boot != now && run.seal.is_none();
    let mut found = Recovered { power_cut, ..Recovered::default() };
    let kept = other_maps(store);
    for number in pool.present().await? {
        found.next_file = found.next_file.max(number.saturating_add(1));
        let path = pool.path(number);
        let peeked = MapFile::peek(pool.context(), &path).await?;
        let named_closed = table.closed.iter().any(|c| c.at.file == number);
        let named_other = kept.iter().any(|k| k.file == number);
        match peeked {
            // Damaged closed layers are read as everything when they are used.
            _ if named_closed || named_other => {}
            Some((_, kind)) if kind != MapKind::Layer => {
                found.unnamed.push(LayerRef { file: number, id: LayerId::from_bytes([0; 16]) });
            }
            Some((id, _)) if table.free.contains(&LayerRef { file: number, id }) => {}
            _ => {
                let content =
                    MapFile::read(pool.context(), &path, &pool.spec(MapKind::Layer)).await?;
                found.written.union_with(&content.set);
                found.damaged_sectors += content.damaged_sectors;
                let id = content.id.unwrap_or(LayerId::from_bytes([0; 16]));
                if table.open != Some(LayerRef { file: number, id }) {
                    found.unnamed.push(LayerRef { file: number, id });
                }
            }
        }
    }
    if let Some(open) = table.open {
        let path = pool.path(open.file);
        let there = pool.context().storage.exists(&path).await;
        if there.map_err(Error::io("look at", &path))?.is_none() {
            return Err(Error::corrupt(path, "the open layer's file is gone"));
        }
    }
    let killed = !run.boot.is_empty() && run.boot == now && run.seal.is_none();
    if found.power_cut || (killed && was_settling(pool).await?) {
        suspect_regions(pool, store, &mut found).await?;
    }
    Ok(found)
}

/// Map files that the state names for another purpose than a layer.
fn other_maps(store: &StateStore) -> Vec<LayerRef> {
    store.with(|s| {
        let replica = s.replica.iter();
        let of_replica = replica.flat_map(|r| {
            let pull = r.pull.iter().flat_map(|p| [p.remaining, p.union]);
            [r.damaged, r.unloaded].into_iter().flatten().chain(pull)
        });
        let backlog = s.backlog.iter().flat_map(|backlog| backlog.maps);
        of_replica.chain(s.run.suspected).chain(backlog).collect()
    })
}

/// Whether the process that died was syncing layers. A map that does not check says yes.
async fn was_settling(pool: &MapPool) -> Result<bool> {
    let path = pool.dir().join(REGIONS_FILE);
    let there = pool.context().storage.exists(&path).await.map_err(Error::io("look at", &path))?;
    if there.is_none() {
        return Ok(false);
    }
    let content = MapFile::read(pool.context(), &path, &pool.spec(MapKind::Regions)).await?;
    let bit = settling_bit(&pool.geometry());
    Ok(content.set.contains(bit.volume, bit.first))
}

/// Notes durably, in the region map that the process before left, that layers are about to be synced.
pub(crate) async fn note_settling(pool: &MapPool) -> Result<()> {
    let path = pool.dir().join(REGIONS_FILE);
    let there = pool.context().storage.exists(&path).await.map_err(Error::io("look at", &path))?;
    if there.is_none() {
        return Ok(());
    }
    match MapFile::open(pool.context(), &path, pool.spec(MapKind::Regions)).await {
        Ok((map, _)) => {
            map.insert(settling_bit(&pool.geometry()));
            map.write_durable().await
        }
        // It reads as everything at the next start, this bit among it.
        Err(Error::Corrupt { .. }) => Ok(()),
        Err(e) => Err(e),
    }
}

async fn suspect_regions(pool: &MapPool, store: &StateStore, found: &mut Recovered) -> Result<()> {
    let path = pool.dir().join(REGIONS_FILE);
    let there = pool.context().storage.exists(&path).await.map_err(Error::io("look at", &path))?;
    let geometry = pool.geometry();
    if there.is_none() {
        if store.with(|s| s.layers.open.is_some()) {
            tracing::warn!("the region map is gone: everything counts as written");
            found.suspected = GrainSet::full(&geometry);
            found.suspected.subtract(&found.written);
            found.written = GrainSet::full(&geometry);
        }
        return Ok(());
    }
    let content = MapFile::read(pool.context(), &path, &pool.spec(MapKind::Regions)).await?;
    found.damaged_sectors += content.damaged_sectors;
    let mut grains = grains_of_regions(&geometry, &content.set);
    grains.subtract(&found.written);
    found.written.union_with(&grains);
    found.suspected = grains;
    Ok(())
}
