//! A map file on disk: created or recycled, written sector by sector through the page cache, synced
//! as a group, read back with damage counted as set bits.
//!
//! The truth is the set in memory, which the owner passes in; this type only knows which sectors
//! have to be written. Contract: `write_now` first; when it says that it could not, `flush` waits.
//! Sectors are written by one task at a time, so that an older content never lands after a newer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File, OpenMode};
use grain::{GrainSet, LayerId, RelationshipId, Run, VolumeId};

use super::format::{self, BITS, Header, SECTOR, Sector, WORDS};
use super::{Layout, MapKind};
use crate::group_commit::GroupCommit;
use crate::{Error, Result};

/// Bytes read or written in one piece.
const PIECE: usize = 1 << 20;

/// What a map file is for.
#[derive(Clone, Debug)]
pub struct MapSpec {
    /// Meaning of the bits.
    pub kind: MapKind,
    /// Whose map it is.
    pub relationship: RelationshipId,
    /// How many bits for each volume.
    pub layout: Layout,
}

/// What was read from a map file.
pub struct MapContent {
    /// The id in the header; `None` when the header itself is damaged.
    pub id: Option<LayerId>,
    /// The bits set; everything when the header is damaged.
    pub set: GrainSet,
    /// How many sectors did not check, and were read as all set.
    pub damaged_sectors: u64,
}

/// An open map file and the set that it holds. Cheap to clone.
#[derive(Clone)]
pub struct MapFile {
    inner: Rc<Inner>,
    writer: GroupCommit,
    syncer: GroupCommit,
}

struct Inner {
    file: Rc<dyn File>,
    path: PathBuf,
    spec: MapSpec,
    id: LayerId,
    tag: u64,
    set: RefCell<GrainSet>,
    /// Sectors whose newest content has not been handed to the file yet.
    pending: RefCell<BTreeSet<u64>>,
    /// A waiting write is under way: inline ones must not overtake it.
    writing: Cell<bool>,
    failed: Cell<bool>,
    /// How often bits were changed.
    changes: Cell<u64>,
    /// The value of `changes` that is known to be synced.
    synced: Cell<u64>,
}

impl MapFile {
    /// Makes `path` a map with the new id, no bit set: a fresh file is formatted, an existing one of
    /// the same size is recycled by its header alone. Durable on return, but for the name of a fresh
    /// file, which the caller makes durable with the directory.
    pub async fn create(ctx: &Context, path: &Path, spec: MapSpec, id: LayerId) -> Result<MapFile> {
        match ctx.storage.open(path, OpenMode::ReadWrite).await {
            Ok(file) if file.len().ok() == Some(spec.layout.file_bytes()) => {
                let sector = Bytes::copy_from_slice(&header_of(&spec, id));
                file.write_durable(0, sector).await.map_err(Error::io("write", path))?;
                Ok(MapFile::new(file, path, spec, id, GrainSet::new()))
            }
            Ok(_) => MapFile::create_fresh(ctx, path, spec, id, GrainSet::new()).await,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                MapFile::create_fresh(ctx, path, spec, id, GrainSet::new()).await
            }
            Err(e) => Err(Error::io("open", path)(e)),
        }
    }

    /// Makes `path` a fresh map of `set`, in the place of whatever is there. The file gets its name
    /// when it is whole, so that no half-made map is ever found. Durable on return, but for the name.
    pub(crate) async fn create_fresh(
        ctx: &Context,
        path: &Path,
        spec: MapSpec,
        id: LayerId,
        set: GrainSet,
    ) -> Result<MapFile> {
        let unfinished = path.with_extension("new");
        match ctx.storage.remove(&unfinished).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &unfinished)(e));
            }
            _ => {}
        }
        let file = ctx.storage.open(&unfinished, OpenMode::CreateNew).await;
        let file = file.map_err(Error::io("create", &unfinished))?;
        let map = MapFile::new(file, path, spec, id, set);
        let made = match map.inner.format().await {
            Ok(()) => ctx.storage.rename(&unfinished, path).await.map_err(Error::io("name", path)),
            Err(e) => Err(e),
        };
        if let Err(e) = made {
            // Its space is given back; a left-over is replaced by the next try.
            drop(ctx.storage.remove(&unfinished).await);
            return Err(e);
        }
        Ok(map)
    }

    /// Opens an existing map to go on with it. Damage is healed into set bits: they are pending and
    /// reach the file with the next flush.
    pub async fn open(ctx: &Context, path: &Path, spec: MapSpec) -> Result<(MapFile, MapContent)> {
        let file =
            ctx.storage.open(path, OpenMode::ReadWrite).await.map_err(Error::io("open", path))?;
        let content = read_content(&*file, path, &spec).await?;
        let id = content.id.ok_or_else(|| Error::corrupt(path, "its header does not check"))?;
        let map = MapFile::new(file, path, spec, id, content.set.clone());
        if content.damaged_sectors > 0 {
            map.mark_all_pending();
        }
        Ok((map, content))
    }

    /// Reads a map without keeping it open.
    pub async fn read(ctx: &Context, path: &Path, spec: &MapSpec) -> Result<MapContent> {
        let file = ctx.storage.open(path, OpenMode::Read).await.map_err(Error::io("open", path))?;
        read_content(&*file, path, spec).await
    }

    /// The id and kind in the header; `None` when it does not check.
    pub async fn peek(ctx: &Context, path: &Path) -> Result<Option<(LayerId, MapKind)>> {
        let file = ctx.storage.open(path, OpenMode::Read).await.map_err(Error::io("open", path))?;
        if file.len().map_err(Error::io("read", path))? < SECTOR as u64 {
            return Ok(None);
        }
        let first = file.read_at(0, SECTOR).await.map_err(Error::io("read", path))?;
        let mut sector = [0; SECTOR];
        sector.copy_from_slice(&first);
        Ok(format::decode_header(&sector).ok().map(|h| (h.id, h.kind)))
    }

    fn new(file: Rc<dyn File>, path: &Path, spec: MapSpec, id: LayerId, set: GrainSet) -> Self {
        let inner = Rc::new(Inner {
            file,
            path: path.to_owned(),
            spec,
            id,
            tag: format::tag(id),
            set: RefCell::new(set),
            pending: RefCell::default(),
            writing: Cell::new(false),
            failed: Cell::new(false),
            changes: Cell::new(0),
            synced: Cell::new(0),
        });
        let (to_write, to_sync) = (inner.clone(), inner.clone());
        MapFile {
            writer: GroupCommit::new(move || Box::pin(write_pending(to_write.clone()))),
            syncer: GroupCommit::new(move || Box::pin(sync(to_sync.clone()))),
            inner,
        }
    }

    /// The id that its sectors carry.
    pub fn id(&self) -> LayerId {
        self.inner.id
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Looks at the set.
    pub fn with_set<T>(&self, look: impl FnOnce(&GrainSet) -> T) -> T {
        look(&self.inner.set.borrow())
    }

    /// Sets the bits of `run`; says how many were not set before. What is new has to reach the
    /// file: `write_now`, else `flush`.
    pub fn insert(&self, run: Run) -> u64 {
        let new = self.inner.set.borrow_mut().insert_run(run);
        if new > 0 {
            self.touch(run);
        }
        new
    }

    /// Clears the bits of `run` (regions and missing grains only; a layer's bits are never cleared).
    pub fn remove(&self, run: Run) -> u64 {
        let gone = self.inner.set.borrow_mut().remove_run(run);
        if gone > 0 {
            self.touch(run);
        }
        gone
    }

    /// Sets all bits of `other`.
    pub fn union_with(&self, other: &GrainSet) {
        for run in other.runs() {
            self.insert(run);
        }
    }

    /// True when every bit set so far is known to be on stable storage.
    pub fn is_synced(&self) -> bool {
        self.inner.synced.get() == self.inner.changes.get()
    }

    fn touch(&self, run: Run) {
        self.inner.changes.set(self.inner.changes.get() + 1);
        let sectors = self.inner.spec.layout.sectors_of(run.volume, run.first, run.end());
        self.inner.pending.borrow_mut().extend(sectors);
    }

    fn mark_all_pending(&self) {
        let runs: Vec<Run> = self.inner.set.borrow().runs().collect();
        runs.into_iter().for_each(|run| self.touch(run));
    }

    /// Writes what is pending without waiting; false when that was not possible, or a part of it.
    pub fn write_now(&self) -> Result<bool> {
        if self.inner.failed.get() {
            return Err(Error::TrackingFailed(self.inner.path.display().to_string()));
        }
        let mut pending = self.inner.pending.borrow_mut();
        if pending.is_empty() {
            return Ok(!self.inner.writing.get());
        }
        if self.inner.writing.get() || pending.len() > 64 {
            return Ok(false);
        }
        while let Some(sector) = pending.first().copied() {
            let bytes = self.inner.encode(sector);
            let done = self
                .inner
                .file
                .write_now(&bytes, sector * SECTOR as u64)
                .map_err(|e| self.inner.fail("write", e))?;
            if !done {
                return Ok(false);
            }
            pending.pop_first();
        }
        Ok(true)
    }

    /// Hands all that is pending to the file (page cache) and waits for it.
    pub fn flush(&self) -> impl Future<Output = Result<()>> + 'static {
        self.writer.join()
    }

    /// Makes all that was set before the call durable.
    pub async fn sync(&self) -> Result<()> {
        self.flush().await?;
        self.syncer.join().await
    }

    /// Hands what is pending to the file and makes just that durable, for small maps.
    pub async fn write_durable(&self) -> Result<()> {
        self.sync().await
    }

    /// True when a write or sync failed: the owner goes on with a fresh file.
    pub fn has_failed(&self) -> bool {
        self.inner.failed.get()
    }
}

impl Inner {
    fn encode(&self, sector: u64) -> [u8; SECTOR] {
        let mut words = [0; WORDS];
        if let Some((volume, first, _)) = self.spec.layout.bits_of(sector) {
            self.set.borrow().copy_words(volume, first / 64, &mut words);
        }
        format::encode(self.tag, sector as u32, &words)
    }

    /// Writes the whole file, header included, and syncs it.
    async fn format(&self) -> Result<()> {
        let sectors = self.spec.layout.sectors();
        let mut number = 0;
        while number < sectors {
            let end = sectors.min(number + (PIECE / SECTOR) as u64);
            let mut piece = Vec::with_capacity((end - number) as usize * SECTOR);
            for sector in number..end {
                match sector {
                    0 => piece.extend_from_slice(&header_of(&self.spec, self.id)),
                    _ => piece.extend_from_slice(&self.encode(sector)),
                }
            }
            let written = self.file.write_at(number * SECTOR as u64, piece.into()).await;
            written.map_err(|e| self.fail("write", e))?;
            number = end;
        }
        self.file.sync_data().await.map_err(|e| self.fail("sync", e))
    }

    fn fail(&self, what: &'static str, e: std::io::Error) -> Error {
        self.failed.set(true);
        Error::io(what, &self.path)(e)
    }
}

async fn write_pending(inner: Rc<Inner>) -> Result<()> {
    inner.writing.set(true);
    let outcome = write_pending_inner(&inner).await;
    inner.writing.set(false);
    outcome
}

async fn write_pending_inner(inner: &Inner) -> Result<()> {
    loop {
        if inner.failed.get() {
            return Err(Error::TrackingFailed(inner.path.display().to_string()));
        }
        // Neighbouring sectors go in one write.
        let (first, bytes) = {
            let mut pending = inner.pending.borrow_mut();
            let Some(first) = pending.pop_first() else { return Ok(()) };
            let mut bytes = inner.encode(first).to_vec();
            let mut next = first + 1;
            while bytes.len() < PIECE && pending.remove(&next) {
                bytes.extend_from_slice(&inner.encode(next));
                next += 1;
            }
            (first, bytes)
        };
        let written = inner.file.write_at(first * SECTOR as u64, bytes.into()).await;
        written.map_err(|e| inner.fail("write", e))?;
    }
}

async fn sync(inner: Rc<Inner>) -> Result<()> {
    if inner.failed.get() {
        return Err(Error::TrackingFailed(inner.path.display().to_string()));
    }
    let handed_over = inner.pending.borrow().is_empty() && !inner.writing.get();
    let covered = inner.changes.get();
    inner.file.sync_data().await.map_err(|e| inner.fail("sync", e))?;
    if handed_over {
        inner.synced.set(covered);
    }
    Ok(())
}

fn header_of(spec: &MapSpec, id: LayerId) -> [u8; SECTOR] {
    format::encode_header(&Header {
        id,
        kind: spec.kind,
        relationship: spec.relationship,
        layout_hash: spec.layout.hash(),
    })
}

async fn read_content(file: &dyn File, path: &Path, spec: &MapSpec) -> Result<MapContent> {
    let layout = &spec.layout;
    let everything = || {
        let mut set = GrainSet::new();
        for volume in 0.. {
            let volume = VolumeId(volume);
            match layout.bits(volume) {
                0 => break,
                count => set.insert_run(Run { volume, first: 0, count }),
            };
        }
        set
    };
    let len = file.len().map_err(Error::io("read", path))?;
    let header = if len < SECTOR as u64 {
        Err("shorter than its header".to_owned())
    } else {
        let first = file.read_at(0, SECTOR).await.map_err(Error::io("read", path))?;
        let mut sector = [0; SECTOR];
        sector.copy_from_slice(&first);
        format::decode_header(&sector)
    };
    let header = match header {
        Ok(header) => header,
        Err(detail) => {
            tracing::warn!(path = %path.display(), %detail, "damaged map reads as all dirty");
            let damaged_sectors = layout.sectors();
            return Ok(MapContent { id: None, set: everything(), damaged_sectors });
        }
    };
    if header.relationship != spec.relationship || header.kind != spec.kind {
        return Err(Error::corrupt(path, "it belongs to another relationship or purpose"));
    }
    if header.layout_hash != layout.hash() {
        return Err(Error::corrupt(path, "it was made for volumes of other sizes"));
    }
    let mut content = MapContent { id: Some(header.id), set: GrainSet::new(), damaged_sectors: 0 };
    read_sectors(file, path, layout, format::tag(header.id), len, &mut content).await?;
    Ok(content)
}

async fn read_sectors(
    file: &dyn File,
    path: &Path,
    layout: &Layout,
    tag: u64,
    len: u64,
    content: &mut MapContent,
) -> Result<()> {
    let mut number = format::SECTORS_A_PAGE;
    while number < layout.sectors() {
        let end = layout.sectors().min(number + (PIECE / SECTOR) as u64);
        let there = (len / SECTOR as u64).clamp(number, end);
        let offset = number * SECTOR as u64;
        let want = (there - number) as usize * SECTOR;
        let mut bytes = if want == 0 {
            Vec::new()
        } else {
            file.read_at(offset, want).await.map_err(Error::io("read", path))?
        };
        // What was cut off the file is damage like any other.
        bytes.resize((end - number) as usize * SECTOR, 0);
        for (i, chunk) in bytes.chunks_exact(SECTOR).enumerate() {
            let sector_number = number + i as u64;
            let Some((volume, first, last)) = layout.bits_of(sector_number) else { continue };
            let mut sector = [0; SECTOR];
            sector.copy_from_slice(chunk);
            match format::decode(tag, sector_number as u32, &sector) {
                Sector::Untouched => {}
                Sector::Bits(words) => content.set.or_words(volume, first / 64, &words[..], last),
                Sector::Damaged => {
                    content.damaged_sectors += 1;
                    content.set.insert_run(Run { volume, first, count: last - first });
                }
            }
        }
        number = end;
        tokio::task::yield_now().await;
    }
    if content.damaged_sectors > 0 {
        tracing::warn!(
            path = %path.display(),
            sectors = content.damaged_sectors,
            "damaged sectors of a map read as all dirty"
        );
    }
    Ok(())
}

/// Bits that a damaged sector stands for, at most.
pub const DAMAGE_REACH_BITS: u64 = BITS;
