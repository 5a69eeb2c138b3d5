//! Walking one segment's records: what stands there, where they end, and what is damaged.
//!
//! What is *durable* (named by a mark, by a later record, or by the header of the next segment) and does
//! not check is damage, and the walk goes on at the next header that checks. Beyond that, the first record
//! that does not check is the end: that is what a crash leaves.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File};
use grain::Geometry;

use crate::layout::RECORDS_START;
use crate::segment::ReadError;

use super::Error;
use super::index::Entry;
use super::layout::{Mark, Tally};
use super::record::{ALIGN, Kind, RECORD_HEADER, RecordHeader};
use super::segment::{Segment, read_payload};
use super::window::Window;

/// What the walk met, in its order, saved bytes left out.
#[derive(Debug)]
pub(super) enum Item {
    /// A point, a withdrawal or a reset.
    Event { header: RecordHeader, payload: Bytes },
    /// A point whose payload does not match.
    BadPoint { at: u64 },
    /// Bytes that were synced and are no records. What had been written by the time of the next record
    /// that checks, if there is one.
    Gap { from: u64, to: u64, tally: Option<Tally> },
}

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The saved bytes, in the order of the log.
    pub entries: Vec<Entry>,
    pub items: Vec<Item>,
    /// Before the first record.
    pub first: Option<Tally>,
    /// After the last record.
    pub last: Tally,
    /// The largest of a record.
    pub life: u32,
    /// Everything before was synced.
    pub durable: u64,
    /// One past the last record (or past the damage, if that is later).
    pub end: u64,
}

/// What is known of a segment before it is walked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// It has a successor, whose word is that it ends here: all of it is durable.
    Sealed(u64),
    /// It is the last one, or nothing says where it ends.
    Open(Option<Mark>),
}

/// Walks a segment.
///
/// # Errors
/// [`Error::Newer`]; [`Error::Io`] when what may be its end cannot be read.
pub(super) async fn scan(
    ctx: &Context,
    segment: &Segment,
    file: &Rc<dyn File>,
    geometry: &Geometry,
    known: Known,
) -> Result<Scan, Error> {
    let cannot = |e| Error::io("read", &segment.path, e);
    let len = file.len().map_err(cannot)?;
    let (limit, durable, mark) = match known {
        Known::Sealed(end) => (end.min(len), end, None),
        Known::Open(mark) => (len, mark.map_or(0, |m| m.durable), mark),
    };
    let durable = durable.max(RECORDS_START);
    let mut walk = Walk {
        ctx,
        file,
        geometry,
        limit,
        window: Window::new(file, &segment.nonce),
        found: Scan { durable, ..Scan::default() },
        undecided: Vec::new(),
    };
    let mut at = walk.records().await.map_err(cannot)?;
    if at < walk.found.durable {
        // No record follows: only the mark may say what this was.
        let to = walk.found.durable;
        walk.settle();
        let last = walk.found.last;
        let tally = mark.filter(|m| m.durable >= to).map(|m| m.tally.max(last));
        walk.found.items.push(Item::Gap { from: at, to, tally });
        at = to;
    }
    walk.found.end = at.max(RECORDS_START);
    walk.drop_torn_tail().await.map_err(cannot)?;
    walk.read_points().await.map_err(cannot)?;
    for item in &walk.found.items {
        if let Item::Event { header, .. } = item {
            refuse_newer(segment.number, header)?;
        }
    }
    Ok(walk.found)
}

/// Records of another kind come as events: they are refused, not passed over.
pub(super) fn refuse_newer(segment: u64, header: &RecordHeader) -> Result<(), Error> {
    if let Kind::Other(code) = header.kind {
        return Err(Error::Newer { segment, what: "record kind", value: u32::from(code) });
    }
    if header.flags != 0 {
        let value = u32::from(header.flags);
        return Err(Error::Newer { segment, what: "record flags", value });
    }
    Ok(())
}

struct Walk<'a> {
    ctx: &'a Context,
    file: &'a Rc<dyn File>,
    geometry: &'a Geometry,
    limit: u64,
    window: Window<'a>,
    found: Scan,
    /// Records that check and are not known to be durable.
    undecided: Vec<RecordHeader>,
}

impl Walk<'_> {
    /// Walks to where the records end, and says where that is.
    async fn records(&mut self) -> io::Result<u64> {
        let mut at = RECORDS_START;
        while at < self.limit {
            if let Some(header) = self.header(at).await {
                self.found.durable = self.found.durable.max(header.durable.min(at));
                self.settle();
                at = header.end();
                self.undecided.push(header);
                continue;
            }
            match self.next_header(at).await {
                Some(next) => {
                    let (from, to) = (at, next.offset);
                    self.found.durable = self.found.durable.max(next.durable.min(to));
                    self.settle();
                    let tally = Some(next.tally);
                    self.found.items.push(Item::Gap { from, to, tally });
                    at = to;
                }
                None => {
                    if at >= self.found.durable {
                        self.window.readable(at)?;
                    }
                    break;
                }
            }
        }
        Ok(at)
    }

    async fn header(&mut self, at: u64) -> Option<RecordHeader> {
        let header = self.window.header(at, self.limit).await?;
        let fits = !header.kind.is_saved() || self.geometry.holds_span(header.span);
        fits.then_some(header)
    }

    /// Looks for the next header after the bad one at `from`. Beyond what is durable, only a header that
    /// proves `from` to be durable counts: the others are leftovers of a tail that was torn before them.
    async fn next_header(&mut self, from: u64) -> Option<RecordHeader> {
        let durable = self.found.durable;
        let mut at = self.window.skip(from + ALIGN, self.limit);
        while at + RECORD_HEADER as u64 <= self.limit {
            if let Some(header) = self.header(at).await {
                let proven = from < durable && at < durable || header.durable > from;
                if proven && read_payload(self.ctx, self.file, &header).await.is_ok() {
                    return Some(header);
                }
            }
            at = self.window.skip(at + ALIGN, self.limit);
        }
        None
    }

    /// Takes the records that are now known to be durable.
    fn settle(&mut self) {
        let durable = self.found.durable;
        let count = self.undecided.partition_point(|header| header.offset < durable);
        for header in self.undecided.drain(..count) {
            self.found.take(&header);
        }
    }

    /// Ends the records at the first one that is not durable and whose payload does not check.
    async fn drop_torn_tail(&mut self) -> io::Result<()> {
        self.settle();
        for header in std::mem::take(&mut self.undecided) {
            match read_payload(self.ctx, self.file, &header).await {
                Ok(_) => self.found.take(&header),
                // Cutting off what cannot be read might cut off what was promised.
                Err(ReadError::Io(error)) => return Err(error),
                Err(ReadError::Damaged(_)) => {
                    self.found.end = header.offset;
                    break;
                }
            }
        }
        Ok(())
    }

    async fn read_points(&mut self) -> io::Result<()> {
        for item in &mut self.found.items {
            let Item::Event { header, payload } = item else { continue };
            match read_payload(self.ctx, self.file, header).await {
                Ok(read) => *payload = read,
                Err(ReadError::Io(error)) => return Err(error),
                Err(ReadError::Damaged(_)) => *item = Item::BadPoint { at: header.offset },
            }
        }
        Ok(())
    }
}

impl Scan {
    fn take(&mut self, header: &RecordHeader) {
        self.first.get_or_insert(header.tally);
        self.last = header.tally_after();
        self.life = self.life.max(header.life);
        match header.kind {
            Kind::SavedData | Kind::SavedZero if header.flags == 0 => {
                self.entries.push(Entry::of(header));
            }
            _ => self.items.push(Item::Event { header: *header, payload: Bytes::new() }),
        }
    }
}
