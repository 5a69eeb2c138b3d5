//! The journal's state: plain data on one thread, changed by synchronous methods that never wait.
//! `writer`, `commit` and `apply` carry out what follows from it.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use grain::{CutId, Geometry, GrainSet, Run, SessionId, VolumeId};

use crate::generations::Generations;
use crate::index::{Place, RecordRef, Stretch};
use crate::layout::{Mark, Nonce, Progress, RECORDS_START};
use crate::record::RecordHeader;
use crate::segment::Segment;
use crate::stream::OpenStream;
use crate::{Config, Error};

/// What a manifest may take for each record of its session, at most (three entries of the grain
/// map's wire form).
const MANIFEST_PER_RECORD: u64 = 64;
/// And beside that for each session.
const MANIFEST_PER_SESSION: u64 = 1024;

/// A session that is neither committed nor aborted.
pub(crate) struct OpenSession {
    pub cut: CutId,
    pub records: Vec<RecordRef>,
    /// Grains appended.
    pub appended: GrainSet,
    /// Grains appended and on stable storage.
    pub durable: GrainSet,
    /// Appended and not known to be durable: where the record ends, and its run.
    pub undurable: VecDeque<(Place, Run)>,
    /// No grain came twice.
    pub disjoint: bool,
    /// Bytes that its records take in the journal.
    pub bytes: u64,
    /// Its commit is under way.
    pub committing: bool,
}

impl OpenSession {
    pub(crate) fn new(cut: CutId) -> Self {
        OpenSession {
            cut,
            records: Vec::new(),
            appended: GrainSet::new(),
            durable: GrainSet::new(),
            undurable: VecDeque::new(),
            disjoint: true,
            bytes: 0,
            committing: false,
        }
    }

    /// Takes a record; `stride` is what it takes in the journal.
    pub(crate) fn add(&mut self, record: RecordRef, stride: u64) {
        self.disjoint &= self.appended.insert_run(record.run) == record.run.count;
        self.bytes += stride;
        self.records.push(record);
    }
}

/// A commit whose grains are not all in the base.
pub(crate) struct LiveCommit {
    /// The oldest segment that holds any of it.
    pub first_segment: u64,
}

/// A write that has not been carried out.
#[derive(Clone)]
pub(crate) struct Item {
    pub segment: Rc<Segment>,
    pub offset: u64,
    pub bytes: Bytes,
    pub then: Then,
}

/// What a write completes.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// Nothing yet.
    Nothing,
    /// The record that ends there.
    Record(Place),
    /// A durable mark.
    Mark(Mark),
}

/// The durable marks of the current segment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Marks {
    pub queued: Mark,
    pub queued_slot: usize,
    pub written: Mark,
    pub durable: Mark,
}

/// See the module.
pub(crate) struct State {
    /// Live segments; the last is the one that is written.
    pub segments: BTreeMap<u64, Rc<Segment>>,
    pub spares: Vec<Rc<Segment>>,
    /// Where the next record goes.
    pub tail: u64,
    pub queue: VecDeque<Item>,
    pub queued_bytes: u64,
    pub draining: bool,
    pub syncing: bool,
    /// Everything before has been written, but perhaps not synced.
    pub written: Place,
    /// Everything before is on stable storage.
    pub durable: Place,
    pub marks: Marks,
    pub progress: Progress,
    /// `progress` as far as it is on stable storage.
    pub progress_durable: Progress,
    pub failed: Option<Error>,
    pub sessions: BTreeMap<SessionId, OpenSession>,
    /// Sessions that have ended, and the segment that says so.
    pub ended: BTreeMap<SessionId, u64>,
    pub commits: BTreeMap<u64, LiveCommit>,
    /// The stream that follows the newest commit.
    pub stream: Option<OpenStream>,
    /// Stream records after the newest commit, whether their stream has been ended or not.
    pub streamed: u64,
    pub index: Generations,
    pub cursor: (VolumeId, u64),
    pub open_records: u64,
    pub counters: Counters,
}

/// Counts for [`crate::Stats`].
#[derive(Clone, Copy, Default)]
pub(crate) struct Counters {
    pub appended_bytes: u64,
    pub syncs: u64,
    pub damaged_grains: u64,
}

impl State {
    pub(crate) fn current(&self) -> &Rc<Segment> {
        match self.segments.last_key_value() {
            Some((_, segment)) => segment,
            // invariant: an opening begins a segment before anyone gets the journal, and only
            // segments below the current one are given up.
            None => unreachable!("a journal always has a segment that is written"),
        }
    }

    pub(crate) fn tail_place(&self) -> Place {
        Place { segment: self.current().number, offset: self.tail }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.tail + bytes <= self.current().bytes
    }

    /// Segments that data must leave free so that every session can be committed.
    fn reserved_segments(&self, config: &Config, sessions: u64, records: u64) -> u64 {
        let manifests = (self.open_records + records) * MANIFEST_PER_RECORD
            + (self.sessions.len() as u64 + sessions) * MANIFEST_PER_SESSION;
        1 + manifests.div_ceil(config.capacity() / 2)
    }

    /// The most live segments while data is appended.
    pub(crate) fn data_segments(&self, config: &Config) -> u64 {
        config.max_segments().saturating_sub(self.reserved_segments(config, 0, 0))
    }

    /// Bytes of records that may still be appended.
    pub(crate) fn data_room(&self, config: &Config) -> u64 {
        self.room_in(self.data_segments(config), config, 1)
    }

    /// The same for a new session with so many records at most, of `stride` bytes each.
    pub(crate) fn room_for(&self, config: &Config, stride: u64, records: u64) -> u64 {
        let reserved = self.reserved_segments(config, 1, records);
        self.room_in(config.max_segments().saturating_sub(reserved), config, stride.max(1))
    }

    /// Room in this many segments, live ones among them, for records of `stride` bytes.
    fn room_in(&self, segments: u64, config: &Config, stride: u64) -> u64 {
        let whole = |bytes: u64| bytes - bytes % stride;
        let left = whole(self.current().bytes - self.tail);
        match segments.checked_sub(self.segments.len() as u64) {
            Some(more) => more * whole(config.capacity()) + left,
            None => 0,
        }
    }

    /// Records in memory.
    pub(crate) fn records(&self) -> u64 {
        let streaming = self.stream.as_ref().map_or(0, OpenStream::pending);
        self.open_records + self.index.pieces() + streaming
    }

    /// A copy record counts.
    pub(crate) fn index_copy(&mut self, geometry: &Geometry, record: &RecordRef, commit: u64) {
        let span = geometry.span_of(record.run);
        let stretch = Stretch::whole(span, record.place, record.zero, commit);
        self.index.insert(span.volume, span.start, stretch);
    }

    /// Gives the record its place at the tail and queues its writes.
    pub(crate) fn place(&mut self, mut header: RecordHeader, payload: Bytes) -> RecordHeader {
        let segment = self.current().clone();
        header.offset = self.tail;
        header.durable = if self.durable.segment == segment.number {
            self.durable.offset
        } else {
            RECORDS_START
        };
        header.newest_commit = self.progress.newest;
        let end = Place { segment: segment.number, offset: header.end() };
        self.tail = header.end();
        self.counters.appended_bytes += header.stride();
        let encoded = Bytes::from(header.encode(&segment.nonce));
        let has_payload = !payload.is_empty();
        let then = if has_payload { Then::Nothing } else { Then::Record(end) };
        self.push(Item { segment: segment.clone(), offset: header.offset, bytes: encoded, then });
        if has_payload {
            let offset = header.offset + crate::record::RECORD_HEADER as u64;
            self.push(Item { segment, offset, bytes: payload, then: Then::Record(end) });
        }
        header
    }

    fn push(&mut self, item: Item) {
        self.queued_bytes += item.bytes.len() as u64;
        self.queue.push_back(item);
    }

    /// The front of the queue was written.
    pub(crate) fn settle(&mut self) {
        let Some(item) = self.queue.pop_front() else { return };
        self.queued_bytes -= item.bytes.len() as u64;
        match item.then {
            Then::Nothing => {}
            Then::Record(end) => self.written = self.written.max(end),
            Then::Mark(mark) if item.segment.number == self.current().number => {
                self.marks.written = mark;
            }
            Then::Mark(_) => {}
        }
    }

    /// Queues a mark with what is known now. While the last mark is not durable it is overwritten in
    /// its own slot, so that a torn write always leaves the older one.
    pub(crate) fn queue_mark(&mut self) {
        let segment = self.current().clone();
        let durable = match self.durable.segment == segment.number {
            true => self.durable.offset,
            false => RECORDS_START,
        };
        let marks = &mut self.marks;
        if marks.durable.generation == marks.queued.generation {
            marks.queued_slot = 1 - marks.queued_slot;
        }
        let generation = marks.queued.generation + 1;
        let next: Nonce = [0; 16];
        marks.queued = Mark { generation, durable, progress: self.progress, next };
        let mark = marks.queued;
        let offset = crate::layout::MARK_AT[marks.queued_slot];
        let bytes = Bytes::from(mark.encode(&segment.nonce));
        self.push(Item { segment, offset, bytes, then: Then::Mark(mark) });
    }

    /// A sync of `segment` that started when `written` and `mark` stood so has succeeded.
    pub(crate) fn synced(&mut self, written: Place, mark: Mark) {
        self.durable = self.durable.max(written);
        self.progress_durable = self.progress_durable.max(mark.progress);
        if written.segment == self.current().number {
            self.marks.durable = mark;
        }
        let durable = self.durable;
        for session in self.sessions.values_mut() {
            while let Some((end, run)) = session.undurable.front().copied() {
                if end > durable {
                    break;
                }
                session.durable.insert_run(run);
                session.undurable.pop_front();
            }
        }
        // A stream record counts as soon as it is durable, and not before: what covers an older version
        // in the index must be there after any crash.
        while let Some((record, commit)) =
            self.stream.as_mut().and_then(|s| s.next_durable(durable))
        {
            let stretch = Stretch::whole(record.span, record.place, record.zero, commit);
            self.index.insert(record.span.volume, record.span.start, stretch);
        }
    }

    /// Brings `progress` up to date with what has been applied and ended.
    pub(crate) fn advance(&mut self) {
        while let Some((&number, _)) = self.commits.first_key_value() {
            // More may come for the commit that a stream follows.
            if self.index.waits(number) || self.stream.as_ref().is_some_and(|s| s.follows(number)) {
                break;
            }
            self.progress.applied = self.progress.applied.max(number);
            self.commits.remove(&number);
        }
        let commits = self.commits.values().map(|c| c.first_segment);
        let sessions =
            self.sessions.values().filter_map(|s| s.records.first()).map(|r| r.place.segment);
        let current = self.current().number;
        let low = commits.chain(sessions).min().unwrap_or(current).min(current);
        self.progress.low = self.progress.low.max(low);
    }

    /// Bytes that the live segments take.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.values().map(|s| s.bytes).sum()
    }

    /// Begins the next segment, whose durable header names `progress`, and which ends at `tail`. Its
    /// header stands for a first mark; generations go on, so that who waits for one is never fooled.
    pub(crate) fn begin_segment(&mut self, segment: Rc<Segment>, tail: u64, progress: Progress) {
        let start = Place { segment: segment.number, offset: tail };
        let generation = self.marks.queued.generation + 1;
        let mark = Mark { generation, durable: tail, progress, next: [0; 16] };
        self.tail = tail;
        self.written = start;
        self.durable = start;
        self.marks = Marks { queued: mark, queued_slot: 0, written: mark, durable: mark };
        self.progress_durable = self.progress_durable.max(mark.progress);
        self.segments.insert(segment.number, segment);
        // Whoever reported progress while the header was under way waits for a mark that names it.
        if self.progress != progress {
            self.queue_mark();
        }
    }
}
