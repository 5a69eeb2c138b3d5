//! Reading one segment: verified runs, and damage where there is any.
//!
//! The chain of proof: the source signed the directory; the directory has the digest of the segment's
//! index; the index has the digest of every record's head; the head has the digest of every grain. A
//! run is handed out only when all of it holds. If header, trailer or index are damaged, the
//! directory, the part directory, or a scan over the records stand in for them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use disk::{File, OpenMode};
use grain::{GrainData, GrainSet, Run};
use tokio::task::JoinHandle;

use super::damage::{Damage, Fault, IndexSource};
use super::signed::io_fault;
use super::view::Inner;
use crate::directory::SegmentFacts;
use crate::index::{Index, IndexEntry};
use crate::record::{RecordFault, open_record};
use crate::root_digest::RootSum;
use crate::seal::{FileRole, Sealer, frame_marker};
use crate::segment::{HEADER_BYTES, SegmentHeader, TRAILER_BYTES, Trailer};

/// A run whose every grain matches a digest that the source signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedRun {
    /// The grains.
    pub data: GrainData,
    /// BLAKE3 of each; empty for a zero run.
    pub digests: Vec<[u8; 32]>,
    /// The sum over its non-zero grains, for the root digest.
    pub sum: RootSum,
}

/// What comes out of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentEvent {
    /// Verified content.
    Run(VerifiedRun),
    /// Something is wrong; reading goes on behind it.
    Damage(Damage),
}

/// Reads one segment, several records ahead in the pool. Waits when it is not asked, so the one who
/// takes the events sets the pace.
pub struct SegmentReader {
    pub(super) inner: Rc<Inner>,
    pub(super) facts: SegmentFacts,
    pub(super) path: PathBuf,
    /// The part directory of the same medium.
    pub(super) part: PathBuf,
    pub(super) sealer: Arc<Sealer>,
    pub(super) marker: [u8; 8],
    begun: bool,
    file: Option<Rc<dyn File>>,
    entries: VecDeque<IndexEntry>,
    ahead: VecDeque<Ahead>,
    /// Events that are ready.
    ready: VecDeque<SegmentEvent>,
}

struct Ahead {
    run: Run,
    offset: u64,
    verified: JoinHandle<Result<VerifiedRun, Fault>>,
}

impl SegmentReader {
    pub(super) fn new(
        inner: Rc<Inner>,
        facts: SegmentFacts,
        path: PathBuf,
        part: PathBuf,
    ) -> SegmentReader {
        let role = FileRole::Segment(facts.number);
        let set = inner.directory.manifest.set;
        let sealer = Sealer::new(inner.key.as_ref(), set, role, &facts.salt);
        SegmentReader {
            marker: frame_marker(&facts.salt),
            inner,
            facts,
            path,
            part,
            sealer: Arc::new(sealer),
            begun: false,
            file: None,
            entries: VecDeque::new(),
            ahead: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// The number of the segment.
    pub fn number(&self) -> u64 {
        self.facts.number
    }

    /// The next run or damage, in the order of the file; none at the end. Must be called within a
    /// `LocalSet`.
    pub async fn next(&mut self) -> Option<SegmentEvent> {
        if !self.begun {
            self.begun = true;
            self.begin().await;
        }
        self.read_ahead();
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        let first = self.ahead.front_mut()?;
        let verified = match (&mut first.verified).await {
            Ok(verified) => verified,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Fault::Unreadable("reading was given up".into())),
        };
        let Ahead { run, offset, .. } = self.ahead.pop_front()?;
        self.read_ahead();
        Some(match verified {
            Ok(run) => SegmentEvent::Run(run),
            Err(fault) => SegmentEvent::Damage(self.lost(fault, offset, run)),
        })
    }

    pub(super) fn damage(&self, fault: Fault, offset: u64) -> Damage {
        Damage {
            path: self.path.clone(),
            medium: self.facts.medium,
            segment: Some(self.facts.number),
            offset,
            fault,
            grains: GrainSet::new(),
        }
    }

    fn lost(&self, fault: Fault, offset: u64, run: Run) -> Damage {
        let mut grains = GrainSet::new();
        grains.insert_run(run);
        Damage { grains, ..self.damage(fault, offset) }
    }

    fn report(&mut self, damage: Damage) {
        self.ready.push_back(SegmentEvent::Damage(damage));
    }

    /// Gives the whole segment up.
    fn all_lost(&mut self, fault: Fault) {
        let damage = self.damage(fault, 0);
        let grains = self.facts.grain_set(&self.inner.directory.facts.geometry);
        self.report(Damage { grains: grains.unwrap_or_default(), ..damage });
    }

    /// Opens the file, looks at its two ends, finds the index.
    async fn begin(&mut self) {
        let opened = self.inner.signed.ctx.storage.open(&self.path, OpenMode::Read).await;
        let (file, len) = match opened.and_then(|file| file.len().map(|len| (file, len))) {
            Ok(opened) => opened,
            Err(e) => return self.all_lost(io_fault(&e)),
        };
        self.file = Some(file.clone());
        if let Some(fault) = self.check_header(&file, len).await {
            return self.all_lost(fault);
        }
        if len != self.facts.file_len {
            let fault = Fault::Length { found: len, signed: self.facts.file_len };
            let damage = self.damage(fault, len.min(self.facts.file_len));
            self.report(damage);
        } else {
            self.check_trailer(&file).await;
        }
        match self.signed_index(&file, len).await {
            Ok(index) => self.entries = index.entries.into(),
            Err(why) => {
                let (index, recovered_from, grains) = self.recover_index(&file, len).await;
                self.entries = index.entries.into();
                let fault = Fault::Index { why, recovered_from };
                let damage = self.damage(fault, self.facts.index_offset);
                self.report(Damage { grains, ..damage });
            }
        }
        let beyond = |entry: &IndexEntry| entry.offset + u64::from(entry.frame_len) > len;
        let (cut, whole): (Vec<_>, Vec<_>) = self.entries.drain(..).partition(beyond);
        self.entries = whole.into();
        for entry in cut {
            let fault = Fault::Length { found: len, signed: self.facts.file_len };
            let damage = self.lost(fault, entry.offset, entry.run);
            self.report(damage);
        }
    }

    /// A header that is whole and names something else condemns the file; a damaged one is reported
    /// and done without.
    async fn check_header(&mut self, file: &Rc<dyn File>, len: u64) -> Option<Fault> {
        let set = self.inner.directory.manifest.set;
        let signed = SegmentHeader {
            sealed: self.inner.key.is_some(),
            set,
            salt: self.facts.salt,
            number: self.facts.number,
            stripe: self.facts.stripe,
            medium: self.facts.medium,
        };
        let stored = match file.read_at(0, len.min(HEADER_BYTES as u64) as usize).await {
            Ok(stored) => stored,
            Err(e) => {
                let damage = self.damage(Fault::Unreadable(e.to_string()), 0);
                self.report(damage);
                return None;
            }
        };
        if stored == signed.encode() {
            return None;
        }
        match SegmentHeader::decode(&stored) {
            Ok(header) if header.set != set => Some(Fault::OtherSet(header.set)),
            Ok(header) if header.number != signed.number => {
                Some(Fault::OtherSegment(header.number))
            }
            Ok(_) => Some(Fault::OtherVersion),
            Err(field) => {
                let damage = self.damage(Fault::Field(field), field.offset);
                self.report(damage);
                None
            }
        }
    }

    async fn check_trailer(&mut self, file: &Rc<dyn File>) {
        let at = self.facts.index_offset.saturating_add(u64::from(self.facts.index_len));
        let fault = match file.read_at(at, TRAILER_BYTES).await {
            Ok(bytes) => match Trailer::decode(&bytes, &self.facts.salt, &self.sealer, at) {
                Ok(t) if t.index_digest == self.facts.index_digest => return,
                Ok(_) => Fault::OtherVersion,
                Err(field) => Fault::Field(field),
            },
            Err(e) => Fault::Unreadable(e.to_string()),
        };
        let damage = self.damage(fault, at);
        self.report(damage);
    }

    /// The index in the file, if it is the signed one.
    async fn signed_index(&self, file: &Rc<dyn File>, len: u64) -> Result<Index, String> {
        let (offset, index_len) = (self.facts.index_offset, self.facts.index_len);
        if offset.checked_add(u64::from(index_len)).is_none_or(|end| end > len) {
            return Err("beyond the end of the file".into());
        }
        let frame = file.read_at(offset, index_len as usize).await.map_err(|e| e.to_string())?;
        let (sealer, marker, digest) = (self.sealer.clone(), self.marker, self.facts.index_digest);
        let geometry = self.inner.directory.facts.geometry.clone();
        let decode = move || {
            let plain = Index::open(frame, &sealer, marker, offset).map_err(|e| e.to_string())?;
            if Index::digest(&plain) != digest {
                return Err("not the signed one".to_owned());
            }
            Index::decode(&plain, &geometry).map_err(|e| e.to_string())
        };
        self.inner.signed.ctx.offload(decode).await
    }

    async fn recover_index(&self, file: &Rc<dyn File>, len: u64) -> (Index, IndexSource, GrainSet) {
        if let Some(index) = super::recover::from_part(self).await {
            return (index, IndexSource::Part, GrainSet::new());
        }
        super::recover::from_scan(self, file, len).await
    }

    /// Keeps the pool busy.
    fn read_ahead(&mut self) {
        let ctx = &self.inner.signed.ctx;
        let depth = ctx.offload.width() * 2 + 2;
        let Some(file) = &self.file else { return };
        while self.ahead.len() < depth {
            let Some(entry) = self.entries.pop_front() else { return };
            let (ctx, file, sealer) = (ctx.clone(), file.clone(), self.sealer.clone());
            let geometry = self.inner.directory.facts.geometry.clone();
            let marker = self.marker;
            let verify = async move {
                let frame = file.read_at(entry.offset, entry.frame_len as usize).await;
                let frame = frame.map_err(|e| Fault::Unreadable(e.to_string()))?;
                let job = move || verify_record(frame, &entry, &geometry, &sealer, marker);
                ctx.offload(job).await
            };
            let verified = tokio::task::spawn_local(verify);
            self.ahead.push_back(Ahead { run: entry.run, offset: entry.offset, verified });
        }
    }
}

impl Drop for SegmentReader {
    fn drop(&mut self) {
        self.ahead.iter().for_each(|ahead| ahead.verified.abort());
    }
}

fn verify_record(
    frame: Vec<u8>,
    entry: &IndexEntry,
    geometry: &grain::Geometry,
    sealer: &Sealer,
    marker: [u8; 8],
) -> Result<VerifiedRun, Fault> {
    let record = open_record(frame, geometry, sealer, marker, entry.offset).map_err(fault_of)?;
    if record.run != entry.run || record.head_digest != entry.head_digest {
        return Err(Fault::NotSigned);
    }
    let verified = record.verify(geometry.grain).map_err(fault_of)?;
    Ok(VerifiedRun { data: verified.data, digests: verified.digests, sum: verified.sum })
}

fn fault_of(fault: RecordFault) -> Fault {
    match fault {
        RecordFault::Field(field) => Fault::Field(field),
        RecordFault::Seal => Fault::Seal,
        RecordFault::Content => Fault::Content,
    }
}
