//! The records of a segment: the header that every record has, and the payloads of the records that
//! are the journal's own (commit, abort, manifest).
//!
//! A header checks only in the segment for which it was made, at the place for which it was made:
//! its checksum covers the segment's nonce and its own offset. So a record left over in a recycled
//! file, or bytes of a volume that look like one, are never taken for a record.

use grain::{CutId, Geometry, Run, SessionId, Span, VolumeId};

use crate::codec::{Reader, Writer, crc_of};
use crate::layout::{Nonce, is_possible_counter};

/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 128;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 16;
/// The longest payload: one grain of the largest size.
pub(crate) const MAX_PAYLOAD: u64 = 4 << 20;
/// The longest body of a commit.
pub(crate) const MAX_BODY: u64 = 1 << 20;

const MAGIC: u32 = u32::from_le_bytes(*b"GHJR");

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Grains of a copy session, with their bytes.
    CopyData,
    /// Grains of a copy session that are all zeros; no payload.
    CopyZero,
    /// Makes sessions count.
    Commit,
    /// Ends sessions that will not be committed.
    Abort,
    /// Part of the map of a session's grains, written before its commit: says what was lost when a
    /// record's header cannot be read.
    Manifest,
    /// A write of the stream, with its bytes.
    StreamData,
    /// A write of the stream that makes zeros; no payload.
    StreamZero,
    /// Zeros, so that the next record begins in another block.
    Pad,
    /// A kind that this version does not know.
    Other(u8),
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::CopyData => 1,
            Kind::CopyZero => 2,
            Kind::Commit => 3,
            Kind::Abort => 4,
            Kind::Manifest => 5,
            Kind::StreamData => 6,
            Kind::StreamZero => 7,
            Kind::Pad => 8,
            Kind::Other(code) => code,
        }
    }

    fn from_code(code: u8) -> Kind {
        match code {
            1 => Kind::CopyData,
            2 => Kind::CopyZero,
            3 => Kind::Commit,
            4 => Kind::Abort,
            5 => Kind::Manifest,
            6 => Kind::StreamData,
            7 => Kind::StreamZero,
            8 => Kind::Pad,
            other => Kind::Other(other),
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub kind: Kind,
    /// Bit 0 is kept for "the payload is compressed"; a record with any bit set is refused.
    pub flags: u8,
    /// For copy records and manifests; else zeros.
    pub session: SessionId,
    /// For copy records the cut that is copied, for commits the cut that they reach.
    pub cut: CutId,
    /// Of a copy record within its session, of a manifest among its parts, of a commit its number, of a
    /// stream record within its epoch, from 1 on.
    pub sequence: u64,
    /// For copy records. For stream records in bytes, not grains: see [`RecordHeader::span`]. Else volume
    /// 0, first 0, count 0.
    pub run: Run,
    /// Bytes of payload after the header.
    pub payload: u32,
    /// Where this header stands in its segment.
    pub offset: u64,
    /// Everything in this segment before this offset was synced when the record was made.
    pub durable: u64,
    /// The number of the newest commit record before this record.
    pub newest_commit: u64,
    /// BLAKE3 of the payload; zeros when there is none.
    pub digest: [u8; 32],
}

impl RecordHeader {
    /// A header of a record that is not about grains, its place not set yet.
    pub(crate) fn control(kind: Kind, payload: &[u8]) -> Self {
        RecordHeader {
            kind,
            flags: 0,
            session: SessionId::from_bytes([0; 16]),
            cut: CutId::from_bytes([0; 16]),
            sequence: 0,
            run: Run { volume: VolumeId(0), first: 0, count: 0 },
            payload: payload.len() as u32,
            offset: 0,
            durable: 0,
            newest_commit: 0,
            digest: if payload.is_empty() { [0; 32] } else { *blake3::hash(payload).as_bytes() },
        }
    }

    /// Bytes from the start of this record to the start of the next.
    pub(crate) fn stride(&self) -> u64 {
        stride(u64::from(self.payload))
    }

    /// One past the record.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.stride()
    }

    pub(crate) fn is_zero(&self) -> bool {
        matches!(self.kind, Kind::CopyZero | Kind::StreamZero)
    }

    /// The bytes of a volume that a copy or stream record is about; of none otherwise.
    pub(crate) fn span(&self, geometry: &Geometry) -> Option<Span> {
        let Run { volume, first, count } = self.run;
        match self.kind {
            Kind::CopyData | Kind::CopyZero => Some(geometry.span_of(self.run)),
            Kind::StreamData | Kind::StreamZero => {
                Some(Span { volume, start: first, bytes: count })
            }
            _ => None,
        }
    }

    pub(crate) fn encode(&self, nonce: &Nonce) -> Vec<u8> {
        let mut w = Writer::with_capacity(RECORD_HEADER);
        w.u32(MAGIC).u8(self.kind.code()).u8(self.flags).u16(self.run.volume.0);
        w.u32(0).u32(self.payload);
        w.bytes(&self.session.to_bytes()).bytes(&self.cut.to_bytes()).u64(self.sequence);
        w.u64(self.run.first).u64(self.run.count);
        w.u64(self.offset).u64(self.durable).u64(self.newest_commit).bytes(&self.digest);
        let mut bytes = w.finish();
        debug_assert_eq!(bytes.len(), RECORD_HEADER);
        let crc = crc_of(&[nonce, &bytes]).to_le_bytes();
        bytes[8..12].copy_from_slice(&crc);
        bytes
    }

    /// Whether a header may begin with these bytes.
    pub(crate) fn may_begin(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC.to_le_bytes())
    }

    /// The header at `offset` of the segment with this nonce, if these bytes are one.
    pub(crate) fn decode(bytes: &[u8], nonce: &Nonce, offset: u64) -> Option<RecordHeader> {
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
        let session = SessionId::from_bytes(r.array()?);
        let cut = CutId::from_bytes(r.array()?);
        let sequence = r.u64()?;
        let run = Run { volume, first: r.u64()?, count: r.u64()? };
        let header = RecordHeader {
            kind,
            flags,
            session,
            cut,
            sequence,
            run,
            payload,
            offset: r.u64()?,
            durable: r.u64()?,
            newest_commit: r.u64()?,
            digest: r.array()?,
        };
        let fits = header.offset == offset && u64::from(payload) <= MAX_PAYLOAD;
        let commit = if kind == Kind::Commit { sequence } else { 0 };
        let possible = is_possible_counter(header.newest_commit) && is_possible_counter(commit);
        (fits && possible).then_some(header)
    }
}

/// Bytes that a record with this much payload takes.
pub(crate) fn stride(payload: u64) -> u64 {
    (RECORD_HEADER as u64 + payload).next_multiple_of(ALIGN)
}

/// What a commit says about one of the sessions that it adopts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub session: SessionId,
    /// Copy records of the session.
    pub records: u64,
    /// Distinct grains in them.
    pub grains: u64,
    /// Manifest records.
    pub manifests: u32,
    /// True when no grain stands in two records of the session.
    pub disjoint: bool,
}

const ADOPTED_LEN: usize = 40;

/// The payload of a commit record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitPayload {
    /// In version order, oldest first.
    pub sessions: Vec<Adopted>,
    /// The caller's bytes.
    pub body: Vec<u8>,
}

impl CommitPayload {
    /// Bytes that it takes with `sessions` sessions and a body of `body` bytes.
    pub(crate) fn len_for(sessions: usize, body: usize) -> u64 {
        (8 + sessions * ADOPTED_LEN + body) as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(8 + self.sessions.len() * ADOPTED_LEN + self.body.len());
        w.u32(self.sessions.len() as u32).u32(self.body.len() as u32);
        for s in &self.sessions {
            w.bytes(&s.session.to_bytes()).u64(s.records).u64(s.grains);
            w.u32(s.manifests).u32(u32::from(s.disjoint));
        }
        w.bytes(&self.body);
        w.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<CommitPayload> {
        let mut r = Reader::new(bytes);
        let (count, body) = (r.u32()? as usize, r.u32()? as usize);
        if r.remaining() != count.checked_mul(ADOPTED_LEN)?.checked_add(body)? {
            return None;
        }
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            sessions.push(Adopted {
                session: SessionId::from_bytes(r.array()?),
                records: r.u64()?,
                grains: r.u64()?,
                manifests: r.u32()?,
                disjoint: r.u32()? != 0,
            });
        }
        Some(CommitPayload { sessions, body: r.bytes(body)?.to_vec() })
    }
}

/// The payload of an abort record: the sessions that it ends.
pub(crate) fn encode_abort(sessions: &[SessionId]) -> Vec<u8> {
    let mut w = Writer::default();
    for session in sessions {
        w.bytes(&session.to_bytes());
    }
    w.finish()
}

/// See [`encode_abort`].
pub(crate) fn decode_abort(bytes: &[u8]) -> Option<Vec<SessionId>> {
    let mut r = Reader::new(bytes);
    let mut sessions = Vec::with_capacity(bytes.len() / 16);
    while !r.is_empty() {
        sessions.push(SessionId::from_bytes(r.array()?));
    }
    Some(sessions)
}

#[cfg(test)]
mod tests;
