//! A segment file: header, record frames, index frame, trailer. `docs/formats/media-segment.md`.
//!
//! This module has the two ends. The header names the set, the number and the salt, from which the
//! key follows; the trailer says where the index is. The signed directory repeats both, so that
//! neither is a single point of failure.

use grain::SetId;

use crate::fields::{BadField, Fields};
use crate::seal::{Domain, SALT_BYTES, Sealer, TAG_BYTES};

/// Size of a segment's header in bytes.
pub(crate) const HEADER_BYTES: usize = 128;
/// Size of a segment's trailer in bytes.
pub(crate) const TRAILER_BYTES: usize = 128;
/// The version of the format that this code writes and reads.
pub(crate) const VERSION: u32 = 1;

const HEADER_MAGIC: [u8; 8] = *b"GHSEGMT1";
const TRAILER_MAGIC: [u8; 8] = *b"GHTRAIL1";
const FLAG_SEALED: u16 = 1;

/// Where a segment stands in a parity stripe. All zero: in none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stripe {
    /// Names the stripe.
    pub id: [u8; 16],
    /// This segment's place in it.
    pub shard: u16,
    /// Segments with data.
    pub data_shards: u16,
    /// Segments with parity.
    pub parity_shards: u16,
}

/// The plain header of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) sealed: bool,
    pub(crate) set: SetId,
    pub(crate) salt: [u8; SALT_BYTES],
    pub(crate) number: u64,
    pub(crate) stripe: Stripe,
    pub(crate) medium: u16,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&HEADER_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let flags = if self.sealed { FLAG_SEALED } else { 0 };
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.set.to_bytes());
        bytes[32..64].copy_from_slice(&self.salt);
        bytes[64..72].copy_from_slice(&self.number.to_le_bytes());
        bytes[72..88].copy_from_slice(&self.stripe.id);
        bytes[88..90].copy_from_slice(&self.stripe.shard.to_le_bytes());
        bytes[90..92].copy_from_slice(&self.stripe.data_shards.to_le_bytes());
        bytes[92..94].copy_from_slice(&self.stripe.parity_shards.to_le_bytes());
        bytes[94..96].copy_from_slice(&self.medium.to_le_bytes());
        put_crc(&mut bytes);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadField> {
        let whole = Fields::new(bytes, 0).array::<HEADER_BYTES>("segment header")?;
        let mut fields = Fields::new(&whole, 0);
        check_magic(&mut fields, HEADER_MAGIC)?;
        check_crc(&whole, 0)?;
        check_version(&mut fields)?;
        let bad = fields.bad("flags", "unknown");
        let flags = fields.u16("flags")?;
        if flags & !FLAG_SEALED != 0 {
            return Err(bad);
        }
        let bad = fields.bad("header length", "not 128");
        if usize::from(fields.u16("header length")?) != HEADER_BYTES {
            return Err(bad);
        }
        let header = SegmentHeader {
            sealed: flags & FLAG_SEALED != 0,
            set: SetId::from_bytes(fields.array("set")?),
            salt: fields.array("salt")?,
            number: fields.u64("number")?,
            stripe: Stripe {
                id: fields.array("stripe")?,
                shard: fields.u16("shard")?,
                data_shards: fields.u16("data shards")?,
                parity_shards: fields.u16("parity shards")?,
            },
            medium: fields.u16("medium")?,
        };
        fields.zeros(28, "reserved")?;
        Ok(header)
    }
}

/// The last bytes of a finished segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) index_offset: u64,
    /// Length of the index frame, header and tag included.
    pub(crate) index_len: u32,
    pub(crate) records: u32,
    /// Length of the whole file.
    pub(crate) file_len: u64,
    pub(crate) index_digest: [u8; 32],
}

impl Trailer {
    /// The stored form, sealed as the trailer of the file with this salt.
    pub(crate) fn encode(&self, salt: &[u8; SALT_BYTES], sealer: &Sealer) -> [u8; TRAILER_BYTES] {
        let mut bytes = [0; TRAILER_BYTES];
        bytes[..8].copy_from_slice(&TRAILER_MAGIC);
        bytes[8..16].copy_from_slice(&self.index_offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.index_len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.records.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.file_len.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.index_digest);
        bytes[64..96].copy_from_slice(salt);
        let tag = sealer.seal(Domain::Trailer, 0, &bytes[..96], &mut []);
        bytes[96..112].copy_from_slice(&tag);
        put_crc(&mut bytes);
        bytes
    }

    /// Reads and authenticates the trailer that stands at `offset`.
    pub(crate) fn decode(
        bytes: &[u8],
        salt: &[u8; SALT_BYTES],
        sealer: &Sealer,
        offset: u64,
    ) -> Result<Self, BadField> {
        let whole = Fields::new(bytes, offset).array::<TRAILER_BYTES>("trailer")?;
        let mut fields = Fields::new(&whole, offset);
        check_magic(&mut fields, TRAILER_MAGIC)?;
        check_crc(&whole, offset)?;
        let trailer = Trailer {
            index_offset: fields.u64("index offset")?,
            index_len: fields.u32("index length")?,
            records: fields.u32("records")?,
            file_len: fields.u64("file length")?,
            index_digest: fields.array("index digest")?,
        };
        let bad_salt = fields.bad("salt", "not the one of the header");
        if fields.array::<SALT_BYTES>("salt")? != *salt {
            return Err(bad_salt);
        }
        let bad_tag = fields.bad("tag", "does not open");
        let mut tag = fields.array::<TAG_BYTES>("tag")?;
        let opened = sealer.open(Domain::Trailer, 0, &whole[..96], &mut tag);
        opened.map_err(|_| bad_tag)?;
        fields.zeros(12, "reserved")?;
        let end = trailer.index_offset.checked_add(u64::from(trailer.index_len));
        if end != Some(offset) || trailer.file_len != offset + TRAILER_BYTES as u64 {
            return Err(BadField {
                field: "index offset",
                offset: offset + 8,
                why: "does not meet the trailer",
            });
        }
        Ok(trailer)
    }
}

/// Puts the CRC-32C of all but the last four bytes into the last four.
pub(crate) fn put_crc(bytes: &mut [u8]) {
    if let Some((head, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(head).to_le_bytes();
    }
}

/// Checks what [`put_crc`] put.
pub(crate) fn check_crc(bytes: &[u8], offset: u64) -> Result<(), BadField> {
    match bytes.split_last_chunk::<4>() {
        Some((head, crc)) if crc32c::crc32c(head).to_le_bytes() == *crc => Ok(()),
        _ => Err(BadField { field: "checksum", offset, why: "does not match" }),
    }
}

/// Checks the eight bytes that a file or block begins with.
pub(crate) fn check_magic(fields: &mut Fields<'_>, magic: [u8; 8]) -> Result<(), BadField> {
    let bad = fields.bad("magic", "not what this file begins with");
    if fields.array::<8>("magic")? == magic { Ok(()) } else { Err(bad) }
}

/// Checks that the format's version is ours.
pub(crate) fn check_version(fields: &mut Fields<'_>) -> Result<(), BadField> {
    let bad = fields.bad("version", "made by another version of the format");
    if fields.u32("version")? == VERSION { Ok(()) } else { Err(bad) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::{FileRole, SetKey};

    fn header() -> SegmentHeader {
        let stripe = Stripe { id: [5; 16], shard: 1, data_shards: 4, parity_shards: 2 };
        let set = SetId::from_bytes([1; 16]);
        SegmentHeader { sealed: true, set, salt: [2; 32], number: 17, stripe, medium: 3 }
    }

    fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
        (0..bytes.len() * 8).map(|bit| {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            bad
        })
    }

    #[test]
    fn every_bit_of_a_header_counts() {
        let bytes = header().encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        assert!(flips(&bytes).all(|bad| SegmentHeader::decode(&bad).is_err()));
        assert!((0..128).all(|len| SegmentHeader::decode(&bytes[..len]).is_err()));
    }

    #[test]
    fn every_bit_of_a_trailer_counts() {
        let set = SetId::from_bytes([1; 16]);
        for key in [None, Some(SetKey::new([9; 32]))] {
            let sealer = Sealer::new(key.as_ref(), set, FileRole::Segment(17), &[2; 32]);
            let (index_offset, index_len, records) = (5000, 500, 7);
            let index_digest = [3; 32];
            let trailer =
                Trailer { index_offset, index_len, records, file_len: 5628, index_digest };
            let bytes = trailer.encode(&[2; 32], &sealer);
            assert_eq!(Trailer::decode(&bytes, &[2; 32], &sealer, 5500), Ok(trailer));
            assert!(Trailer::decode(&bytes, &[2; 32], &sealer, 5501).is_err());
            assert!(Trailer::decode(&bytes, &[1; 32], &sealer, 5500).is_err());
            assert!(flips(&bytes).all(|b| Trailer::decode(&b, &[2; 32], &sealer, 5500).is_err()));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_do_not_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
            if let Some(head) = bytes.get_mut(..HEADER_BYTES) {
                head[..8].copy_from_slice(&HEADER_MAGIC);
                put_crc(head);
                drop(SegmentHeader::decode(&bytes));
            }
        }
    }
}
