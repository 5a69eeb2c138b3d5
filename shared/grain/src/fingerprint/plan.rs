//! Where the samples of a generation lie.

use std::ops::Range;

use super::{CHUNK_BYTES, Fingerprint, FingerprintSum};
use crate::{Content, CutId, Geometry, GrainData, VolumeId};

/// Bytes of a sample.
pub const SAMPLE_BYTES: u64 = 65_536;
/// About how many samples a volume gets; a small one is sampled whole.
pub const SAMPLES_PER_VOLUME: u64 = 1000;

/// The samples of all volumes in one generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintPlan {
    seed: [u8; 16],
    volumes: Vec<VolumePlan>,
}

impl FingerprintPlan {
    /// The plan that follows from 16 random bytes; the same bytes give the same plan everywhere.
    pub fn new(geometry: &Geometry, seed: [u8; 16]) -> FingerprintPlan {
        let mut hasher = blake3::Hasher::new_derive_key("grainhaul fingerprint starts 1");
        hasher.update(&seed);
        let mut stream = hasher.finalize_xof();
        let volumes = geometry.volumes.iter().map(|volume| {
            let mut random = [0; 8];
            stream.fill(&mut random);
            VolumePlan::new(volume.bytes, u64::from_le_bytes(random))
        });
        FingerprintPlan { seed, volumes: volumes.collect() }
    }

    /// The plan of a cut: as random as the cut's id, and the same at every site, so that all copies of
    /// a cut (media, loaded, committed, extracted) can be held against one another.
    pub fn of_cut(geometry: &Geometry, cut: CutId) -> FingerprintPlan {
        let key = blake3::derive_key("grainhaul fingerprint of a cut 1", &cut.to_bytes());
        let seed = key.first_chunk().copied().unwrap_or_default();
        FingerprintPlan::new(geometry, seed)
    }

    /// A plan made by hand.
    #[cfg(test)]
    pub(super) fn of(seed: [u8; 16], volumes: Vec<VolumePlan>) -> FingerprintPlan {
        FingerprintPlan { seed, volumes }
    }

    /// The random bytes that make this plan.
    pub fn seed(&self) -> [u8; 16] {
        self.seed
    }

    /// The samples of one volume.
    pub fn volume(&self, volume: VolumeId) -> Option<&VolumePlan> {
        self.volumes.get(volume.index())
    }

    /// The sampled chunks of `[offset, offset + len)` of a volume, as byte ranges in order. A chunk
    /// that the range covers only in part is not among them: feed ranges that begin and end at chunks
    /// (or at the end of the volume), as grains do.
    pub fn covers(
        &self,
        volume: VolumeId,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = Range<u64>> + '_ {
        let plan = self.volume(volume).copied();
        plan.into_iter().flat_map(move |plan| plan.covers(offset, len))
    }

    /// Adds the sampled chunks of `data`, which stands at `offset` of a volume.
    pub fn add(&self, sum: &mut FingerprintSum, volume: VolumeId, offset: u64, data: &[u8]) {
        for range in self.covers(volume, offset, data.len() as u64) {
            let place = (range.start - offset) as usize..(range.end - offset) as usize;
            if let Some(chunk) = data.get(place) {
                sum.add_chunk(chunk);
            }
        }
    }

    /// Adds the sampled chunks of a range of zeros, at a cost that does not depend on its length.
    pub fn add_zeros(&self, sum: &mut FingerprintSum, volume: VolumeId, offset: u64, len: u64) {
        let Some(plan) = self.volume(volume) else { return };
        let (whole, short) = plan.count(offset, len);
        sum.add_zero_chunks(whole);
        if let Some(bytes) = short {
            sum.add_chunk(&[0; CHUNK_BYTES as usize][..bytes]);
        }
    }

    /// How many chunks the whole fingerprint has.
    pub fn chunks(&self) -> u64 {
        let count = |plan: &VolumePlan| plan.count(0, plan.bytes);
        self.volumes.iter().map(count).map(|(n, short)| n + u64::from(short.is_some())).sum()
    }

    /// The fingerprint, if every sampled chunk was added.
    pub fn finish(&self, sum: &FingerprintSum) -> Option<Fingerprint> {
        let whole = sum.chunks() == self.chunks();
        whole.then(|| self.so_far(sum))
    }

    /// The fingerprint of what was added, which may be less than everything: that of a copy that lacks
    /// grains. Its count says so.
    pub fn so_far(&self, sum: &FingerprintSum) -> Fingerprint {
        Fingerprint { seed: self.seed, chunks: sum.chunks(), sum: sum.value() }
    }

    /// Adds a run of grains, sampled chunks that it holds.
    pub fn add_grains(&self, geometry: &Geometry, sum: &mut FingerprintSum, data: &GrainData) {
        let run = data.run;
        let range = geometry.byte_range(run.volume, run.first, run.count);
        match &data.content {
            Content::Data(bytes) => self.add(sum, run.volume, range.start, bytes),
            Content::Zero => self.add_zeros(sum, run.volume, range.start, range.end - range.start),
        }
    }
}

/// The samples of one volume: `[start + k * period, + 64 KiB)` for every `k` that begins inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    bytes: u64,
    /// Offset of the first sample, a multiple of the chunk and less than the period.
    start: u64,
    /// Distance of two samples, a multiple of the chunk, at least the sample's length.
    period: u64,
}

impl VolumePlan {
    /// The samples of a volume of `bytes` bytes; `random` picks the start.
    pub fn new(bytes: u64, random: u64) -> VolumePlan {
        let period = (bytes / SAMPLES_PER_VOLUME).next_multiple_of(CHUNK_BYTES).max(SAMPLE_BYTES);
        // Where samples touch, all is sampled and there is nothing to choose. Else one period is cut
        // into its chunks; a little less than uniform (2^64 is no multiple), which does no harm.
        let start = match period == SAMPLE_BYTES {
            true => 0,
            false => random % (period / CHUNK_BYTES) * CHUNK_BYTES,
        };
        // A volume with a handful of periods would otherwise often miss its only sample.
        VolumePlan { bytes, start: if start >= bytes { 0 } else { start }, period }
    }

    /// Samples made by hand.
    #[cfg(test)]
    pub(super) fn with_gaps(bytes: u64, start: u64, period: u64) -> VolumePlan {
        VolumePlan { bytes, start, period }
    }

    /// Offset of the first sample.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Distance from one sample to the next, in bytes.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// See [`FingerprintPlan::covers`].
    pub fn covers(self, offset: u64, len: u64) -> impl Iterator<Item = Range<u64>> {
        let end = offset.saturating_add(len).min(self.bytes);
        let mut at = self.at_or_after(offset);
        std::iter::from_fn(move || {
            let chunk = at..at.saturating_add(CHUNK_BYTES).min(self.bytes);
            if chunk.start >= self.bytes || chunk.end > end {
                return None;
            }
            at = self.at_or_after(chunk.start + CHUNK_BYTES);
            Some(chunk)
        })
    }

    /// The first sampled chunk that begins at or after `offset`.
    fn at_or_after(&self, offset: u64) -> u64 {
        let offset = offset.checked_next_multiple_of(CHUNK_BYTES).unwrap_or(u64::MAX);
        let Some(past) = offset.checked_sub(self.start) else { return self.start };
        match past % self.period < SAMPLE_BYTES {
            true => offset,
            false => {
                self.start.saturating_add((past / self.period + 1).saturating_mul(self.period))
            }
        }
    }

    /// How many sampled whole chunks `covers` gives, and the length of a short last one, if it does.
    fn count(&self, offset: u64, len: u64) -> (u64, Option<usize>) {
        let end = offset.saturating_add(len).min(self.bytes);
        let from = offset.checked_next_multiple_of(CHUNK_BYTES).unwrap_or(u64::MAX);
        let to = end / CHUNK_BYTES * CHUNK_BYTES;
        let whole = self.before(to).saturating_sub(self.before(from.min(to)));
        let tail = (end == self.bytes && to >= from && end > to).then_some(to);
        let short = tail.filter(|at| self.at_or_after(*at) == *at).map(|at| (end - at) as usize);
        (whole, short)
    }

    /// How many sampled chunks begin before `offset`, a multiple of the chunk.
    fn before(&self, offset: u64) -> u64 {
        let Some(past) = offset.checked_sub(self.start) else { return 0 };
        let inside = (past % self.period).min(SAMPLE_BYTES) / CHUNK_BYTES;
        past / self.period * (SAMPLE_BYTES / CHUNK_BYTES) + inside
    }
}
