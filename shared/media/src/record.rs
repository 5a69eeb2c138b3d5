//! Records: one run of neighbouring grains with the digest of each, sealed as one frame.
//!
//! A record holds at most 1 MiB (or one grain, where grains are larger). The digests and the place
//! stand inside the seal, before the payload. A run of zeros has no payload and may be of any
//! length. Making and opening a record is pure work for the pool: digests, zstd, cipher.
//!
//! ```text
//! 0          1   2        4         8       16      24            28         32
//! | encoding | 0 | volume | raw len | first | count | payload len | reserved | digests | payload
//! ```

use std::cell::RefCell;

use bytes::Bytes;
use grain::fingerprint::{FingerprintPlan, FingerprintSum};
use grain::{Content, Geometry, GrainData, GrainSize, Run, VolumeId, is_zero};

use crate::fields::{BadField, Fields};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::root_digest::RootSum;
use crate::seal::{Domain, Sealer, TAG_BYTES};

/// The most payload of a record in bytes, unless a single grain is larger.
pub const MAX_RECORD_BYTES: u64 = 1 << 20;
/// Fixed part of a record's body, before the digests.
pub(crate) const HEAD_BYTES: usize = 32;
/// Length of a grain's digest in bytes.
pub(crate) const DIGEST_BYTES: usize = 32;

const HEAD_CONTEXT: &str = "grainhaul 2026 media record head v1";

/// How the payload of a record is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Encoding {
    /// No payload: all grains are zero.
    Zero = 0,
    /// The grains' bytes.
    Raw = 1,
    /// The grains' bytes as one zstd frame (RFC 8878).
    Zstd = 2,
}

/// The most bytes that a record of this grain size carries.
pub(crate) fn record_limit(grain: GrainSize) -> u64 {
    MAX_RECORD_BYTES.max(grain.bytes())
}

/// What a finished record is, apart from its place in the file.
pub(crate) struct BuiltRecord {
    /// Header, body, tag.
    pub(crate) frame: Bytes,
    pub(crate) run: Run,
    pub(crate) encoding: Encoding,
    /// Binds place and digests; the index lists it.
    pub(crate) head_digest: [u8; 32],
    /// The sum over the record's non-zero grains.
    pub(crate) sum: RootSum,
    /// What the record adds to the fingerprint of its set.
    pub(crate) fingerprint: FingerprintSum,
    /// Grains that are not zero.
    pub(crate) data_grains: u64,
}

/// The digest that the index keeps of a record: over the run and the digests of its grains, not over
/// how they happen to be encoded.
pub(crate) fn head_digest(run: &Run, digests: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(HEAD_CONTEXT);
    hasher.update(&run.volume.0.to_le_bytes());
    hasher.update(&run.first.to_le_bytes());
    hasher.update(&run.count.to_le_bytes());
    hasher.update(digests);
    *hasher.finalize().as_bytes()
}

thread_local! {
    // A zstd context is large; one is kept per pool thread, with the level it was made for.
    static COMPRESSOR: RefCell<Option<(i32, zstd::bulk::Compressor<'static>)>> =
        const { RefCell::new(None) };
}

/// The data as a zstd frame, if that is at least 5 % smaller.
fn compressed(data: &[u8], level: i32) -> Option<Vec<u8>> {
    let mut out = vec![0; data.len() / 20 * 19];
    COMPRESSOR.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(made_for, _)| *made_for != level) {
            *kept = zstd::bulk::Compressor::new(level).ok().map(|made| (level, made));
        }
        let (_, compressor) = kept.as_mut()?;
        let len = compressor.compress_to_buffer(data, &mut out[..]).ok()?;
        out.truncate(len);
        Some(())
    })?;
    Some(out)
}

/// What all records of a set are made after.
pub(crate) struct RecordPlan {
    pub(crate) geometry: Geometry,
    /// The zstd level, or none to store raw.
    pub(crate) level: Option<i32>,
    pub(crate) fingerprint: FingerprintPlan,
}

/// Makes record `number` of a file.
pub(crate) fn build_record(
    data: &GrainData,
    plan: &RecordPlan,
    sealer: &Sealer,
    marker: [u8; 8],
    number: u32,
) -> BuiltRecord {
    let run = data.run;
    let grain = plan.geometry.grain;
    let mut fingerprint = FingerprintSum::new();
    plan.fingerprint.add_grains(&plan.geometry, &mut fingerprint, data);
    let mut sum = RootSum::new();
    let (mut digests, mut data_grains) = (Vec::new(), 0);
    let raw: &[u8] = match &data.content {
        Content::Data(bytes) if !is_zero(bytes) => bytes,
        _ => &[],
    };
    for (index, bytes) in (run.first..).zip(raw.chunks(grain.bytes() as usize)) {
        let digest = *blake3::hash(bytes).as_bytes();
        digests.extend_from_slice(&digest);
        if !is_zero(bytes) {
            data_grains += 1;
            sum.add_grain(run.volume, index, &digest);
        }
    }
    let packed = plan.level.filter(|_| !raw.is_empty()).and_then(|level| compressed(raw, level));
    let encoding = match &packed {
        Some(_) => Encoding::Zstd,
        None if raw.is_empty() => Encoding::Zero,
        None => Encoding::Raw,
    };
    let payload = packed.as_deref().unwrap_or(raw);
    let body_len = HEAD_BYTES + digests.len() + payload.len() + TAG_BYTES;
    let header = FrameHeader { kind: FrameKind::Record, number, body_len: body_len as u32 };
    let header = header.encode(marker);
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body_len);
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&[encoding as u8, 0]);
    frame.extend_from_slice(&run.volume.0.to_le_bytes());
    frame.extend_from_slice(&(raw.len() as u32).to_le_bytes());
    frame.extend_from_slice(&run.first.to_le_bytes());
    frame.extend_from_slice(&run.count.to_le_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&digests);
    frame.extend_from_slice(payload);
    let body = &mut frame[FRAME_HEADER_BYTES..];
    let tag = sealer.seal(Domain::Record, u64::from(number), &header, body);
    frame.extend_from_slice(&tag);
    let head_digest = head_digest(&run, &digests);
    BuiltRecord { frame: frame.into(), run, encoding, head_digest, sum, fingerprint, data_grains }
}

/// A record out of its seal, all lengths checked against the geometry, digests not yet compared.
pub(crate) struct OpenRecord {
    pub(crate) run: Run,
    pub(crate) encoding: Encoding,
    pub(crate) digests: Vec<[u8; 32]>,
    pub(crate) head_digest: [u8; 32],
    /// The frame's bytes, and where the payload is in them.
    frame: Bytes,
    payload: std::ops::Range<usize>,
    raw_len: usize,
}

/// Why a record was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordFault {
    /// Header or body hold what they may not hold.
    Field(BadField),
    /// The seal does not open: damaged, forged or moved.
    Seal,
    /// The payload is not what the digests say.
    Content,
}

impl From<BadField> for RecordFault {
    fn from(bad: BadField) -> Self {
        RecordFault::Field(bad)
    }
}

/// Opens the seal of the record frame that stands at `offset`.
pub(crate) fn open_record(
    mut frame: Vec<u8>,
    geometry: &Geometry,
    sealer: &Sealer,
    marker: [u8; 8],
    offset: u64,
) -> Result<OpenRecord, RecordFault> {
    let header = FrameHeader::decode(&frame, marker, offset)?;
    let bad = |field, why| RecordFault::Field(BadField { field, offset, why });
    if header.kind != FrameKind::Record {
        return Err(bad("kind", "not a record"));
    }
    if header.frame_len() != frame.len() as u64 {
        return Err(bad("body length", "does not match the index"));
    }
    let (aad, sealed) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let body = sealer
        .open(Domain::Record, u64::from(header.number), aad, sealed)
        .map_err(|_| RecordFault::Seal)?;
    let body_at = offset + FRAME_HEADER_BYTES as u64;
    let head = Head::decode(body, geometry, body_at)?;
    let mut fields = Fields::new(body.get(HEAD_BYTES..).unwrap_or_default(), body_at);
    let plain = fields.slice(head.digest_count * DIGEST_BYTES, "digests")?;
    let head_digest = head_digest(&head.run, plain);
    let (digests, _) = plain.as_chunks::<DIGEST_BYTES>();
    let digests = digests.to_vec();
    let payload_at = FRAME_HEADER_BYTES + HEAD_BYTES + plain.len();
    let payload = payload_at..payload_at + fields.slice(head.payload_len, "payload")?.len();
    fields.end("payload")?;
    Ok(OpenRecord {
        run: head.run,
        encoding: head.encoding,
        digests,
        head_digest,
        frame: frame.into(),
        payload,
        raw_len: head.raw_len,
    })
}

struct Head {
    run: Run,
    encoding: Encoding,
    digest_count: usize,
    payload_len: usize,
    raw_len: usize,
}

impl Head {
    fn decode(body: &[u8], geometry: &Geometry, offset: u64) -> Result<Head, BadField> {
        let mut fields = Fields::new(body, offset);
        let bad_encoding = fields.bad("encoding", "unknown");
        let encoding = match fields.u8("encoding")? {
            0 => Encoding::Zero,
            1 => Encoding::Raw,
            2 => Encoding::Zstd,
            _ => return Err(bad_encoding),
        };
        fields.zeros(1, "reserved")?;
        let bad_run = fields.bad("run", "outside the volume");
        let volume = VolumeId(fields.u16("volume")?);
        let bad_raw = fields.bad("raw length", "does not match the run");
        let raw_len = u64::from(fields.u32("raw length")?);
        let run = Run { volume, first: fields.u64("first")?, count: fields.u64("count")? };
        let bad_payload = fields.bad("payload length", "does not match the encoding");
        let payload_len = u64::from(fields.u32("payload length")?);
        fields.zeros(4, "reserved")?;
        check_run(&run, geometry).map_err(|()| bad_run)?;
        let covered = geometry.byte_range(run.volume, run.first, run.count);
        let covered = covered.end - covered.start;
        let (raw_good, payload_good) = match encoding {
            Encoding::Zero => (raw_len == 0, payload_len == 0),
            Encoding::Raw => (raw_len == covered, payload_len == raw_len),
            Encoding::Zstd => (raw_len == covered, payload_len < raw_len),
        };
        if !raw_good || raw_len > record_limit(geometry.grain) {
            return Err(bad_raw);
        }
        if !payload_good {
            return Err(bad_payload);
        }
        // Fits: raw_len is bounded by now, and with it the count of a run that has data.
        let digest_count = if encoding == Encoding::Zero { 0 } else { run.count as usize };
        let (payload_len, raw_len) = (payload_len as usize, raw_len as usize);
        Ok(Head { run, encoding, digest_count, payload_len, raw_len })
    }
}

/// Whether the run is not empty and lies inside its volume.
pub(crate) fn check_run(run: &Run, geometry: &Geometry) -> Result<(), ()> {
    let end = run.first.checked_add(run.count).ok_or(())?;
    if run.count == 0 || end > geometry.grains(run.volume) { Err(()) } else { Ok(()) }
}

impl OpenRecord {
    /// Unpacks the payload and compares every grain with its digest. Returns the content, and the sum
    /// over its non-zero grains for the root digest.
    pub(crate) fn verify(self, grain: GrainSize) -> Result<VerifiedRecord, RecordFault> {
        let mut sum = RootSum::new();
        let run = self.run;
        let data = match self.encoding {
            Encoding::Zero => {
                let data = GrainData { run, content: Content::Zero };
                return Ok(VerifiedRecord { data, digests: Vec::new(), sum });
            }
            Encoding::Raw => self.frame.slice(self.payload),
            Encoding::Zstd => {
                let packed = self.frame.get(self.payload).unwrap_or_default();
                let data = zstd::bulk::decompress(packed, self.raw_len);
                let data = data.map_err(|_| RecordFault::Content)?;
                if data.len() != self.raw_len {
                    return Err(RecordFault::Content);
                }
                Bytes::from(data)
            }
        };
        let grains = data.chunks(grain.bytes() as usize);
        if grains.len() != self.digests.len() {
            return Err(RecordFault::Content);
        }
        for ((index, bytes), digest) in (run.first..).zip(grains).zip(&self.digests) {
            if blake3::hash(bytes).as_bytes() != digest {
                return Err(RecordFault::Content);
            }
            if !is_zero(bytes) {
                sum.add_grain(run.volume, index, digest);
            }
        }
        let data = GrainData { run, content: Content::Data(data) };
        Ok(VerifiedRecord { data, digests: self.digests, sum })
    }
}

/// A record whose every grain matches its digest.
pub(crate) struct VerifiedRecord {
    pub(crate) data: GrainData,
    /// One a grain; empty for a zero run.
    pub(crate) digests: Vec<[u8; 32]>,
    pub(crate) sum: RootSum,
}

#[cfg(test)]
mod tests;
