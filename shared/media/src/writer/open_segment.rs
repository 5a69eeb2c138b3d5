//! One segment file while it is being written: frames are appended in order, then the index and the
//! trailer, then all is made durable.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use disk::{File, OpenMode};
use grain::GrainSet;
use grain::fingerprint::FingerprintSum;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::behind::{FileHash, FileWrites, joined};
use super::core::Core;
use crate::directory::SegmentFacts;
use crate::error::MediaError;
use crate::index::{ENTRY_BYTES, Index, IndexEntry};
use crate::record::BuiltRecord;
use crate::root_digest::RootSum;
use crate::seal::{FileRole, SALT_BYTES, Sealer, frame_marker};
use crate::segment::{HEADER_BYTES, SegmentHeader, Stripe, TRAILER_BYTES, Trailer};
use crate::{names, runs};

/// Written bytes after which a sync is started beside the writing, so that the last one of a segment
/// finds little left to do.
const SYNC_STEP_BYTES: u64 = 32 << 20;

/// A segment under way.
pub(super) struct OpenSegment {
    core: Rc<Core>,
    medium: u16,
    pub(super) number: u64,
    path: PathBuf,
    file: Rc<dyn File>,
    salt: [u8; SALT_BYTES],
    pub(super) sealer: Arc<Sealer>,
    pub(super) marker: [u8; 8],
    /// Bytes handed to the file.
    end: u64,
    writes: FileWrites,
    hash: FileHash,
    entries: Vec<IndexEntry>,
    grains: GrainSet,
    sum: RootSum,
    fingerprint: FingerprintSum,
    data_grains: u64,
    /// Records handed to the pool for this segment, and the most bytes that those not yet appended
    /// can take.
    pub(super) assigned: u32,
    pub(super) assigned_bytes: u64,
    synced_at: u64,
    syncing: Option<JoinHandle<std::io::Result<()>>>,
}

/// A segment on stable storage that its part directory does not name yet.
pub(super) struct DurableSegment {
    pub(super) facts: SegmentFacts,
    pub(super) index: Vec<u8>,
    pub(super) grains: GrainSet,
    pub(super) sum: RootSum,
}

impl OpenSegment {
    /// Begins a segment with a number never used before.
    pub(super) async fn create(
        core: Rc<Core>,
        dir: &std::path::Path,
        medium: u16,
    ) -> Result<OpenSegment, MediaError> {
        let number = core.take_segment_number();
        let salt: [u8; SALT_BYTES] = core.ctx.random();
        let path = names::segment_path(dir, number);
        let sealed = core.key.is_some();
        let stripe = Stripe::default();
        let header = SegmentHeader { sealed, set: core.set, salt, number, stripe, medium };
        let header = header.encode();
        let io = |e| MediaError::io(&path, "creating a segment")(e);
        let file = core.ctx.storage.open(&path, OpenMode::CreateNew).await.map_err(io)?;
        file.write_at(0, Bytes::copy_from_slice(&header)).await.map_err(io)?;
        let hash = FileHash::start(core.ctx.clone(), &header);
        let writes = FileWrites::start(core.clone(), file.clone(), medium);
        let sealer = Sealer::new(core.key.as_ref(), core.set, FileRole::Segment(number), &salt);
        Ok(OpenSegment {
            core,
            medium,
            number,
            path,
            file,
            salt,
            sealer: Arc::new(sealer),
            marker: frame_marker(&salt),
            end: HEADER_BYTES as u64,
            writes,
            hash,
            entries: Vec::new(),
            grains: GrainSet::new(),
            sum: RootSum::new(),
            fingerprint: FingerprintSum::new(),
            data_grains: 0,
            assigned: 0,
            assigned_bytes: 0,
            synced_at: 0,
            syncing: None,
        })
    }

    /// Whether a record of at most `bytes` still fits beside what is assigned, with its index.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        let index = (u64::from(self.assigned) + 2) * ENTRY_BYTES as u64 + TRAILER_BYTES as u64;
        self.end + self.assigned_bytes + bytes + index <= self.core.segment_bytes
            && self.assigned < crate::index::MAX_RECORDS
    }

    /// Appends a finished record, which gives back `memory` when it is written and hashed. Returns
    /// when there is room for the next, not when it is written.
    pub(super) async fn append(
        &mut self,
        number: u32,
        built: BuiltRecord,
        memory: OwnedSemaphorePermit,
    ) -> Result<(), MediaError> {
        self.entries.push(IndexEntry {
            offset: self.end,
            frame_len: built.frame.len() as u32,
            number,
            run: built.run,
            encoding: built.encoding,
            head_digest: built.head_digest,
        });
        self.grains.insert_run(built.run);
        self.sum.add(&built.sum);
        self.fingerprint.merge(built.fingerprint);
        self.data_grains += built.data_grains;
        self.write(built.frame, Some(memory)).await?;
        self.core.counters.borrow_mut().records += 1;
        Ok(())
    }

    async fn write(
        &mut self,
        bytes: Bytes,
        memory: Option<OwnedSemaphorePermit>,
    ) -> Result<(), MediaError> {
        let offset = self.end;
        self.end += bytes.len() as u64;
        let memory = Rc::new(memory);
        self.hash.push(bytes.clone(), memory.clone());
        self.writes.push(offset, bytes, memory);
        if self.writes.has_failed() {
            let outcome = self.writes.finish().await;
            return outcome.map_err(MediaError::io(&self.path, "writing a segment"));
        }
        self.sync_beside().await
    }

    /// Starts a sync from time to time, and hears of its failure.
    async fn sync_beside(&mut self) -> Result<(), MediaError> {
        if self.end - self.synced_at < SYNC_STEP_BYTES {
            return Ok(());
        }
        if let Some(running) = self.syncing.take_if(|running| running.is_finished()) {
            joined(running).await.map_err(MediaError::io(&self.path, "syncing a segment"))?;
        }
        if self.syncing.is_none() {
            self.synced_at = self.end;
            let file = self.file.clone();
            let sync = async move { file.sync_data().await };
            self.syncing = Some(tokio::task::spawn_local(sync));
        }
        Ok(())
    }

    /// Writes index and trailer and makes the file and its name durable.
    pub(super) async fn finish(mut self) -> Result<DurableSegment, MediaError> {
        let index = Index { entries: std::mem::take(&mut self.entries) }.encode();
        let index_digest = Index::digest(&index);
        let (sealer, marker) = (self.sealer.clone(), self.marker);
        let (index, frame) = self
            .core
            .ctx
            .clone()
            .offload(move || {
                let frame = Index::seal(&index, &sealer, marker);
                (index, frame)
            })
            .await;
        let (index_offset, index_len) = (self.end, frame.len() as u32);
        let records = (index.len() / ENTRY_BYTES) as u32;
        let file_len = index_offset + u64::from(index_len) + TRAILER_BYTES as u64;
        let trailer = Trailer { index_offset, index_len, records, file_len, index_digest };
        let trailer = trailer.encode(&self.salt, &self.sealer);
        let mut tail = frame;
        tail.extend_from_slice(&trailer);
        self.write(tail.into(), None).await?;
        let io = |e| MediaError::io(&self.path, "writing a segment")(e);
        self.writes.finish().await.map_err(io)?;
        let file_hash = self.hash.finish().await;
        let io = |e| MediaError::io(&self.path, "syncing a segment")(e);
        if let Some(running) = self.syncing.take() {
            joined(running).await.map_err(io)?;
        }
        self.file.sync_data().await.map_err(io)?;
        if let Some(dir) = self.path.parent() {
            self.core.ctx.storage.sync_dir(dir).await.map_err(io)?;
        }
        let facts = SegmentFacts {
            number: self.number,
            medium: self.medium,
            file_len,
            file_hash,
            salt: self.salt,
            stripe: Stripe::default(),
            index_offset,
            index_len,
            index_digest,
            records,
            data_grains: self.data_grains,
            grains: runs::encode(&self.grains),
            sum: self.sum.to_bytes(),
            fingerprint: self.fingerprint,
        };
        let grains = std::mem::take(&mut self.grains);
        Ok(DurableSegment { facts, index, grains, sum: self.sum.clone() })
    }
}

impl Drop for OpenSegment {
    fn drop(&mut self) {
        if let Some(running) = self.syncing.take() {
            running.abort();
        }
    }
}
