//! Where the bits of each volume stand in a map file.

use grain::{Geometry, VolumeId};

use super::format::{BITS, SECTORS_A_PAGE};

/// Bits of each volume, and the sector at which they begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    volumes: Vec<Section>,
    sectors: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Section {
    bits: u64,
    first_sector: u64,
}

impl Layout {
    /// A layout for so many bits a volume.
    pub fn new(bits: impl IntoIterator<Item = u64>) -> Self {
        let mut sectors = SECTORS_A_PAGE;
        let mut volumes = Vec::new();
        for bits in bits {
            volumes.push(Section { bits, first_sector: sectors });
            sectors += bits.div_ceil(BITS).next_multiple_of(SECTORS_A_PAGE);
        }
        Layout { volumes, sectors }
    }

    /// One bit for each grain.
    pub fn of_grains(geometry: &Geometry) -> Self {
        Layout::new(geometry.iter().map(|(id, _)| geometry.grains(id)))
    }

    /// All sectors, the header's page included.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Size of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.sectors * super::format::SECTOR as u64
    }

    /// Bits of `volume`; 0 for an unknown one.
    pub fn bits(&self, volume: VolumeId) -> u64 {
        self.volumes.get(volume.index()).map_or(0, |s| s.bits)
    }

    /// The sectors that hold bits `first..end` of `volume`; empty for an unknown volume.
    pub(crate) fn sectors_of(
        &self,
        volume: VolumeId,
        first: u64,
        end: u64,
    ) -> std::ops::Range<u64> {
        match self.volumes.get(volume.index()) {
            Some(section) if first < end => {
                section.first_sector + first / BITS..section.first_sector + (end - 1) / BITS + 1
            }
            _ => 0..0,
        }
    }

    /// Which volume sector `number` belongs to, and the first bit it holds; `None` for the header
    /// and for the padding after a volume.
    pub(crate) fn bits_of(&self, number: u64) -> Option<(VolumeId, u64, u64)> {
        let after = self.volumes.partition_point(|s| s.first_sector <= number);
        let index = after.checked_sub(1)?;
        let section = self.volumes.get(index)?;
        let first = (number - section.first_sector) * BITS;
        let end = section.bits.min(first + BITS);
        (first < end).then_some((VolumeId(index as u16), first, end))
    }

    /// A hash of the layout, stored in the header.
    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = blake3::Hasher::new();
        for section in &self.volumes {
            hasher.update(&section.bits.to_le_bytes());
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_has_one_place() {
        let layout = Layout::new([1, 3968, 3969, 100_000]);
        let mut expected = 8;
        for (volume, bits) in [1_u64, 3968, 3969, 100_000].into_iter().enumerate() {
            let volume = VolumeId(volume as u16);
            assert_eq!(layout.sectors_of(volume, 0, 1).start, expected);
            let all = layout.sectors_of(volume, 0, bits);
            for sector in all.clone() {
                let (v, first, end) = layout.bits_of(sector).unwrap();
                assert_eq!(v, volume);
                assert_eq!(layout.sectors_of(volume, first, end), sector..sector + 1);
            }
            assert_eq!(layout.bits_of(all.end - 1).unwrap().2, bits);
            expected = all.end.next_multiple_of(8);
        }
        assert_eq!(layout.sectors(), expected);
        assert_eq!(layout.bits_of(0), None);
    }
}
