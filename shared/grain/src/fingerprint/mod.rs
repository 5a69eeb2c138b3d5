//! Fingerprints: a cheap number that two copies of the same volumes share, and samples that say where
//! they do not.
//!
//! About 1000 samples of 64 KiB are taken from a volume, whatever its size: they lie a *period* of
//! about a thousandth of the size apart, and begin at a *start* that is random per generation, so that
//! generations cover more and more. Each 4 KiB chunk of a sample counts as the Fletcher-32 of its bytes
//! plus the Fletcher-32 of its SHA-1, and the fingerprint is the sum modulo 2^64: it does not depend on
//! the order, so that dump, load and copy add up whatever passes by.
//!
//! A fingerprint finds accidents, not forgeries: sums can be made to agree on purpose. What it can miss
//! is [`miss_probability`]. Random bytes come from the caller.

mod chunk;
mod pick;
mod plan;
#[cfg(test)]
mod tests;

pub use chunk::{CHUNK_BYTES, Fingerprint, FingerprintSum, chunk_value, fletcher32};
pub use pick::{miss_probability, pick_clean_grains};
pub use plan::{FingerprintPlan, SAMPLE_BYTES, SAMPLES_PER_VOLUME, VolumePlan};
