//! Walking one segment's records: what stands there, where they end, and what is damaged.
//!
//! The walk reads headers, not payloads, except where it must tell a torn tail from damage. What is
//! *durable* (named by a mark, by a later record, or by the header of the next segment) and does not
//! check is damage, and the walk goes on at the next header that checks. Beyond that, the first record
//! that does not check is the end: that is what a crash leaves.

use std::io;

use disk::Context;

use crate::layout::RECORDS_START;
use crate::record::{ALIGN, Kind, RECORD_HEADER, RecordHeader};
use crate::segment::{ReadError, Segment, read_twice};

/// Bytes read at a time.
const WINDOW: u64 = 256 << 10;

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The headers that check, in order; those from `durable` on with a payload that checks, too.
    pub records: Vec<RecordHeader>,
    /// Stretches below `durable` that are no records: start and end.
    pub damage: Vec<(u64, u64)>,
    /// Everything before was synced.
    pub durable: u64,
    /// One past the last record (or past the damage, if that is later).
    pub end: u64,
}

/// Walks `segment`. With `sealed` the records end there and all of them are durable; without, this
/// is the last segment, and at least what is before `durable` is.
pub(crate) async fn scan(
    ctx: &Context,
    segment: &Segment,
    sealed: Option<u64>,
    durable: u64,
) -> io::Result<Scan> {
    let limit = segment.bytes.min(segment.file.len()?);
    let limit = sealed.map_or(limit, |end| end.min(limit));
    let mut window = Window { segment, start: 0, bytes: Vec::new(), unreadable: None };
    let durable = sealed.unwrap_or(durable).max(RECORDS_START);
    let mut found = Scan { durable, end: RECORDS_START, ..Scan::default() };
    let mut at = RECORDS_START;
    while at < limit {
        if let Some(header) = window.header(at, limit).await? {
            found.durable = found.durable.max(header.durable.min(at));
            at = header.end();
            found.records.push(header);
            continue;
        }
        let next = next_header(ctx, &mut window, at, limit, found.durable).await?;
        match next {
            Some(next) => {
                found.damage.push((at, next));
                at = next;
            }
            None if at < found.durable => {
                found.damage.push((at, found.durable));
                at = found.durable;
                break;
            }
            None => {
                window.readable(at)?;
                break;
            }
        }
    }
    found.end = at.max(RECORDS_START);
    if found.end < found.durable {
        // The file is shorter than what was synced of it.
        found.damage.push((found.end, found.durable));
        found.end = found.durable;
    }
    if sealed.is_none() {
        drop_torn_tail(ctx, segment, &mut found).await?;
    }
    Ok(found)
}

/// Looks for the next header after the bad one at `from`. Beyond what is durable, only a header that
/// proves `from` to be durable counts: the others are leftovers of a tail that was torn before them.
async fn next_header(
    ctx: &Context,
    window: &mut Window<'_>,
    from: u64,
    limit: u64,
    durable: u64,
) -> io::Result<Option<u64>> {
    let mut at = window.skip(from + ALIGN, limit);
    while at + RECORD_HEADER as u64 <= limit {
        if let Some(header) = window.header(at, limit).await? {
            let proven = from < durable && at < durable || header.durable > from;
            if proven && window.segment.read_payload(ctx, &header).await.is_ok() {
                return Ok(Some(at));
            }
        }
        at = window.skip(at + ALIGN, limit);
    }
    Ok(None)
}

/// Ends the records at the first one that is not durable and whose payload does not check.
async fn drop_torn_tail(ctx: &Context, segment: &Segment, found: &mut Scan) -> io::Result<()> {
    let first = found.records.partition_point(|r| r.offset < found.durable);
    for index in first..found.records.len() {
        let header = found.records[index];
        match segment.read_payload(ctx, &header).await {
            Ok(_) => {}
            // Cutting off what cannot be read might cut off what was promised.
            Err(ReadError::Io(error)) => return Err(error),
            Err(ReadError::Damaged(_)) => {
                found.records.truncate(index);
                found.end = header.offset;
                break;
            }
        }
    }
    Ok(())
}

/// Headers through a buffer, so that small records do not cost a read each.
struct Window<'a> {
    segment: &'a Segment,
    start: u64,
    bytes: Vec<u8>,
    /// The first offset that could not be read, and why.
    unreadable: Option<(u64, io::Error)>,
}

impl Window<'_> {
    /// The header at `at`, if one stands there and its record ends at or before `limit`.
    async fn header(&mut self, at: u64, limit: u64) -> io::Result<Option<RecordHeader>> {
        if at + RECORD_HEADER as u64 > limit {
            return Ok(None);
        }
        let bytes = match self.get(at) {
            Some(bytes) => bytes,
            None => {
                self.fill(at, limit).await;
                self.get(at).unwrap_or_default()
            }
        };
        let header = RecordHeader::decode(bytes, &self.segment.nonce, at);
        Ok(header.filter(|h| h.end() <= limit && sound(h)))
    }

    fn get(&self, at: u64) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from + RECORD_HEADER)
    }

    /// The first place from `at` on where a header may begin, as far as what was read ahead tells.
    fn skip(&self, mut at: u64, limit: u64) -> u64 {
        while at < limit && self.get(at).is_some_and(|bytes| !RecordHeader::may_begin(bytes)) {
            at += ALIGN;
        }
        at
    }

    /// Reads ahead from `at`; where the disk cannot read, zeros stand for what it did not give.
    async fn fill(&mut self, at: u64, limit: u64) {
        let len = WINDOW.min(limit - at) as usize;
        self.start = at;
        let file = &self.segment.file;
        if let Ok(bytes) = file.read_at(at, len).await {
            self.bytes = bytes;
            return;
        }
        // One sector may be bad: take what can be had of the others.
        self.bytes = Vec::with_capacity(len);
        while self.bytes.len() < len {
            let step = 4096.min(len - self.bytes.len());
            let from = at + self.bytes.len() as u64;
            match read_twice(file, from, step).await {
                Ok(part) => self.bytes.extend(part),
                Err(error) => {
                    self.bytes.resize(self.bytes.len() + step, 0);
                    self.unreadable.get_or_insert((from, error));
                }
            }
        }
    }

    /// Fails when what stands at `at` or a little before could not be read: then nothing says that
    /// the records end here.
    fn readable(&mut self, at: u64) -> io::Result<()> {
        match self.unreadable.take() {
            Some((from, error)) if from < at + WINDOW => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether the fields of a header that checks agree with each other.
fn sound(header: &RecordHeader) -> bool {
    match header.kind {
        Kind::CopyData => header.run.count > 0 && header.payload > 0,
        Kind::CopyZero | Kind::StreamZero => header.run.count > 0 && header.payload == 0,
        Kind::StreamData => header.run.count == u64::from(header.payload) && header.payload > 0,
        _ => true,
    }
}
