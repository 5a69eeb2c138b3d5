//! The index of a segment: where each record is, which run it holds, and the digest of its head.
//!
//! The digest of the index stands in the signed directory, and the index commits to every grain's
//! digest through the heads: that is the chain from the source's signature to a grain. Its bytes
//! follow from the records alone, so an index rebuilt by scanning has the same digest.
//!
//! An entry is 80 bytes: offset u64, frame length u32, record number u32, volume u16, encoding u8,
//! 0 u8, reserved u32, first u64, count u64, reserved u64, head digest 32 bytes.

use grain::{Geometry, Run, VolumeId};

use crate::fields::{BadField, Fields};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::record::{Encoding, HEAD_BYTES, check_run, record_limit};
use crate::seal::{Domain, Sealer, TAG_BYTES};
use crate::segment::HEADER_BYTES;

/// Stored size of an entry in bytes.
pub(crate) const ENTRY_BYTES: usize = 80;
/// The most records of one segment.
pub(crate) const MAX_RECORDS: u32 = 1 << 18;

const INDEX_CONTEXT: &str = "grainhaul 2026 media segment index v1";

/// One record of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    /// Where its frame begins in the file.
    pub(crate) offset: u64,
    /// Length of the frame, header and tag included.
    pub(crate) frame_len: u32,
    pub(crate) number: u32,
    pub(crate) run: Run,
    pub(crate) encoding: Encoding,
    pub(crate) head_digest: [u8; 32],
}

/// The records of a segment in the order of their offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) entries: Vec<IndexEntry>,
}

impl Index {
    /// The stored form in plain.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() * ENTRY_BYTES);
        for entry in &self.entries {
            out.extend_from_slice(&entry.offset.to_le_bytes());
            out.extend_from_slice(&entry.frame_len.to_le_bytes());
            out.extend_from_slice(&entry.number.to_le_bytes());
            out.extend_from_slice(&entry.run.volume.0.to_le_bytes());
            out.extend_from_slice(&[entry.encoding as u8, 0]);
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&entry.run.first.to_le_bytes());
            out.extend_from_slice(&entry.run.count.to_le_bytes());
            out.extend_from_slice(&[0; 8]);
            out.extend_from_slice(&entry.head_digest);
        }
        out
    }

    /// The digest of a stored form.
    pub(crate) fn digest(plain: &[u8]) -> [u8; 32] {
        blake3::derive_key(INDEX_CONTEXT, plain)
    }

    /// Reads a stored form: every run inside its volume, every record a stretch of the file of its
    /// own.
    pub(crate) fn decode(plain: &[u8], geometry: &Geometry) -> Result<Index, BadField> {
        let (chunks, rest) = plain.as_chunks::<ENTRY_BYTES>();
        let length = |why| BadField { field: "index", offset: 0, why };
        if !rest.is_empty() {
            return Err(length("not a whole number of entries"));
        }
        if chunks.len() > MAX_RECORDS as usize {
            return Err(length("too many entries"));
        }
        let mut entries = Vec::with_capacity(chunks.len());
        let mut free_from = HEADER_BYTES as u64;
        for (i, chunk) in chunks.iter().enumerate() {
            let at = (i * ENTRY_BYTES) as u64;
            let entry = decode_entry(chunk, geometry, at)?;
            if entry.offset < free_from {
                let why = "overlaps the record before";
                return Err(BadField { field: "offset", offset: at, why });
            }
            let end = entry.offset.checked_add(u64::from(entry.frame_len));
            let why = "ends beyond any file";
            free_from = end.ok_or(BadField { field: "offset", offset: at, why })?;
            entries.push(entry);
        }
        Ok(Index { entries })
    }

    /// The index as the frame that ends the records of a file.
    pub(crate) fn seal(plain: &[u8], sealer: &Sealer, marker: [u8; 8]) -> Vec<u8> {
        let body_len = (plain.len() + TAG_BYTES) as u32;
        let number = (plain.len() / ENTRY_BYTES) as u32;
        let header = FrameHeader { kind: FrameKind::Index, number, body_len }.encode(marker);
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body_len as usize);
        frame.extend_from_slice(&header);
        frame.extend_from_slice(plain);
        let tag = sealer.seal(Domain::Index, 0, &header, &mut frame[FRAME_HEADER_BYTES..]);
        frame.extend_from_slice(&tag);
        frame
    }

    /// Opens an index frame that stands at `offset`; returns the plain form.
    pub(crate) fn open(
        mut frame: Vec<u8>,
        sealer: &Sealer,
        marker: [u8; 8],
        offset: u64,
    ) -> Result<Vec<u8>, BadField> {
        let header = FrameHeader::decode(&frame, marker, offset)?;
        let bad = |field, why| BadField { field, offset, why };
        if header.kind != FrameKind::Index || header.frame_len() != frame.len() as u64 {
            return Err(bad("index frame", "not an index of this length"));
        }
        let (aad, sealed) = frame.split_at_mut(FRAME_HEADER_BYTES);
        let plain = sealer.open(Domain::Index, 0, aad, sealed);
        Ok(plain.map_err(|_| bad("index body", "does not open"))?.to_vec())
    }
}

fn decode_entry(bytes: &[u8], geometry: &Geometry, at: u64) -> Result<IndexEntry, BadField> {
    let mut fields = Fields::new(bytes, at);
    let offset = fields.u64("offset")?;
    let bad_len = fields.bad("frame length", "out of bounds");
    let frame_len = fields.u32("frame length")?;
    let number = fields.u32("record number")?;
    let bad_run = fields.bad("run", "outside its volume");
    let volume = VolumeId(fields.u16("volume")?);
    let bad_encoding = fields.bad("encoding", "unknown");
    let encoding = match fields.u8("encoding")? {
        0 => Encoding::Zero,
        1 => Encoding::Raw,
        2 => Encoding::Zstd,
        _ => return Err(bad_encoding),
    };
    fields.zeros(1, "reserved")?;
    fields.zeros(4, "reserved")?;
    let run = Run { volume, first: fields.u64("first")?, count: fields.u64("count")? };
    fields.zeros(8, "reserved")?;
    let head_digest = fields.array("head digest")?;
    check_run(&run, geometry).map_err(|()| bad_run)?;
    let least = (FRAME_HEADER_BYTES + HEAD_BYTES + TAG_BYTES) as u64;
    let most = least + record_limit(geometry.grain) / geometry.grain.bytes() * 32;
    let most = most + record_limit(geometry.grain);
    if u64::from(frame_len) < least || u64::from(frame_len) > most {
        return Err(bad_len);
    }
    Ok(IndexEntry { offset, frame_len, number, run, encoding, head_digest })
}

#[cfg(test)]
mod tests {
    use grain::{GrainSize, SetId, VolumeShape};
    use proptest::prelude::*;

    use super::*;
    use crate::seal::FileRole;

    fn geometry() -> Geometry {
        let volumes = vec![VolumeShape { alias: "disk".into(), bytes: 1 << 30 }];
        Geometry { grain: GrainSize::DEFAULT, volumes }
    }

    fn index() -> Index {
        let entry = |number: u32| IndexEntry {
            offset: 128 + u64::from(number) * 5000,
            frame_len: 4000,
            number,
            run: Run { volume: VolumeId(0), first: u64::from(number) * 16, count: 16 },
            encoding: Encoding::Zstd,
            head_digest: [number as u8; 32],
        };
        Index { entries: (0..4).map(entry).collect() }
    }

    #[test]
    fn an_index_survives_only_untouched() {
        let plain = index().encode();
        assert_eq!(Index::decode(&plain, &geometry()), Ok(index()));
        let sealer = Sealer::new(None, SetId::from_bytes([1; 16]), FileRole::Segment(1), &[0; 32]);
        let frame = Index::seal(&plain, &sealer, [7; 8]);
        assert_eq!(Index::open(frame.clone(), &sealer, [7; 8], 900), Ok(plain));
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Index::open(bad, &sealer, [7; 8], 900).is_err(), "bit {bit}");
        }
        for len in 0..frame.len() {
            assert!(Index::open(frame[..len].to_vec(), &sealer, [7; 8], 900).is_err());
        }
    }

    #[test]
    fn hostile_entries_are_refused() {
        let refuse = |change: &dyn Fn(&mut IndexEntry)| {
            let mut bad = index();
            change(&mut bad.entries[2]);
            assert!(Index::decode(&bad.encode(), &geometry()).is_err());
        };
        refuse(&|e| e.offset = 0);
        refuse(&|e| e.offset = 128 + 5000 + 3999);
        refuse(&|e| e.offset = u64::MAX);
        let mut last = index();
        last.entries[3].offset = u64::MAX - 100;
        assert!(Index::decode(&last.encode(), &geometry()).is_err());
        refuse(&|e| e.frame_len = 0);
        refuse(&|e| e.frame_len = u32::MAX);
        refuse(&|e| e.run.count = 0);
        refuse(&|e| e.run.first = u64::MAX);
        refuse(&|e| e.run.volume = VolumeId(1));
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            drop(Index::decode(&bytes, &geometry()));
        }

        #[test]
        fn mutated_indexes_do_not_panic(at: prop::sample::Index, value: u8) {
            let mut bytes = index().encode();
            let at = at.index(bytes.len());
            bytes[at] = value;
            drop(Index::decode(&bytes, &geometry()));
        }
    }
}
