//! The fixed parts of a segment file: header and durable marks. `docs/formats/history.md` has the picture
//! and the reasons; the numbers stand only here (the places are the journal's, `crate::layout`).

use crate::codec::{Reader, Writer, crc_of};
use crate::layout::{HEADER_LEN, MARK_LEN, Nonce, Previous, is_possible_counter};

/// The version of the format that this program writes and reads.
pub(super) const VERSION: u32 = 1;

const HEADER_MAGIC: [u8; 8] = *b"GHUNDSEG";
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"GHUM");

/// What had been written before some place in the log: tells what a record that is lost can have been.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// One past the newest commit under which something was captured; 0 for nothing.
    pub reach: u64,
    /// How many records withdrew something.
    pub controls: u64,
}

impl Tally {
    pub(super) fn is_possible(&self) -> bool {
        is_possible_counter(self.reach) && is_possible_counter(self.controls)
    }

    pub(super) fn max(self, other: Tally) -> Tally {
        Tally { reach: self.reach.max(other.reach), controls: self.controls.max(other.controls) }
    }
}

/// The header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub number: u64,
    pub nonce: Nonce,
    pub previous: Previous,
    /// The owner's name of the history.
    pub id: [u8; 16],
    /// BLAKE3 of the geometry.
    pub geometry: [u8; 32],
    /// Segments below this number are not needed any more.
    pub low: u64,
    /// See [`super::History::oldest`].
    pub oldest: u64,
    pub tally: Tally,
    /// The opening by which it was made.
    pub life: u32,
}

/// A header as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderFound {
    Good(SegmentHeader),
    /// It checks, and is of another version.
    Version(u32),
    /// It does not check.
    Bad,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(HEADER_LEN);
        w.bytes(&HEADER_MAGIC).u32(VERSION).u32(0).u64(self.number).bytes(&self.nonce);
        w.u64(self.previous.number).bytes(&self.previous.nonce).u64(self.previous.end);
        w.bytes(&self.id).bytes(&self.geometry).u64(self.low).u64(self.oldest);
        w.u64(self.tally.reach).u64(self.tally.controls).u32(self.life).pad_to(HEADER_LEN);
        let mut bytes = w.finish();
        let crc = crc_of(&[&bytes]).to_le_bytes();
        bytes[12..16].copy_from_slice(&crc);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> HeaderFound {
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
        let header = SegmentHeader {
            number: r.u64()?,
            nonce: r.array()?,
            previous: Previous { number: r.u64()?, nonce: r.array()?, end: r.u64()? },
            id: r.array()?,
            geometry: r.array()?,
            low: r.u64()?,
            oldest: r.u64()?,
            tally: Tally { reach: r.u64()?, controls: r.u64()? },
            life: r.u32()?,
        };
        let counters = [header.number, header.low, header.oldest, header.previous.end];
        let possible = counters.into_iter().all(is_possible_counter) && header.tally.is_possible();
        let sound = header.number > 0
            && is_possible_life(header.life)
            && header.low <= header.number
            && header.previous.number < header.number
            && header.nonce != Nonce::default();
        (possible && sound).then_some(HeaderFound::Good(header))
    }
}

/// A durable mark: what is known to be on stable storage, written after the sync that made it so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Grows by one with every mark of the segment; the largest there is when the segment has ended.
    pub generation: u64,
    /// Everything in this segment before this offset was synced.
    pub durable: u64,
    /// Of all that stands before that offset.
    pub tally: Tally,
    /// Nonce of the segment after this one, once there is one; else zeros.
    pub next: Nonce,
}

/// False for a number of an opening that no history reaches, see [`is_possible_counter`].
pub(super) fn is_possible_life(life: u32) -> bool {
    life < 1 << 31
}

/// The generation of the mark of a segment that has ended.
pub(super) const ENDED: u64 = u64::MAX;

impl Mark {
    pub(super) fn encode(&self, nonce: &Nonce) -> Vec<u8> {
        let mut w = Writer::with_capacity(MARK_LEN);
        w.u32(MARK_MAGIC).u32(0).u64(self.generation).u64(self.durable);
        w.u64(self.tally.reach).u64(self.tally.controls).bytes(&self.next).pad_to(MARK_LEN);
        let mut bytes = w.finish();
        let crc = crc_of(&[nonce, &bytes]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        bytes
    }

    pub(super) fn decode(bytes: &[u8], nonce: &Nonce) -> Option<Mark> {
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
            tally: Tally { reach: r.u64()?, controls: r.u64()? },
            next: r.array()?,
        };
        let ended = mark.generation == ENDED;
        let sound = ended == (mark.next != Nonce::default())
            && (ended || is_possible_counter(mark.generation))
            && is_possible_counter(mark.durable);
        (mark.tally.is_possible() && sound).then_some(mark)
    }
}
