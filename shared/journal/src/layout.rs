//! The fixed parts of a segment file: header and durable marks. `docs/formats/journal.md` has the
//! picture and the reasons; the numbers stand only here.
//!
//! ```text
//!      0  header
//!   4096  header, second copy
//!   8192  mark, slot 0
//!  12288  mark, slot 1
//!  16384  records
//! ```
//!
//! Decoders trust nothing: what does not check is `None`, and the caller says what that means there.

use crate::codec::{Reader, Writer, crc_of};

/// Where the two copies of the header stand.
pub(crate) const HEADER_AT: [u64; 2] = [0, 4096];
/// Where the two slots of the durable mark stand.
pub(crate) const MARK_AT: [u64; 2] = [8192, 12288];
/// Where the records begin.
pub(crate) const RECORDS_START: u64 = 16384;
/// The smallest segment: the fixed part and some records.
pub(crate) const MIN_SEGMENT_BYTES: u64 = 2 * RECORDS_START;
/// The version of the format that this program writes and reads.
pub(crate) const VERSION: u32 = 1;

const HEADER_MAGIC: [u8; 8] = *b"GHJRNSEG";
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"GHJM");
/// Bytes of an encoded header.
pub(crate) const HEADER_LEN: usize = 256;
/// Bytes of an encoded mark.
pub(crate) const MARK_LEN: usize = 64;

/// Drawn afresh for every segment; goes into the checksum of everything in it.
pub(crate) type Nonce = [u8; 16];

/// False for a number of a segment or commit that no journal reaches: what carries it was not written by
/// us, though its checksum fits, and reckoning with it would overflow. Records are held to it as headers
/// are: a number taken from a record goes into the next segment's header.
pub(crate) fn is_possible_counter(number: u64) -> bool {
    number < 1 << 62
}

/// The segment before this one, as its successor knew it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Previous {
    /// Its number; 0 when there is none.
    pub number: u64,
    /// Its nonce.
    pub nonce: Nonce,
    /// Where its records end: everything before was synced, everything after does not count.
    pub end: u64,
}

/// What has been applied and given up, as far as a header or a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Commits up to this number are wholly in the base.
    pub applied: u64,
    /// Segments below this number are not needed any more.
    pub low: u64,
    /// The number of the newest commit record written before.
    pub newest: u64,
}

impl Progress {
    fn is_possible(&self) -> bool {
        [self.applied, self.low, self.newest].into_iter().all(is_possible_counter)
    }

    /// Each field at its larger value.
    pub(crate) fn max(self, other: Progress) -> Progress {
        Progress {
            applied: self.applied.max(other.applied),
            low: self.low.max(other.low),
            newest: self.newest.max(other.newest),
        }
    }
}

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub number: u64,
    pub nonce: Nonce,
    pub previous: Previous,
    /// Size of the file.
    pub bytes: u64,
    pub progress: Progress,
    /// BLAKE3 of the geometry.
    pub geometry: [u8; 32],
}

/// A header as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Good(SegmentHeader),
    /// It checks, and is of another version.
    Version(u32),
    /// It does not check.
    Bad,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(HEADER_LEN);
        w.bytes(&HEADER_MAGIC).u32(VERSION).u32(0).u64(self.number).bytes(&self.nonce);
        w.u64(self.previous.number).bytes(&self.previous.nonce).u64(self.previous.end);
        w.u64(self.bytes);
        w.u64(self.progress.applied).u64(self.progress.low).u64(self.progress.newest);
        w.bytes(&self.geometry).pad_to(HEADER_LEN);
        let mut bytes = w.finish();
        let crc = crc_of(&[&bytes]).to_le_bytes();
        bytes[12..16].copy_from_slice(&crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> HeaderFound {
        Self::parse(bytes).unwrap_or(HeaderFound::Bad)
    }

    fn parse(bytes: &[u8]) -> Option<HeaderFound> {
        let bytes = bytes.get(..HEADER_LEN)?;
        let mut r = Reader::new(bytes);
        if r.array()? != HEADER_MAGIC {
            return None;
        }
        let version = r.u32()?;
        if r.u32()? != crc_of(&[bytes.get(..12)?, &[0; 4], bytes.get(16..)?]) {
            return None;
        }
        if version != VERSION {
            return Some(HeaderFound::Version(version));
        }
        let number = r.u64()?;
        let nonce = r.array()?;
        let previous = Previous { number: r.u64()?, nonce: r.array()?, end: r.u64()? };
        let size = r.u64()?;
        let progress = Progress { applied: r.u64()?, low: r.u64()?, newest: r.u64()? };
        let geometry = r.array()?;
        if !is_possible_counter(number) || !progress.is_possible() {
            return None;
        }
        Some(HeaderFound::Good(SegmentHeader {
            number,
            nonce,
            previous,
            bytes: size,
            progress,
            geometry,
        }))
    }
}

/// A durable mark: what is known to be on stable storage, written after the sync that made it so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Grows by one with every mark of the segment.
    pub generation: u64,
    /// Everything in this segment before this offset was synced.
    pub durable: u64,
    pub progress: Progress,
    /// Nonce of the segment after this one, once there is one; else zeros.
    pub next: Nonce,
}

impl Mark {
    pub(crate) fn encode(&self, nonce: &Nonce) -> Vec<u8> {
        let mut w = Writer::with_capacity(MARK_LEN);
        w.u32(MARK_MAGIC).u32(0).u64(self.generation).u64(self.durable);
        w.u64(self.progress.applied).u64(self.progress.low).u64(self.progress.newest);
        w.bytes(&self.next);
        let mut bytes = w.finish();
        debug_assert_eq!(bytes.len(), MARK_LEN);
        let crc = crc_of(&[nonce, &bytes]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], nonce: &Nonce) -> Option<Mark> {
        let bytes = bytes.get(..MARK_LEN)?;
        let mut r = Reader::new(bytes);
        if r.u32()? != MARK_MAGIC {
            return None;
        }
        if r.u32()? != crc_of(&[nonce, bytes.get(..4)?, &[0; 4], bytes.get(8..)?]) {
            return None;
        }
        let mark = Mark {
            generation: r.u64()?,
            durable: r.u64()?,
            progress: Progress { applied: r.u64()?, low: r.u64()?, newest: r.u64()? },
            next: r.array()?,
        };
        mark.progress.is_possible().then_some(mark)
    }
}
