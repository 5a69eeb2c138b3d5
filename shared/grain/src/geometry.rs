//! Geometry: the grain size and the volumes of a relationship.
//!
//! A volume need not be a multiple of the grain; its last grain is then short. Grains are addressed
//! as (volume, index), so that a volume can grow and others can be added without renumbering.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Run, Span};

/// What is wrong with a geometry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Not a power of two from 4 KiB to 4 MiB.
    #[error("a grain of {0} bytes is not a power of two from 4 KiB to 4 MiB")]
    GrainSize(u64),
    /// No volume, or more than [`Geometry::MAX_VOLUMES`].
    #[error("a relationship has 1 to {max} volumes, not {0}", max = Geometry::MAX_VOLUMES)]
    VolumeCount(usize),
    /// Empty volume, or larger than 2^60 bytes.
    #[error("volume `{0}` has {1} bytes; a volume has 1 byte to 1 EiB")]
    VolumeSize(String, u64),
    /// An alias that is empty, too long, used twice, or has characters outside `[A-Za-z0-9._-]`.
    #[error("`{0}` cannot name a volume: use 1 to 64 of A-Z a-z 0-9 . _ -, each alias once")]
    Alias(String),
}

/// The size of a grain: a power of two from 4 KiB to 4 MiB, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct GrainSize(u8);

impl GrainSize {
    /// 64 KiB.
    pub const DEFAULT: GrainSize = GrainSize(16);
    /// 4 KiB.
    pub const MIN: GrainSize = GrainSize(12);
    /// 4 MiB.
    pub const MAX: GrainSize = GrainSize(22);

    /// The grain size of `bytes` bytes.
    pub fn from_bytes(bytes: u64) -> Result<Self, GeometryError> {
        let shift = bytes.trailing_zeros() as u8;
        if !bytes.is_power_of_two() || !(Self::MIN.0..=Self::MAX.0).contains(&shift) {
            return Err(GeometryError::GrainSize(bytes));
        }
        Ok(GrainSize(shift))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        1 << self.0
    }

    /// Base-two logarithm of the size in bytes.
    pub fn shift(self) -> u32 {
        u32::from(self.0)
    }

    /// The grain that holds the byte at `offset`.
    pub fn index_of(self, offset: u64) -> u64 {
        offset >> self.0
    }

    /// How many grains cover `bytes` bytes from offset 0.
    pub fn count_for(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.bytes())
    }

    /// The grains touched by the bytes `[offset, offset + len)`; empty when `len` is 0.
    pub fn touched(self, offset: u64, len: u64) -> Range<u64> {
        if len == 0 {
            return self.index_of(offset)..self.index_of(offset);
        }
        self.index_of(offset)..self.index_of(offset + len - 1) + 1
    }
}

impl fmt::Debug for GrainSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GrainSize({} KiB)", self.bytes() >> 10)
    }
}

impl TryFrom<u32> for GrainSize {
    type Error = GeometryError;
    fn try_from(bytes: u32) -> Result<Self, GeometryError> {
        GrainSize::from_bytes(u64::from(bytes))
    }
}

impl From<GrainSize> for u32 {
    fn from(size: GrainSize) -> u32 {
        1 << size.0
    }
}

/// The number of a volume inside its relationship, from 0 in the order given to `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeId(pub u16);

impl VolumeId {
    /// As an index into [`Geometry::volumes`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What both sites must agree on about one volume.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeShape {
    /// The name under which the volume is exported.
    pub alias: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// The grain size and the volumes of a relationship, the same at every site.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Geometry {
    /// The unit of tracking.
    pub grain: GrainSize,
    /// In the order of their [`VolumeId`].
    pub volumes: Vec<VolumeShape>,
}

impl Geometry {
    /// The most volumes of one relationship.
    pub const MAX_VOLUMES: usize = 64;
    /// The most bytes of one volume: 2^60.
    pub const MAX_VOLUME_BYTES: u64 = 1 << 60;

    /// Checks the bounds; a geometry from a file or a peer passes through here before use.
    pub fn validate(&self) -> Result<(), GeometryError> {
        let count = self.volumes.len();
        if count == 0 || count > Self::MAX_VOLUMES {
            return Err(GeometryError::VolumeCount(count));
        }
        for (i, volume) in self.volumes.iter().enumerate() {
            if volume.bytes == 0 || volume.bytes > Self::MAX_VOLUME_BYTES {
                return Err(GeometryError::VolumeSize(volume.alias.clone(), volume.bytes));
            }
            let good = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
            let unique = self.volumes[..i].iter().all(|v| v.alias != volume.alias);
            let sized = (1..=64).contains(&volume.alias.len());
            let hidden = volume.alias.starts_with('.');
            if !sized || hidden || !unique || !volume.alias.bytes().all(good) {
                return Err(GeometryError::Alias(volume.alias.clone()));
            }
        }
        Ok(())
    }

    /// The volumes with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (VolumeId, &VolumeShape)> {
        self.volumes.iter().enumerate().map(|(i, v)| (VolumeId(i as u16), v))
    }

    /// The shape of `volume`, if there is such a volume.
    pub fn volume(&self, volume: VolumeId) -> Option<&VolumeShape> {
        self.volumes.get(volume.index())
    }

    /// The number of grains of `volume` (0 for an unknown one), the short last one included.
    pub fn grains(&self, volume: VolumeId) -> u64 {
        self.volume(volume).map_or(0, |v| self.grain.count_for(v.bytes))
    }

    /// The number of grains of all volumes together.
    pub fn total_grains(&self) -> u64 {
        self.iter().map(|(id, _)| self.grains(id)).sum()
    }

    /// The bytes of all volumes together.
    pub fn total_bytes(&self) -> u64 {
        self.volumes.iter().map(|v| v.bytes).sum()
    }

    /// The bytes that grains `first..first + count` of `volume` cover, clipped at the volume's end.
    pub fn byte_range(&self, volume: VolumeId, first: u64, count: u64) -> Range<u64> {
        let end = self.volume(volume).map_or(0, |v| v.bytes);
        let shift = self.grain.shift();
        let from = first.checked_shl(shift).unwrap_or(u64::MAX).min(end);
        let to = first.saturating_add(count);
        let to = if to > end >> shift { end } else { to << shift };
        from..to.min(end).max(from)
    }

    /// The bytes of a run, clipped at the volume's end.
    pub fn span_of(&self, run: Run) -> Span {
        let range = self.byte_range(run.volume, run.first, run.count);
        Span { volume: run.volume, start: range.start, bytes: range.end - range.start }
    }

    /// The grains that a span touches.
    pub fn touched_by(&self, span: Span) -> Run {
        let touched = self.grain.touched(span.start, span.bytes);
        Run { volume: span.volume, first: touched.start, count: touched.end - touched.start }
    }

    /// Whether all bytes of `span` are bytes of the volume.
    pub fn holds_span(&self, span: Span) -> bool {
        let end = span.start.checked_add(span.bytes);
        let size = self.volume(span.volume).map_or(0, |v| v.bytes);
        span.bytes > 0 && end.is_some_and(|end| end <= size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(bytes: u64) -> Geometry {
        let volumes = vec![VolumeShape { alias: "disk".into(), bytes }];
        Geometry { grain: GrainSize::DEFAULT, volumes }
    }

    #[test]
    fn the_last_grain_may_be_short() {
        let g = geometry(3 * 65536 + 512);
        assert_eq!(g.grains(VolumeId(0)), 4);
        assert_eq!(g.byte_range(VolumeId(0), 3, 1), 196_608..197_120);
        assert_eq!(g.byte_range(VolumeId(0), 2, 9), 131_072..197_120);
        assert_eq!(g.byte_range(VolumeId(0), 4, 1), 197_120..197_120);
        assert_eq!(g.byte_range(VolumeId(0), u64::MAX, u64::MAX), 197_120..197_120);
    }

    #[test]
    fn touched_covers_partial_grains() {
        let g = GrainSize::DEFAULT;
        assert_eq!(g.touched(65535, 2), 0..2);
        assert_eq!(g.touched(65536, 65536), 1..2);
        assert!(g.touched(70000, 0).is_empty());
    }

    #[test]
    fn bad_geometry_is_named() {
        assert!(GrainSize::from_bytes(65537).is_err());
        assert!(GrainSize::from_bytes(2048).is_err());
        assert!(geometry(0).validate().is_err());
        let mut twice = geometry(10);
        twice.volumes.push(twice.volumes[0].clone());
        assert_eq!(twice.validate(), Err(GeometryError::Alias("disk".into())));
        let mut bad = geometry(10);
        bad.volumes[0].alias = "../etc".into();
        assert!(bad.validate().is_err());
    }
}
