//! The [`History`] and its state: what can be asked without waiting, and the rules of the points.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use disk::{Context, File};
use grain::{Geometry, Span, VolumeId};
use tokio::sync::Mutex;

use crate::layout::RECORDS_START;

use super::cache::Cache;
use super::files::Files;
use super::index::{Entry, Summary};
use super::layout::Tally;
use super::segment::Segment;
use super::spans::Spans;
use super::{Config, Error, Moment, Point};

/// The most spans of captured bytes that are remembered (about 40 bytes each).
const MAX_CAPTURED: usize = 1 << 20;
/// The most moments for which they are.
const MAX_MOMENTS: usize = 64;

/// The undo log of a replica.
///
/// Calling contract: one owner, one thread, inside a `LocalSet` (what writes runs in tasks of its own and
/// to its end, even when the caller's future is dropped). Calls that write wait for each other. After an
/// error for which [`Error::needs_reopen`] holds, every later call that writes gives the same error;
/// reading goes on.
///
/// The owner captures under the moment at which its base stands, and writes to the base when the capture
/// has returned. Who reads an earlier moment reads the base *first* and lays [`History::lookup`] over it:
/// what was overwritten meanwhile shows in the lookup before it is overwritten.
///
/// Memory: 40 bytes for each record of the segment that is being written (two for an ordered map that is
/// half full), at most 40 MiB for what was captured lately, at most 4 MiB of index blocks, at most 64 open
/// files; for each sealed segment 16 bytes for 102 records and the set of the grains that it touches (4 KiB
/// for each part of 32,768 grains that is touched in part). A sealed segment whose index is damaged has all
/// of it in memory.
pub struct History {
    pub(super) ctx: Context,
    pub(super) config: Config,
    pub(super) geometry: Geometry,
    pub(super) files: Files,
    pub(super) state: RefCell<State>,
    pub(super) cache: RefCell<Cache>,
    /// Sealed segments that were read lately.
    pub(super) open_files: RefCell<VecDeque<(u64, Rc<dyn File>)>>,
    /// Held by who writes.
    pub(super) log: Mutex<()>,
}

/// Figures for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of all segment files.
    pub file_bytes: u64,
    /// How many there are, the one that is being written among them.
    pub segments: u64,
    /// Records of saved bytes in them, the withdrawn ones of a segment that is still needed among them.
    pub records: u64,
    /// Points that are listed.
    pub points: u64,
    /// Time of the oldest, in milliseconds since 1970.
    pub oldest_point_ms: Option<u64>,
    /// Time of the newest.
    pub newest_point_ms: Option<u64>,
    /// About how many bytes of memory the history takes.
    pub memory_bytes: u64,
}

/// How the entries of a sealed segment are had, in the order of [`Entry::key`].
pub(super) enum Index {
    /// In blocks on the disk; the first key of each.
    Disk { at: u64, fences: Vec<(VolumeId, u64)> },
    /// Found by a walk, because what is on the disk does not check.
    Memory(Rc<Vec<Entry>>),
}

/// A segment that is not written any more.
pub(super) struct Sealed {
    pub segment: Rc<Segment>,
    /// Size of the file.
    pub bytes: u64,
    /// Where the records end.
    pub end: u64,
    pub summary: Summary,
    pub index: RefCell<Index>,
}

/// The segment that is being written.
pub(super) struct Current {
    pub segment: Rc<Segment>,
    pub file: Rc<dyn File>,
    /// Where the next record goes.
    pub tail: u64,
    /// Everything before was synced.
    pub durable: u64,
    /// Length of the file.
    pub allocated: u64,
    /// Saved bytes that are durable, by volume, start and offset in the segment.
    pub entries: BTreeMap<(VolumeId, u64, u64), Entry>,
    /// Those that are written and not synced.
    pub pending: Vec<Entry>,
    pub summary: Summary,
    /// Points and withdrawals, as they stand in the segment.
    pub events: Vec<Vec<u8>>,
    /// Before the first record.
    pub before: Tally,
    /// Of the newest mark.
    pub generation: u64,
}

/// A point, and the newest segment with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Noted {
    pub point: Point,
    pub segment: u64,
}

/// What has been captured lately, by moment.
#[derive(Default)]
pub(super) struct Captured(BTreeMap<Moment, Spans>);

pub(super) struct State {
    pub sealed: BTreeMap<u64, Rc<Sealed>>,
    pub current: Current,
    pub tally: Tally,
    /// Grows by one with every opening.
    pub life: u32,
    pub low: u64,
    pub oldest: u64,
    /// By commit; those of one commit in the order in which they were noted.
    pub points: Vec<Noted>,
    pub captured: Captured,
    pub failed: Option<Error>,
}

impl Current {
    /// A segment without records.
    pub(super) fn new(segment: Rc<Segment>, file: Rc<dyn File>, allocated: u64) -> Current {
        Current {
            segment,
            file,
            tail: RECORDS_START,
            durable: RECORDS_START,
            allocated,
            entries: BTreeMap::new(),
            pending: Vec::new(),
            summary: Summary::default(),
            events: Vec::new(),
            before: Tally::default(),
            generation: 0,
        }
    }

    pub(super) fn add(&mut self, entry: Entry, geometry: &Geometry) {
        self.summary.add(&entry, geometry);
        self.entries.insert((entry.volume, entry.start, entry.offset), entry);
    }
}

impl Captured {
    pub(super) fn insert(&mut self, moment: Moment, span: Span) {
        self.0.entry(moment).or_default().insert(span);
    }

    /// Forgets the oldest when it is too much.
    pub(super) fn trim(&mut self) {
        while self.0.len() > MAX_MOMENTS || self.len() > MAX_CAPTURED {
            self.0.pop_first();
        }
    }

    pub(super) fn missing(&self, moment: Moment, span: Span) -> Vec<Span> {
        self.0.get(&moment).map_or_else(|| vec![span], |spans| spans.missing(span))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn len(&self) -> usize {
        self.0.values().map(Spans::len).sum()
    }
}

/// Adds a point, or gives one that is there its new label.
pub(super) fn note(points: &mut Vec<Noted>, noted: Noted) {
    let same =
        |n: &&mut Noted| n.point.commit == noted.point.commit && n.point.cut == noted.point.cut;
    if let Some(known) = points.iter_mut().find(same) {
        known.segment = noted.segment;
        if noted.point.label.is_some() {
            known.point = noted.point;
        }
        return;
    }
    let at = points.partition_point(|n| n.point.commit <= noted.point.commit);
    points.insert(at, noted);
}

impl State {
    pub(super) fn check(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Fails when `moment` is not kept any more.
    pub(super) fn check_kept(&self, moment: Moment) -> Result<(), Error> {
        if moment.commit < self.oldest {
            return Err(Error::Withdrawn { moment, oldest: self.oldest });
        }
        Ok(())
    }
}

impl History {
    /// The parts of `span` that have no record under `moment` (same commit and same split), in address
    /// order: what has to be captured before it is overwritten. Nothing when the moment is withdrawn.
    ///
    /// What was captured is remembered for the newest moments, in bounded memory, and over an opening as
    /// far as the newest segments tell. For others, parts may be named although they have a record; to
    /// capture them again costs space and changes nothing, the first record counts.
    pub fn uncaptured(&self, moment: Moment, span: Span) -> Vec<Span> {
        let state = self.state.borrow();
        if moment.commit < state.oldest {
            return Vec::new();
        }
        state.captured.missing(moment, span)
    }

    /// The points, oldest first; withdrawn ones are left out.
    pub fn points(&self) -> Vec<Point> {
        self.state.borrow().points.iter().map(|noted| noted.point.clone()).collect()
    }

    /// Points and records with a commit below this are withdrawn; [`super::UNKNOWN`] while nothing is kept.
    pub fn oldest(&self) -> u64 {
        self.state.borrow().oldest
    }

    /// What [`History::withdraw_below`] has to be called with so that the oldest sealed segment can go;
    /// `None` when there is none. The segment that is being written does not count, see
    /// [`History::seal`].
    pub fn next_release(&self) -> Option<u64> {
        let state = self.state.borrow();
        let (_, sealed) = state.sealed.first_key_value()?;
        let above = if sealed.summary.entries == 0 { 0 } else { sealed.summary.most + 1 };
        Some(above.max(state.oldest))
    }

    /// The failure that stopped this history, if one did.
    pub fn failure(&self) -> Option<Error> {
        self.state.borrow().failed.clone()
    }

    /// Figures for the operator.
    pub fn stats(&self) -> Stats {
        let state = self.state.borrow();
        let sealed_bytes: u64 = state.sealed.values().map(|s| s.bytes).sum();
        let sealed_records: u64 = state.sealed.values().map(|s| s.summary.entries).sum();
        let times = || state.points.iter().map(|noted| noted.point.unix_ms);
        let held: u64 = state.sealed.values().map(|s| s.memory_bytes()).sum();
        let current = state.current.entries.len() * 2 * size_of::<Entry>();
        let events: usize = state.current.events.iter().map(Vec::len).sum();
        let own = current + events + state.captured.len() * 40 + state.points.len() * 160;
        Stats {
            file_bytes: sealed_bytes + state.current.allocated,
            segments: state.sealed.len() as u64 + 1,
            records: sealed_records + state.current.entries.len() as u64,
            points: state.points.len() as u64,
            oldest_point_ms: times().next(),
            newest_point_ms: times().next_back(),
            memory_bytes: held
                + own as u64
                + state.current.summary.touched.memory_bytes()
                + self.cache.borrow().bytes(),
        }
    }
}

impl Sealed {
    fn memory_bytes(&self) -> u64 {
        let index = match &*self.index.borrow() {
            Index::Disk { fences, .. } => fences.len() * size_of::<(VolumeId, u64)>(),
            Index::Memory(entries) => entries.len() * size_of::<Entry>(),
        };
        self.summary.touched.memory_bytes() + index as u64
    }
}
