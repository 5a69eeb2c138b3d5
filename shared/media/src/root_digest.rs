//! The root digest: one number for the content of all grains of a set, whatever order they came in.
//!
//! Grains arrive in any order and on several media at once, and a sparse volume of 100 TiB must not
//! cost time for what it does not hold. So the digest is a sum: each non-zero grain is stretched to
//! 1024 lanes of 16 bits by BLAKE3's extendable output over (domain, volume, index, digest of the
//! grain), and the lanes are added modulo 2^16. Zero grains are not included. Sums of parts add up
//! to the sum of the whole, and can be subtracted again, in constant memory.
//!
//! The construction is AdHash/LtHash of Bellare and Micciancio, "A New Paradigm for Collision-Free
//! Hashing: Incrementality at Reduced Cost" (Eurocrypt 1997), with the lanes of LtHash16-1024 (Lewi,
//! Kim, Maykov, Weis, "Securing Update Propagation with Homomorphic Hashing", IACR 2019/227), which
//! puts the cost of a collision above 2^200. It is a sum of a *set*: a grain added twice counts
//! twice, so the writer refuses to take a grain twice.

use std::sync::OnceLock;

use grain::{Geometry, VolumeId};

use crate::fields::BadField;

/// The number of 16-bit lanes.
pub const LANES: usize = 1024;
/// The stored size of a sum in bytes.
pub const SUM_BYTES: usize = LANES * 2;

const ELEMENT_CONTEXT: &str = "grainhaul 2026 media root digest, element v1";
const FINISH_CONTEXT: &str = "grainhaul 2026 media root digest, finish v1";

fn element_key() -> &'static [u8; 32] {
    static KEY: OnceLock<[u8; 32]> = OnceLock::new();
    KEY.get_or_init(|| blake3::derive_key(ELEMENT_CONTEXT, &[]))
}

/// A sum over grains; see the top of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct RootSum {
    lanes: Box<[u16; LANES]>,
}

impl Default for RootSum {
    fn default() -> Self {
        RootSum { lanes: Box::new([0; LANES]) }
    }
}

impl std::fmt::Debug for RootSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RootSum({}...)", blake3::hash(&self.to_bytes()).to_hex().get(..8).unwrap_or(""))
    }
}

impl RootSum {
    /// The sum of no grain.
    pub fn new() -> Self {
        RootSum::default()
    }

    fn element(volume: VolumeId, index: u64, digest: &[u8; 32]) -> [u8; SUM_BYTES] {
        let mut input = [0; 42];
        input[..2].copy_from_slice(&volume.0.to_le_bytes());
        input[2..10].copy_from_slice(&index.to_le_bytes());
        input[10..].copy_from_slice(digest);
        let mut stretched = [0; SUM_BYTES];
        let mut hasher = blake3::Hasher::new_keyed(element_key());
        hasher.update(&input).finalize_xof().fill(&mut stretched);
        stretched
    }

    /// Adds one non-zero grain by the BLAKE3 digest of its bytes.
    pub fn add_grain(&mut self, volume: VolumeId, index: u64, digest: &[u8; 32]) {
        let stretched = Self::element(volume, index, digest);
        for (lane, pair) in self.lanes.iter_mut().zip(stretched.chunks_exact(2)) {
            *lane = lane.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    /// Adds the grains of another sum.
    pub fn add(&mut self, other: &RootSum) {
        for (lane, more) in self.lanes.iter_mut().zip(other.lanes.iter()) {
            *lane = lane.wrapping_add(*more);
        }
    }

    /// Takes the grains of another sum out again.
    pub fn subtract(&mut self, other: &RootSum) {
        for (lane, less) in self.lanes.iter_mut().zip(other.lanes.iter()) {
            *lane = lane.wrapping_sub(*less);
        }
    }

    /// The stored form: the lanes, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadField> {
        if bytes.len() != SUM_BYTES {
            return Err(BadField { field: "root sum", offset: 0, why: "not 2048 bytes" });
        }
        let mut sum = RootSum::new();
        for (lane, pair) in sum.lanes.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Ok(sum)
    }

    /// The root digest: the sum, bound to the geometry it belongs to.
    pub fn finish(&self, geometry: &Geometry) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key(FINISH_CONTEXT);
        hasher.update(&geometry.grain.bytes().to_le_bytes());
        hasher.update(&(geometry.volumes.len() as u64).to_le_bytes());
        for volume in &geometry.volumes {
            hasher.update(&(volume.alias.len() as u64).to_le_bytes());
            hasher.update(volume.alias.as_bytes());
            hasher.update(&volume.bytes.to_le_bytes());
        }
        hasher.update(&self.to_bytes());
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use grain::{GrainSize, VolumeShape};

    use super::*;

    fn geometry(bytes: u64) -> Geometry {
        let volumes = vec![VolumeShape { alias: "disk".into(), bytes }];
        Geometry { grain: GrainSize::DEFAULT, volumes }
    }

    #[test]
    fn the_sum_does_not_depend_on_the_order_and_parts_add_up() {
        let digest = |i: u64| *blake3::hash(&i.to_le_bytes()).as_bytes();
        let (mut up, mut down) = (RootSum::new(), RootSum::new());
        let (mut odd, mut even) = (RootSum::new(), RootSum::new());
        for i in 0..100 {
            up.add_grain(VolumeId(0), i, &digest(i));
            down.add_grain(VolumeId(0), 99 - i, &digest(99 - i));
            let half = if i % 2 == 0 { &mut even } else { &mut odd };
            half.add_grain(VolumeId(0), i, &digest(i));
        }
        assert_eq!(up, down);
        odd.add(&even);
        assert_eq!(odd, up);
        odd.subtract(&even);
        odd.add(&RootSum::from_bytes(&even.to_bytes()).unwrap());
        assert_eq!(odd.finish(&geometry(1 << 30)), up.finish(&geometry(1 << 30)));
        assert_ne!(up.finish(&geometry(1 << 30)), up.finish(&geometry(1 << 31)));
    }

    #[test]
    fn place_and_content_both_count() {
        let sum = |volume, index, digest: u8| {
            let mut sum = RootSum::new();
            sum.add_grain(VolumeId(volume), index, &[digest; 32]);
            sum
        };
        let first = sum(0, 1, 1);
        assert!(first != sum(0, 2, 1) && first != sum(1, 1, 1) && first != sum(0, 1, 2));
        assert!(RootSum::from_bytes(&[0; 7]).is_err());
    }

    #[test]
    fn the_stored_form_is_fixed() {
        let mut sum = RootSum::new();
        sum.add_grain(VolumeId(3), 0x0102_0304, &[7; 32]);
        let root = blake3::Hash::from_bytes(sum.finish(&geometry(123_456_789)));
        assert_eq!(
            root.to_hex().as_str(),
            "0872d3826475122d2f00fcc4717c49b57cfc261c2990e965a34e74839c598d6a"
        );
    }
}
