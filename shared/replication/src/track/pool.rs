//! Map files by number: which file is free, which is prepared, how a new layer gets its file.
//!
//! A file that no record names is never deleted and never recycled: recovery ORs it in. A free file is
//! recycled only when the record that freed it is on disk, for until then another record may count on
//! it; and it stays listed as free, under its old id, until its header names the new map, so that a
//! crash in between does not bring its old bits back.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::{Context, OpenMode};
use grain::{Geometry, GrainSet, LayerId, RelationshipId};

use super::regions::region_layout;
use crate::map::{Layout, MapContent, MapFile, MapKind, MapSpec};
use crate::state::{LayerRef, StateStore};
use crate::{Error, Result};

/// The map files of one relationship.
#[derive(Clone)]
pub struct MapPool {
    ctx: Context,
    dir: PathBuf,
    relationship: RelationshipId,
    grains: Layout,
    regions: Layout,
    store: StateStore,
    /// Free files that are being recycled, or that failed in this run.
    taken: Rc<RefCell<BTreeSet<u32>>>,
}

impl MapPool {
    /// The directory of map files inside a relationship's directory.
    pub const DIR: &'static str = "layers";

    /// A pool over `dir/layers`, which is made if it is missing.
    pub async fn open(ctx: &Context, dir: &Path, store: &StateStore) -> Result<MapPool> {
        let pool = MapPool::to_read(ctx, dir, store);
        let dir = &pool.dir;
        ctx.storage.create_dir(dir).await.map_err(Error::io("create", dir))?;
        Ok(pool)
    }

    /// The same for a look at what is there: nothing is made.
    pub(crate) fn to_read(ctx: &Context, dir: &Path, store: &StateStore) -> MapPool {
        let (relationship, geometry) = store.with(|s| (s.relationship, s.geometry.clone()));
        MapPool {
            ctx: ctx.clone(),
            dir: dir.join(Self::DIR),
            relationship,
            grains: Layout::of_grains(&geometry),
            regions: region_layout(&geometry),
            store: store.clone(),
            taken: Rc::default(),
        }
    }

    /// The spec of a map of `kind`.
    pub fn spec(&self, kind: MapKind) -> MapSpec {
        let layout = match kind {
            MapKind::Regions => self.regions.clone(),
            _ => self.grains.clone(),
        };
        MapSpec { kind, relationship: self.relationship, layout }
    }

    /// The path of file `number`.
    pub fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08}.ghm"))
    }

    /// The directory of map files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Size of a layer's file in bytes.
    pub fn layer_file_bytes(&self) -> u64 {
        self.grains.file_bytes()
    }

    /// A new id.
    pub fn new_id(&self) -> LayerId {
        LayerId::new(self.ctx.unix_ms(), self.ctx.random())
    }

    /// A fresh empty map of grains, from a recycled file where there is one. Not recorded anywhere
    /// yet, but durable.
    pub async fn create(&self, kind: MapKind) -> Result<(LayerRef, MapFile)> {
        let file = self.take_number();
        let id = self.new_id();
        let map = MapFile::create(&self.ctx, &self.path(file), self.spec(kind), id).await?;
        self.sync_names().await?;
        self.store.change(|s| s.layers.free.retain(|f| f.file != file));
        self.taken.borrow_mut().remove(&file);
        Ok((LayerRef { file, id }, map))
    }

    /// The same, holding `set`.
    pub async fn create_with(&self, kind: MapKind, set: &GrainSet) -> Result<(LayerRef, MapFile)> {
        let (at, map) = self.create(kind).await?;
        map.union_with(set);
        map.sync().await?;
        Ok((at, map))
    }

    /// The number of a file to recycle, else one never used.
    fn take_number(&self) -> u32 {
        let recorded = self.store.recorded_free();
        let mut taken = self.taken.borrow_mut();
        self.store.change(|s| {
            let table = &mut s.layers;
            let fit = |f: &&LayerRef| recorded.contains(f) && !taken.contains(&f.file);
            match table.free.iter().rev().find(fit) {
                Some(free) => {
                    taken.insert(free.file);
                    free.file
                }
                None => {
                    table.next_file += 1;
                    table.next_file - 1
                }
            }
        })
    }

    /// Does not give out file `number` in this run, though it is free.
    pub(crate) fn distrust(&self, number: u32) {
        self.taken.borrow_mut().insert(number);
    }

    /// Takes [`MapPool::distrust`] back.
    pub(crate) fn trust(&self, number: u32) {
        self.taken.borrow_mut().remove(&number);
    }

    /// Makes the names of map files durable.
    pub(crate) async fn sync_names(&self) -> Result<()> {
        self.ctx.storage.sync_dir(&self.dir).await.map_err(Error::io("sync", &self.dir))
    }

    /// Opens a recorded map to go on with it; another id than the recorded one is damage.
    pub async fn open_map(&self, at: LayerRef, kind: MapKind) -> Result<(MapFile, MapContent)> {
        let path = self.path(at.file);
        let (map, content) = MapFile::open(&self.ctx, &path, self.spec(kind)).await?;
        if content.id != Some(at.id) {
            return Err(Error::corrupt(&path, "it holds another map than the state names"));
        }
        Ok((map, content))
    }

    /// Reads a recorded map. One whose header is damaged reads as everything.
    pub async fn read_map(&self, at: LayerRef, kind: MapKind) -> Result<MapContent> {
        let path = self.path(at.file);
        let content = MapFile::read(&self.ctx, &path, &self.spec(kind)).await?;
        if content.id.is_some_and(|id| id != at.id) {
            return Err(Error::corrupt(&path, "it holds another map than the state names"));
        }
        Ok(content)
    }

    /// Syncs the files of all closed layers: a process that was killed may have closed some and not
    /// come to sync them.
    pub(crate) async fn sync_closed(&self) -> Result<()> {
        for layer in self.store.with(|s| s.layers.closed.clone()) {
            let path = self.path(layer.at.file);
            let file = self.ctx.storage.open(&path, OpenMode::ReadWrite).await;
            let file = file.map_err(Error::io("open", &path))?;
            file.sync_data().await.map_err(Error::io("sync", &path))?;
        }
        Ok(())
    }

    /// The numbers of all map files present.
    pub async fn present(&self) -> Result<Vec<u32>> {
        let entries =
            self.ctx.storage.list(&self.dir).await.map_err(Error::io("list", &self.dir))?;
        let number = |name: &str| name.strip_suffix(".ghm").and_then(|n| n.parse().ok());
        Ok(entries.iter().filter_map(|e| number(&e.name)).collect())
    }

    /// The geometry that the maps are for.
    pub fn geometry(&self) -> Geometry {
        self.store.with(|s| s.geometry.clone())
    }

    /// Clock, randomness and disk.
    pub fn context(&self) -> &Context {
        &self.ctx
    }
}
