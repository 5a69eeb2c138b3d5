//! What is overwritten on purpose, by a repair or by giving way, kept aside first. `docs/formats/kept.md`
//! has the format.

use std::path::{Path, PathBuf};

use disk::{Context, File, OpenMode};
use grain::{CutId, GrainSet, Run};
use media::{KeptIndex, KeptPiece};

use crate::session::PIECE_BYTES;
use crate::state::StateStore;
use crate::volumes::Volumes;
use crate::{Error, Result};

/// The directory below the relationship's, where no other is named.
const DIR: &str = "kept";

/// The state of the relationship may live on the same file system, and goes on growing.
const LEAVE_FREE: u64 = 64 << 20;

/// Who keeps aside.
pub(crate) struct Aside<'a> {
    pub(crate) ctx: &'a Context,
    pub(crate) store: &'a StateStore,
    pub(crate) volumes: &'a Volumes,
}

/// Why something is overwritten.
#[derive(Clone, Copy)]
pub(crate) struct Why<'a> {
    pub(crate) verb: &'a str,
    pub(crate) cut: CutId,
}

impl Aside<'_> {
    /// Puts what the volumes hold of `grains` into a file of its own, durable, in `dir`, or where such files
    /// go by themselves. Gives the path of its index.
    ///
    /// # Errors
    /// [`Error::State`] where there is no room; [`Error::Io`] of that disk. Nothing is left of it then.
    pub(crate) async fn keep(
        &self,
        why: Why<'_>,
        grains: &GrainSet,
        dir: Option<&Path>,
    ) -> Result<PathBuf> {
        let storage = &self.ctx.storage;
        let own = || self.store.path().parent().unwrap_or(Path::new("/")).join(DIR);
        let dir = dir.map_or_else(own, Path::to_owned);
        storage.create_dir(&dir).await.map_err(Error::io("create", &dir))?;
        self.has_room(&dir, grains).await?;
        let unix_ms = self.ctx.unix_ms();
        let name = format!("{unix_ms}-{}", data_encoding::HEXLOWER.encode(&self.ctx.random::<4>()));
        let data = dir.join(format!("{name}.data"));
        let index = dir.join(format!("{name}.json"));
        let pieces = match self.copy(&data, grains).await {
            Ok(pieces) => pieces,
            Err(e) => {
                // Half of it is of no use, and may be what filled the disk.
                drop(storage.remove(&data).await);
                return Err(e);
            }
        };
        let (relationship, data) = (self.store.with(|s| s.relationship), format!("{name}.data"));
        let (why, cut) = (why.verb.to_owned(), why.cut);
        let body = KeptIndex { version: 1, relationship, why, cut, unix_ms, data, pieces };
        let text = serde_json::to_vec_pretty(&body)
            .map_err(|e| Error::State(format!("the index cannot be written: {e}")))?;
        // Syncs the directory, and with it the name of the data file.
        storage.replace(&index, text.into()).await.map_err(Error::io("write", &index))?;
        Ok(index)
    }

    /// A source that lies must not fill the disk on which the relationship's state lives.
    async fn has_room(&self, dir: &Path, grains: &GrainSet) -> Result<()> {
        let bytes = grains.bytes(self.volumes.geometry());
        let free = self.ctx.storage.free_space(dir).await;
        let free = free.map_err(Error::io("ask for the space left at", dir))?;
        if bytes.saturating_add(LEAVE_FREE) <= free {
            return Ok(());
        }
        Err(Error::State(format!(
            "what would be overwritten cannot be kept: {bytes} bytes, and {} has {free} left; nothing was \
             overwritten",
            dir.display()
        )))
    }

    async fn copy(&self, path: &Path, grains: &GrainSet) -> Result<Vec<KeptPiece>> {
        let made = self.ctx.storage.open(path, OpenMode::CreateNew).await;
        let file = made.map_err(Error::io("create", path))?;
        let most = (PIECE_BYTES >> self.volumes.geometry().grain.shift()).max(1);
        let (mut pieces, mut end) = (Vec::new(), 0);
        let mut from = (grain::VolumeId(0), 0);
        while let Some(run) = grains.next_run(from, most) {
            from = (run.volume, run.end());
            match self.copy_run(&*file, path, run, end).await? {
                Some(piece) => {
                    end += piece.bytes;
                    pieces.push(piece);
                }
                // A bad place among them: grain by grain, and what it hides by name.
                None => {
                    for first in run.first..run.end() {
                        let one = Run { first, count: 1, ..run };
                        let piece = self.copy_run(&*file, path, one, end).await?;
                        end += piece.as_ref().map_or(0, |piece| piece.bytes);
                        pieces.push(piece.unwrap_or_else(|| self.piece(one, None)));
                    }
                }
            }
        }
        file.sync_data().await.map_err(Error::io("sync", path))?;
        Ok(pieces)
    }

    /// `None` when the base does not give the run.
    async fn copy_run(
        &self,
        file: &dyn File,
        path: &Path,
        run: Run,
        at: u64,
    ) -> Result<Option<KeptPiece>> {
        let bytes = match self.volumes.read(run).await {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, place = self.volumes.place(run), "cannot be kept");
                return Ok(None);
            }
        };
        let hashed = bytes.clone();
        let digest = self.ctx.offload(move || blake3::hash(&hashed).to_hex().to_string()).await;
        file.write_at(at, bytes).await.map_err(Error::io("write", path))?;
        Ok(Some(self.piece(run, Some((at, digest)))))
    }

    fn piece(&self, run: Run, kept: Option<(u64, String)>) -> KeptPiece {
        let range = self.volumes.geometry().byte_range(run.volume, run.first, run.count);
        let volume = self.volumes.get(run.volume).map_or("?", |volume| volume.alias.as_str());
        let (at, blake3) = kept.unzip();
        let bytes = range.end - range.start;
        KeptPiece { volume: volume.to_owned(), offset: range.start, bytes, at, blake3 }
    }
}
