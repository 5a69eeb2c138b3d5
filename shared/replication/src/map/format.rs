//! Bytes of a map file: header and sectors. `docs/formats/map-file.md` has the picture.
//!
//! A map file holds one bit for each grain (or region) of each volume. It is divided into sectors of
//! 512 bytes, the unit that a disk writes whole, and each sector stands for itself: it carries the
//! tag of the map it was written for and a checksum. A sector of another tag is untouched (a recycled
//! file need not be wiped), a sector whose checksum fails reads as all bits set.

use grain::{LayerId, RelationshipId};

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// 64-bit words of bits in a sector.
pub(crate) const WORDS: usize = 62;
/// Bits in a sector.
pub(crate) const BITS: u64 = WORDS as u64 * 64;
/// Sectors of a page of 4 KiB; the header takes the first page, each volume starts on a page.
pub(crate) const SECTORS_A_PAGE: u64 = 8;

const MAGIC: &[u8; 8] = b"GHMAP\x00v1";
const CRC_AT: usize = 12;
const BITS_AT: usize = 16;
const HEADER_END: usize = 58;

/// What the bits of a map file mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Grains written in an epoch.
    Layer,
    /// Regions that may have bits which are not synced yet.
    Regions,
    /// Grains that a replica should hold and does not.
    Missing,
    /// The grains of a catch-up session.
    Session,
}

impl MapKind {
    fn code(self) -> u8 {
        match self {
            MapKind::Layer => 1,
            MapKind::Regions => 2,
            MapKind::Missing => 3,
            MapKind::Session => 4,
        }
    }
}

/// The header of a map file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: LayerId,
    pub(crate) kind: MapKind,
    pub(crate) relationship: RelationshipId,
    /// Hash of the layout (bits of each volume), so that a map of another geometry is refused.
    pub(crate) layout_hash: u64,
}

/// What a sector says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sector {
    /// Written for another map: no bit of this one.
    Untouched,
    /// The bits.
    Bits(Box<[u64; WORDS]>),
    /// Not what was written: all bits count as set.
    Damaged,
}

/// The tag that the sectors of map `id` carry: the last eight bytes of the id, all of them random
/// but for two bits.
pub(crate) fn tag(id: LayerId) -> u64 {
    let bytes = id.to_bytes();
    let mut last = [0; 8];
    last.copy_from_slice(&bytes[8..]);
    u64::from_le_bytes(last)
}

fn checksum(sector: &[u8]) -> u32 {
    let before = crc32c::crc32c(&sector[..CRC_AT]);
    crc32c::crc32c_append(before, &sector[BITS_AT..SECTOR])
}

/// Encodes sector `number` of the map with `tag`.
pub(crate) fn encode(tag: u64, number: u32, words: &[u64; WORDS]) -> [u8; SECTOR] {
    let mut out = [0; SECTOR];
    out[..8].copy_from_slice(&tag.to_le_bytes());
    out[8..CRC_AT].copy_from_slice(&number.to_le_bytes());
    for (place, word) in out[BITS_AT..].chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    let crc = checksum(&out);
    out[CRC_AT..BITS_AT].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Decodes sector `number` for the map with `tag`.
pub(crate) fn decode(tag: u64, number: u32, sector: &[u8; SECTOR]) -> Sector {
    let stored = u32_at(sector, CRC_AT);
    if stored != checksum(sector) || u32_at(sector, 8) != number {
        return Sector::Damaged;
    }
    if u64_at(sector, 0) != tag {
        return Sector::Untouched;
    }
    let mut words = Box::new([0; WORDS]);
    for (word, place) in words.iter_mut().zip(sector[BITS_AT..].chunks_exact(8)) {
        *word = u64_at(place, 0);
    }
    Sector::Bits(words)
}

/// Encodes the header sector.
pub(crate) fn encode_header(header: &Header) -> [u8; SECTOR] {
    let mut out = [0; SECTOR];
    out[..8].copy_from_slice(MAGIC);
    out[16..32].copy_from_slice(&header.id.to_bytes());
    out[32..48].copy_from_slice(&header.relationship.to_bytes());
    out[48..56].copy_from_slice(&header.layout_hash.to_le_bytes());
    out[56] = header.kind.code();
    let crc = checksum(&out);
    out[CRC_AT..BITS_AT].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Decodes the header sector; the error says which field is wrong.
pub(crate) fn decode_header(sector: &[u8; SECTOR]) -> Result<Header, String> {
    if &sector[..8] != MAGIC {
        return Err("bytes 0..8 (magic) are not those of a map file".to_owned());
    }
    if u32_at(sector, CRC_AT) != checksum(sector) {
        return Err("bytes 12..16 (header checksum) do not fit".to_owned());
    }
    let kind = match sector[56] {
        1 => MapKind::Layer,
        2 => MapKind::Regions,
        3 => MapKind::Missing,
        4 => MapKind::Session,
        other => return Err(format!("byte 56 (kind) is {other}, which is unknown")),
    };
    if sector[HEADER_END..].iter().any(|b| *b != 0) {
        return Err(format!("bytes {HEADER_END}..512 (reserved) are not zero"));
    }
    let id = |at: usize| {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&sector[at..at + 16]);
        bytes
    };
    Ok(Header {
        id: LayerId::from_bytes(id(16)),
        kind,
        relationship: RelationshipId::from_bytes(id(32)),
        layout_hash: u64_at(sector, 48),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            id: LayerId::from_bytes([7; 16]),
            kind: MapKind::Layer,
            relationship: RelationshipId::from_bytes([9; 16]),
            layout_hash: 42,
        }
    }

    #[test]
    fn every_flipped_bit_of_a_sector_reads_as_damaged() {
        let words = std::array::from_fn(|i| i as u64 * 0x0101_0101);
        let good = encode(5, 17, &words);
        assert_eq!(decode(5, 17, &good), Sector::Bits(Box::new(words)));
        assert_eq!(decode(6, 17, &good), Sector::Untouched);
        assert_eq!(decode(5, 18, &good), Sector::Damaged);
        for bit in 0..SECTOR * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(5, 17, &bad), Sector::Damaged, "bit {bit}");
        }
        assert_eq!(decode(5, 17, &[0; SECTOR]), Sector::Damaged);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let good = encode_header(&header());
        assert_eq!(decode_header(&good), Ok(header()));
        for bit in 0..SECTOR * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_header(&bad).is_err(), "bit {bit}");
        }
    }
}
