//! Which layers supply which epochs (rule 1), and the newest cut that two sites share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{LayerName, Lineage};
use crate::CutId;

/// An epoch that no layer supplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EpochGap {
    /// The cut that opens it.
    pub from: CutId,
    /// The cut that closes it.
    pub to: CutId,
}

/// The newest cut that both chains hold. `None` as well when the chains do not agree which one that
/// is: honest chains are paths in one tree and always do.
pub fn newest_common_cut(a: &Lineage, b: &Lineage) -> Option<CutId> {
    let newest = |a: &Lineage, b: &Lineage| {
        let known = b.places();
        a.cuts().iter().rev().map(|cut| cut.id).find(|cut| known.contains_key(cut))
    };
    let common = newest(a, b)?;
    (newest(b, a) == Some(common)).then_some(common)
}

/// Rule 1: the layers (by their place in `layers`) that supply epochs of `chain` from the cut `since`
/// to its head, or the first epoch that none supplies. A layer supplies an epoch when both its cuts
/// are listed in the layer's name, or when the epoch lies between the ends of the layer in the chain.
///
/// Takes time in proportion to the names and cuts, not to their product.
pub fn supplying_layers<'a>(
    chain: &Lineage,
    since: CutId,
    layers: impl IntoIterator<Item = &'a LayerName>,
) -> Result<Vec<usize>, EpochGap> {
    let places = chain.places();
    let start = places.get(&since).copied().unwrap_or(0);
    let epochs = chain.cuts().len().saturating_sub(1);
    // Steps of a running count: how many layers supply each epoch.
    let mut steps = vec![0i64; epochs + 1];
    let mut used = Vec::new();
    for (index, name) in layers.into_iter().enumerate() {
        let mut useful = false;
        for (from, to) in supplied(name, &places) {
            useful |= to > start;
            for (at, step) in [(from, 1), (to, -1)] {
                if let Some(count) = steps.get_mut(at) {
                    *count += step;
                }
            }
        }
        if useful {
            used.push(index);
        }
    }
    let mut count = 0;
    for (index, pair) in chain.cuts().windows(2).enumerate() {
        count += steps.get(index).copied().unwrap_or(0);
        if let ([from, to], true) = (pair, index >= start && count == 0) {
            return Err(EpochGap { from: from.id, to: to.id });
        }
    }
    Ok(used)
}

/// The ranges of epochs (by the places of their opening cuts) that a layer supplies to a chain.
fn supplied(name: &LayerName, places: &BTreeMap<CutId, usize>) -> Vec<(usize, usize)> {
    let mut ranges = Vec::new();
    if let (Some(from), Some(to)) = (places.get(&name.from), places.get(&name.to))
        && from < to
    {
        ranges.push((*from, *to));
    }
    let mut listed: Vec<usize> =
        name.names.iter().filter_map(|cut| places.get(cut)).copied().collect();
    listed.sort_unstable();
    for pair in listed.windows(2) {
        if let [from, to] = pair
            && from + 1 == *to
        {
            ranges.push((*from, *to));
        }
    }
    ranges
}
