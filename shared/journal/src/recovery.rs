//! Opening a journal: read what is there, seal the last segment, begin a new one.
//!
//! What stands in the last segment beyond its durable mark is copied into the new segment before that
//! one becomes part of the journal. After a failed sync the page cache may show bytes that are not on
//! the disk, and no sync of the old file can be believed about them; a copy settles it. When little is
//! left in the last segment, all of it that still counts is copied and the new segment takes its place
//! and number, so that an agent that starts again and again does not fill the disk with segments.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use disk::Context;
use grain::{CutId, Geometry, GrainSet, SessionId, VolumeId};
use tokio::sync::{Mutex, Notify};

use crate::chain::{Chain, Directory, read_directory};
use crate::commit::in_version_order;
use crate::damage::Damage;
use crate::generations::Generations;
use crate::index::{Place, Stretch};
use crate::layout::{Previous, Progress, RECORDS_START};
use crate::record::{Kind, RECORD_HEADER, RecordHeader};
use crate::replay::Replay;
use crate::seal::{Copy, kept_bytes, low_water, plan};
use crate::segment::{ReadError, Segment};
use crate::state::{Counters, LiveCommit, Marks, OpenSession, State};
use crate::stream::OpenStream;
use crate::{Config, Error, Journal, Moment};

/// What an opening found.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Sessions that are neither committed nor aborted, with all that arrived, durable.
    pub sessions: Vec<SessionState>,
    /// Commits that are not wholly in the base, oldest first; among them those of nothing, with an empty
    /// body, at which a stream began.
    pub commits: Vec<Commit>,
    /// The stream that follows the newest commit, if there is one and it has not been ended: it is kept
    /// until [`Journal::end_stream`].
    pub stream: Option<StreamState>,
    /// What is damaged. Told again at every opening until the segment is given up.
    pub damage: Vec<Damage>,
}

/// A session as recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Which.
    pub session: SessionId,
    /// The cut that it copies.
    pub cut: CutId,
    /// The grains that are there.
    pub received: GrainSet,
    /// Bytes that its records take in the journal.
    pub bytes: u64,
}

/// A stream as recovered: everything up to its last sequence is there, on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// The cut that it follows.
    pub cut: CutId,
    /// The number of the commit that reached that cut.
    pub commit: u64,
    /// The last sequence; 0 for none.
    pub sequence: u64,
    /// The grains that it wrote.
    pub grains: GrainSet,
}

/// A commit as recovered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Counts up from 1.
    pub number: u64,
    /// The cut that it reaches.
    pub cut: CutId,
    /// The sessions that it adopted, in version order.
    pub sessions: Vec<SessionId>,
    /// The caller's bytes.
    pub body: Bytes,
}

impl Journal {
    /// Opens the journal in `config.dir`, or makes it. Everything in the answer is on stable storage
    /// when this returns.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk cannot read or write (damage of what was stored is no error, it is
    /// in the answer), [`Error::OtherGeometry`], [`Error::Newer`], [`Error::Config`],
    /// [`Error::NoSpace`].
    pub async fn open(
        ctx: Context,
        config: Config,
        geometry: Geometry,
    ) -> Result<(Rc<Journal>, Recovered), Error> {
        config.validate()?;
        let dir = config.dir.clone();
        let made = ctx.storage.create_dir(&dir).await;
        made.map_err(|e| Error::io("create", &dir, e))?;
        if let Some(parent) = dir.parent() {
            let synced = ctx.storage.sync_dir(parent).await;
            synced.map_err(|e| Error::io("sync", parent, e))?;
        }
        let geometry_digest = digest_of(&geometry);
        let directory = read_directory(&ctx, &dir, &geometry_digest).await?;
        let chain = directory.read_chain(&ctx).await?;
        let mut replay = Replay::new(&geometry);
        replay.damage.extend(chain.damage.iter().cloned());
        read_records(&ctx, &chain, &dir, &mut replay).await?;
        let lost = replay.conclude(chain.progress);
        let journal = Rc::new(Journal {
            state: RefCell::new(empty_state(&chain)),
            geometry: geometry.clone(),
            geometry_digest,
            log: Mutex::new(()),
            changed: Notify::new(),
            applying: Rc::new(Cell::new(false)),
            config,
            ctx,
        });
        let moved = journal.begin_anew(&directory, &chain, &replay).await?;
        let recovered = journal.restore(replay, &lost, &moved);
        Ok((journal, recovered))
    }

    /// Makes the new segment and clears away what does not count any more. Returns where the records
    /// that were copied stand now.
    async fn begin_anew(
        &self,
        directory: &Directory,
        chain: &Chain,
        replay: &Replay<'_>,
    ) -> Result<BTreeMap<Place, Place>, Error> {
        for path in &directory.litter {
            let removed = self.ctx.storage.remove(path).await;
            removed.map_err(|e| Error::io("remove", path, e))?;
        }
        let mut progress = chain.progress;
        progress.newest = replay.newest;
        let moved = match plan(chain, replay, &self.config) {
            Some(plans) => self.copy_first_that_works(plans, chain, replay, progress).await?,
            None => {
                let number = progress.low.max(1);
                self.begin_with(number, Previous::default(), None, progress).await?
            }
        };
        let low = self.state.borrow().progress.low;
        for path in directory.below(low) {
            // Below a durable low-water mark it means nothing; the next opening tries again.
            if let Err(error) = self.ctx.storage.remove(path).await {
                tracing::warn!(path = %path.display(), %error, "cannot remove a segment");
            }
        }
        self.state.borrow_mut().segments.retain(|number, _| *number >= low);
        Ok(moved)
    }

    async fn copy_first_that_works(
        &self,
        plans: Vec<Copy>,
        chain: &Chain,
        replay: &Replay<'_>,
        progress: Progress,
    ) -> Result<BTreeMap<Place, Place>, Error> {
        let many = plans.len();
        for (tried, copy) in plans.into_iter().enumerate() {
            let last = tried + 1 == many;
            let low = low_water(chain, replay, &copy);
            let progress = Progress { low: progress.low.max(low), ..progress };
            let (number, previous) = (copy.number, copy.previous);
            match self.begin_with(number, previous, Some(copy), progress).await {
                // A damaged payload: leave the record where it is, and tell of it when it is read.
                Err(Error::Damaged { .. }) if !last => {}
                other => return other,
            }
        }
        Ok(BTreeMap::new())
    }

    /// Makes segment `number`, with what is to be copied in it, and makes it the current one.
    async fn begin_with(
        &self,
        number: u64,
        previous: Previous,
        copy: Option<Copy>,
        mut progress: Progress,
    ) -> Result<BTreeMap<Place, Place>, Error> {
        if progress.low == 0 {
            progress.low = number;
        }
        let headers = copy.as_ref().map_or(&[][..], |copy| &copy.headers);
        let needed = RECORDS_START + kept_bytes(headers);
        let bytes = self.config.segment_bytes.max(needed.next_multiple_of(4096));
        let segment = self.make_segment(number, bytes, previous, progress).await?;
        let mut moved = BTreeMap::new();
        let mut at = RECORDS_START;
        if let Some(from) = copy.as_ref().and_then(|copy| copy.from.as_ref()) {
            for header in headers {
                let old = Place { segment: from.number, offset: header.offset };
                moved.insert(old, Place { segment: number, offset: at });
                at = self.copy_over(from, &segment, header, at).await?;
            }
        }
        segment.file.sync_data().await.map_err(|e| self.cannot("sync", e))?;
        self.adopt(&segment).await?;
        let before = self.state.borrow().segments.get(&previous.number).cloned();
        if let Some(before) = before {
            self.mark_ended(&before, previous.end, progress, segment.nonce).await;
        }
        let mut state = self.state.borrow_mut();
        state.progress = progress;
        state.begin_segment(segment, at, progress);
        Ok(moved)
    }

    async fn copy_over(
        &self,
        from: &Segment,
        to: &Segment,
        header: &RecordHeader,
        at: u64,
    ) -> Result<u64, Error> {
        let payload = match from.read_payload(&self.ctx, header).await {
            Ok(payload) => payload,
            Err(ReadError::Io(e)) => return Err(self.cannot("read the segment before", e)),
            Err(ReadError::Damaged(what)) => {
                let (offset, run) = (header.offset, header.run);
                return Err(Error::Damaged { segment: from.number, offset, what, run });
            }
        };
        let header = RecordHeader { offset: at, durable: RECORDS_START, ..*header };
        let encoded = Bytes::from(header.encode(&to.nonce));
        to.file.write_at(at, encoded).await.map_err(|e| self.cannot("write", e))?;
        if !payload.is_empty() {
            let written = to.file.write_at(at + RECORD_HEADER as u64, payload).await;
            written.map_err(|e| self.cannot("write", e))?;
        }
        Ok(header.end())
    }

    /// Fills the state with what was found, at the places where it stands now.
    fn restore(
        &self,
        replay: Replay<'_>,
        lost: &BTreeMap<u64, GrainSet>,
        moved: &BTreeMap<Place, Place>,
    ) -> Recovered {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let now = |place: Place| moved.get(&place).copied().unwrap_or(place);
        let mut recovered = Recovered { damage: replay.damage, ..Recovered::default() };
        let newest = replay.commits.last_key_value().map(|(number, _)| *number);
        let first = replay.commits.first_key_value().map(|(number, _)| number - 1);
        let commit = first.unwrap_or(state.progress.newest);
        state.index.split(Moment { commit, split: 0 });
        for (number, commit) in replay.commits {
            let mut first_segment = now(commit.place).segment;
            let mut sessions = Vec::with_capacity(commit.sessions.len());
            for (adopted, found) in commit.sessions {
                sessions.push(adopted.session);
                for mut record in in_version_order(found.records) {
                    record.place = now(record.place);
                    first_segment = first_segment.min(record.place.segment);
                    state.index_copy(&self.geometry, &record, number);
                }
            }
            for run in lost.get(&number).into_iter().flat_map(GrainSet::runs) {
                state.index.forget(self.geometry.span_of(run));
            }
            self.committed(state, number);
            let (cut, body) = (commit.cut, commit.body);
            let mut stream =
                StreamState { cut, commit: number, sequence: 0, grains: GrainSet::new() };
            for write in commit.stream {
                stream.sequence = stream.sequence.max(write.sequence);
                stream.grains.insert_run(self.geometry.touched_by(write.span));
                let stretch = Stretch::whole(write.span, now(write.place), write.zero, number);
                state.index.insert(write.span.volume, write.span.start, stretch);
            }
            if Some(number) == newest {
                state.streamed = stream.sequence;
            }
            if Some(number) == newest && commit.streams {
                state.stream = Some(OpenStream::new(number, cut, stream.sequence));
                recovered.stream = Some(stream);
            }
            state.commits.insert(number, LiveCommit { first_segment });
            recovered.commits.push(Commit { number, cut, sessions, body });
        }
        for (session, found) in replay.sessions {
            let Some(cut) = found.cut else { continue };
            let mut open = OpenSession::new(cut);
            for mut record in found.records {
                record.place = now(record.place);
                open.add(record, 0);
            }
            open.bytes = found.bytes;
            open.durable = open.appended.clone();
            state.open_records += open.records.len() as u64;
            let (received, bytes) = (open.appended.clone(), open.bytes);
            recovered.sessions.push(SessionState { session, cut, received, bytes });
            state.sessions.insert(session, open);
        }
        let current = state.current().number;
        let ended = replay.ended.into_iter().map(|(id, segment)| (id, segment.min(current)));
        state.ended.extend(ended);
        recovered
    }
}

/// Reads the payloads that are needed now, and puts all records together.
async fn read_records(
    ctx: &Context,
    chain: &Chain,
    dir: &std::path::Path,
    replay: &mut Replay<'_>,
) -> Result<(), Error> {
    for link in &chain.links {
        let Some(segment) = &link.segment else { continue };
        for header in &link.scan.records {
            if let Kind::Other(code) = header.kind {
                let value = u32::from(code);
                return Err(Error::Newer { segment: link.number, what: "record kind", value });
            }
            if header.flags != 0 {
                let value = u32::from(header.flags);
                return Err(Error::Newer { segment: link.number, what: "record flags", value });
            }
            if !Replay::wants_payload(header) {
                replay.take(link.number, header, Some(&Bytes::new()));
                continue;
            }
            match segment.read_payload(ctx, header).await {
                Ok(payload) => replay.take(link.number, header, Some(&payload)),
                Err(ReadError::Damaged(_)) => replay.take(link.number, header, None),
                Err(ReadError::Io(e)) => return Err(Error::io("read", dir, e)),
            }
        }
    }
    Ok(())
}

/// A state with the segments of the chain, and nothing else.
fn empty_state(chain: &Chain) -> State {
    let start = Place { segment: 0, offset: 0 };
    let segments = chain.links.iter().filter_map(|l| Some((l.number, l.segment.clone()?)));
    State {
        segments: segments.collect(),
        spares: Vec::new(),
        tail: RECORDS_START,
        queue: VecDeque::new(),
        queued_bytes: 0,
        draining: false,
        syncing: false,
        written: start,
        durable: start,
        marks: Marks::default(),
        progress: Progress::default(),
        progress_durable: Progress::default(),
        failed: None,
        sessions: BTreeMap::new(),
        ended: BTreeMap::new(),
        commits: BTreeMap::new(),
        stream: None,
        streamed: 0,
        index: Generations::default(),
        cursor: (VolumeId(0), 0),
        open_records: 0,
        counters: Counters::default(),
    }
}

/// BLAKE3 of the grain size and of the volumes' sizes, in their order.
pub(crate) fn digest_of(geometry: &Geometry) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&geometry.grain.bytes().to_le_bytes());
    for (_, volume) in geometry.iter() {
        hasher.update(&volume.bytes.to_le_bytes());
    }
    *hasher.finalize().as_bytes()
}
