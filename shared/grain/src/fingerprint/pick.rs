//! Random samples for the check at attach, and what they can miss.

use std::collections::BTreeSet;

use crate::{Geometry, GrainSet, Run, VolumeId};

/// Picks up to `count` different grains, uniformly among those that are not in `dirty`, from the random
/// bytes (8 for each pick; fewer bytes give fewer picks). In address order. All clean grains when there
/// are no more than `count`.
///
/// Takes about one step in the map for each run of `dirty` between picks, never one for each grain.
pub fn pick_clean_grains(
    geometry: &Geometry,
    dirty: &GrainSet,
    count: usize,
    random: &[u8],
) -> Vec<(VolumeId, u64)> {
    let inside = |volume| Run { volume, first: 0, count: geometry.grains(volume) };
    let unclean: u64 = geometry.iter().map(|(volume, _)| dirty.count_in(inside(volume))).sum();
    let clean = geometry.total_grains() - unclean;
    let ranks = match clean <= count as u64 {
        true => (0..clean).collect(),
        false => distinct(clean, count, random),
    };
    at_ranks(geometry, dirty, &ranks)
}

/// Up to `count` different numbers below `below`, by Floyd's method (Bentley and Floyd 1987: every subset
/// is equally likely).
fn distinct(below: u64, count: usize, random: &[u8]) -> BTreeSet<u64> {
    let mut ranks = BTreeSet::new();
    let draws = random.as_chunks::<8>().0;
    let count = count.min(draws.len());
    for (upper, draw) in (below - count as u64..below).zip(draws) {
        // The upper half of a 128-bit product: uniform up to 2^-64 times the range.
        let wide = u128::from(u64::from_le_bytes(*draw)) * (u128::from(upper) + 1);
        let rank = (wide >> 64) as u64;
        if !ranks.insert(rank) {
            ranks.insert(upper);
        }
    }
    ranks
}

/// The clean grains with these numbers, counted in address order.
fn at_ranks(geometry: &Geometry, dirty: &GrainSet, ranks: &BTreeSet<u64>) -> Vec<(VolumeId, u64)> {
    let mut ranks = ranks.iter().copied().peekable();
    let mut picked = Vec::new();
    let mut passed = 0;
    for (volume, _) in geometry.iter() {
        let grains = geometry.grains(volume);
        let mut at = 0;
        while at < grains && ranks.peek().is_some() {
            let next = dirty.next_run((volume, at), u64::MAX).filter(|run| run.volume == volume);
            let stop = next.map_or(grains, |run| run.first.min(grains));
            while let Some(rank) = ranks.next_if(|rank| *rank < passed + (stop - at)) {
                picked.push((volume, at + (rank - passed)));
            }
            passed += stop - at;
            at = next.map_or(grains, |run| run.end());
        }
    }
    picked
}

/// The probability that `samples` random samples of `total` grains miss all of `wrong` wrong ones:
/// (1 - wrong/total)^samples, the bound that is shown. Picking without repetition, as
/// [`pick_clean_grains`] does, misses a little less often.
pub fn miss_probability(samples: u64, total: u64, wrong: u64) -> f64 {
    if total == 0 || wrong == 0 {
        return 1.0;
    }
    if wrong >= total {
        return if samples == 0 { 1.0 } else { 0.0 };
    }
    // By logarithms, so that a few wrong grains of billions do not round away.
    let share = wrong as f64 / total as f64;
    ((-share).ln_1p() * samples as f64).exp()
}
