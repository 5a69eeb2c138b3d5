//! Frames: what segments and part directories are made of after their header.
//!
//! A frame is a 32-byte header in plain and a sealed body. The header lets a reader without an index
//! walk from frame to frame, and find the next one by its marker after damage. It is bound to the
//! body by the seal, so a frame cannot be moved or renumbered.
//!
//! ```text
//! 0        8     9     12      16        20         28      32
//! | marker | kind | 0 | number | body len | reserved | crc32c | sealed body and tag ...
//! ```

use crate::fields::{BadField, Fields};
use crate::seal::TAG_BYTES;

/// Size of a frame's header in bytes.
pub(crate) const FRAME_HEADER_BYTES: usize = 32;
/// The largest body of a frame with its tag: an index of the most records, with room.
pub(crate) const MAX_BODY_BYTES: u32 = 256 << 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    Record = 1,
    Index = 2,
    PartEntry = 3,
}

/// The plain header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// Counts the frames of a kind inside their file; also the nonce.
    pub(crate) number: u32,
    /// Length of the sealed body with its tag.
    pub(crate) body_len: u32,
}

impl FrameHeader {
    /// The stored form, for a file with this `marker`.
    pub(crate) fn encode(&self, marker: [u8; 8]) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..8].copy_from_slice(&marker);
        bytes[8] = self.kind as u8;
        bytes[12..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_len.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header that stands at `offset` of a file with this `marker`.
    pub(crate) fn decode(bytes: &[u8], marker: [u8; 8], offset: u64) -> Result<Self, BadField> {
        let mut fields = Fields::new(bytes, offset);
        let whole = Fields::new(bytes, offset).array::<FRAME_HEADER_BYTES>("frame header")?;
        if fields.array::<8>("marker")? != marker {
            return Err(BadField { field: "marker", offset, why: "not a frame of this file" });
        }
        if crc32c::crc32c(&whole[..28]).to_le_bytes() != whole[28..] {
            return Err(BadField { field: "frame header", offset, why: "checksum does not match" });
        }
        let kind = match fields.u8("kind")? {
            1 => FrameKind::Record,
            2 => FrameKind::Index,
            3 => FrameKind::PartEntry,
            _ => return Err(BadField { field: "kind", offset: offset + 8, why: "unknown" }),
        };
        fields.zeros(3, "reserved")?;
        let number = fields.u32("number")?;
        let bad_len = fields.bad("body length", "out of bounds");
        let body_len = fields.u32("body length")?;
        if (body_len as usize) < TAG_BYTES || body_len > MAX_BODY_BYTES {
            return Err(bad_len);
        }
        fields.zeros(8, "reserved")?;
        Ok(FrameHeader { kind, number, body_len })
    }

    /// Header and body together, in bytes.
    pub(crate) fn frame_len(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.body_len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: FrameHeader =
        FrameHeader { kind: FrameKind::Record, number: 0x0102, body_len: 0x1_0000 };

    #[test]
    fn every_bit_of_a_header_counts() {
        let bytes = HEADER.encode(*b"MARKERxy");
        assert_eq!(FrameHeader::decode(&bytes, *b"MARKERxy", 0), Ok(HEADER));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::decode(&bad, *b"MARKERxy", 0).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(FrameHeader::decode(&bytes[..len], *b"MARKERxy", 0).is_err());
        }
    }

    #[test]
    fn hostile_lengths_are_refused() {
        for body_len in [0, 15, MAX_BODY_BYTES + 1, u32::MAX] {
            let bytes = FrameHeader { body_len, ..HEADER }.encode([9; 8]);
            let error = FrameHeader::decode(&bytes, [9; 8], 1000);
            assert_eq!(error.map_err(|e| (e.field, e.offset)), Err(("body length", 1016)));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>, marker: [u8; 8]) {
            prop_assert!(FrameHeader::decode(&bytes, marker, 0).is_err());
        }
    }
}
