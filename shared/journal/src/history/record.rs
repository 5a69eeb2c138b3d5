//! The records of a segment: the header that every record has, and the payload of a point.
//!
//! A header checks only in the segment for which it was made, at the place for which it was made: its
//! checksum covers the segment's nonce and its own offset.

use grain::{CutId, Span, VolumeId};

use crate::codec::{Reader, Writer, crc_of};
use crate::layout::{Nonce, is_possible_counter};

use super::layout::{Tally, is_possible_life};
use super::{MAX_LABEL_BYTES, MAX_RECORD_BYTES, MAX_ZERO_BYTES, Point};

/// Bytes of a record's header.
pub(super) const RECORD_HEADER: usize = 128;
/// Records begin at multiples of this.
pub(super) const ALIGN: u64 = 16;

const MAGIC: u32 = u32::from_le_bytes(*b"GHUR");

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the base held, with its bytes.
    SavedData,
    /// The base held zeros; no payload.
    SavedZero,
    /// A point.
    Point,
    /// Points with this commit and above are withdrawn.
    WithdrawFrom,
    /// Points and records below this commit are withdrawn, segments below `low` not needed.
    WithdrawBelow,
    /// Everything before is withdrawn, segments below `low` not needed.
    Reset,
    /// A kind that this version does not know.
    Other(u8),
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::SavedData => 1,
            Kind::SavedZero => 2,
            Kind::Point => 3,
            Kind::WithdrawFrom => 4,
            Kind::WithdrawBelow => 5,
            Kind::Reset => 6,
            Kind::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Kind {
        match code {
            1 => Kind::SavedData,
            2 => Kind::SavedZero,
            3 => Kind::Point,
            4 => Kind::WithdrawFrom,
            5 => Kind::WithdrawBelow,
            6 => Kind::Reset,
            other => Kind::Other(other),
        }
    }

    pub(super) fn is_saved(self) -> bool {
        matches!(self, Kind::SavedData | Kind::SavedZero)
    }

    pub(super) fn is_control(self) -> bool {
        matches!(self, Kind::WithdrawFrom | Kind::WithdrawBelow | Kind::Reset)
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub kind: Kind,
    /// A record with any bit set is refused.
    pub flags: u8,
    /// Of saved bytes the moment's, of a point its own, of a withdrawal its border.
    pub commit: u64,
    /// Of saved bytes the moment's, in the life in which they were saved.
    pub split: u32,
    /// The opening after which the record was written.
    pub life: u32,
    /// Of saved bytes; else volume 0, start 0, 0 bytes.
    pub span: Span,
    /// Bytes of payload after the header.
    pub payload: u32,
    /// Where this header stands in its segment.
    pub offset: u64,
    /// Everything in this segment before this offset was synced when the record was made.
    pub durable: u64,
    /// Of everything before this record.
    pub tally: Tally,
    /// Of a withdrawal below and a reset.
    pub low: u64,
    /// BLAKE3 of the payload; zeros when there is none.
    pub digest: [u8; 32],
}

impl RecordHeader {
    /// A header that is not about bytes of a volume, its place not set yet.
    pub(super) fn control(kind: Kind, commit: u64) -> Self {
        RecordHeader {
            kind,
            flags: 0,
            commit,
            split: 0,
            life: 0,
            span: Span { volume: VolumeId(0), start: 0, bytes: 0 },
            payload: 0,
            offset: 0,
            durable: 0,
            tally: Tally::default(),
            low: 0,
            digest: [0; 32],
        }
    }

    /// Bytes from the start of this record to the start of the next.
    pub(super) fn stride(&self) -> u64 {
        (RECORD_HEADER as u64 + u64::from(self.payload)).next_multiple_of(ALIGN)
    }

    /// One past the record.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.stride()
    }

    /// The tally after this record.
    pub(super) fn tally_after(&self) -> Tally {
        let mut tally = self.tally;
        if self.kind.is_saved() {
            tally.reach = tally.reach.max(self.commit + 1);
        }
        tally.controls += u64::from(self.kind.is_control());
        tally
    }

    pub(super) fn encode(&self, nonce: &Nonce) -> Vec<u8> {
        let mut w = Writer::with_capacity(RECORD_HEADER);
        w.u32(MAGIC).u8(self.kind.code()).u8(self.flags).u16(self.span.volume.0);
        w.u32(0).u32(self.payload).u64(self.commit).u32(self.split).u32(self.life);
        w.u64(self.span.start).u64(self.span.bytes).u64(self.offset).u64(self.durable);
        w.u64(self.tally.reach).u64(self.tally.controls).u64(self.low).u64(0).bytes(&self.digest);
        let mut bytes = w.finish();
        debug_assert_eq!(bytes.len(), RECORD_HEADER);
        let crc = crc_of(&[nonce, &bytes]).to_le_bytes();
        bytes[8..12].copy_from_slice(&crc);
        bytes
    }

    /// Whether a header may begin with these bytes.
    pub(super) fn may_begin(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC.to_le_bytes())
    }

    /// The header that these bytes are in the segment with this nonce; where it stands it says itself.
    pub(super) fn decode(bytes: &[u8], nonce: &Nonce) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let mut r = Reader::new(bytes);
        if r.u32()? != MAGIC {
            return None;
        }
        let kind = Kind::from_code(r.u8()?);
        let flags = r.u8()?;
        let volume = VolumeId(r.u16()?);
        if r.u32()? != crc_of(&[nonce, bytes.get(..8)?, &[0; 4], bytes.get(12..)?]) {
            return None;
        }
        let payload = r.u32()?;
        let (commit, split, life) = (r.u64()?, r.u32()?, r.u32()?);
        let span = Span { volume, start: r.u64()?, bytes: r.u64()? };
        let (offset, durable) = (r.u64()?, r.u64()?);
        let tally = Tally { reach: r.u64()?, controls: r.u64()? };
        let low = r.u64()?;
        r.u64()?;
        let digest = r.array()?;
        let header = RecordHeader {
            kind,
            flags,
            commit,
            split,
            life,
            span,
            payload,
            offset,
            durable,
            tally,
            low,
            digest,
        };
        header.is_sound().then_some(header)
    }

    /// Whether the fields agree with each other.
    fn is_sound(&self) -> bool {
        let counters = [self.commit, self.offset, self.durable, self.low];
        let possible = counters.into_iter().all(is_possible_counter) && self.tally.is_possible();
        let bytes = self.span.bytes;
        let ends = self.span.start.checked_add(bytes).is_some();
        let content = match self.kind {
            Kind::SavedData => u64::from(self.payload) == bytes,
            Kind::SavedZero => self.payload == 0,
            _ => true,
        };
        let most = match self.kind {
            Kind::SavedZero => MAX_ZERO_BYTES,
            _ => MAX_RECORD_BYTES,
        };
        let saved = !self.kind.is_saved() || (1..=most).contains(&bytes) && ends;
        let possible = possible && is_possible_life(self.life);
        possible && content && saved && u64::from(self.payload) <= MAX_RECORD_BYTES
    }
}

/// The payload of a point; its commit stands in the header.
pub(super) fn encode_point(point: &Point) -> Vec<u8> {
    let mut w = Writer::with_capacity(32);
    let label = point.label.as_deref();
    w.bytes(&point.cut.to_bytes()).u64(point.unix_ms).u8(u8::from(label.is_some()));
    w.bytes(label.unwrap_or_default().as_bytes());
    w.finish()
}

/// See [`encode_point`].
pub(super) fn decode_point(commit: u64, bytes: &[u8]) -> Option<Point> {
    let mut r = Reader::new(bytes);
    let (cut, unix_ms, labelled) = (CutId::from_bytes(r.array()?), r.u64()?, r.u8()?);
    let label = r.bytes(r.remaining())?;
    if label.len() > MAX_LABEL_BYTES {
        return None;
    }
    let label = String::from_utf8(label.to_vec()).ok()?;
    let label = match labelled {
        0 if label.is_empty() => None,
        1 => Some(label),
        _ => return None,
    };
    Some(Point { commit, cut, unix_ms, label })
}
