//! Layers: what was written in an epoch, named so that nobody takes it for another epoch's.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{CutId, Error, GrainSet};

/// The most ids that one layer lists. Beyond it the oldest inner ones are forgotten, which can only
/// make the layer supply less.
pub const MAX_NAMES_PER_LAYER: usize = 4096;

/// Something that can take in another of its kind: a set of grains, or a count that bounds its size.
pub trait Union: Clone + Default {
    /// Adds everything of `other`.
    fn union_with(&mut self, other: &Self);
}

/// A set of grains.
pub trait Grains: Union {
    /// Whether everything in this set is in `other`.
    fn is_subset(&self, other: &Self) -> bool;
}

impl Union for GrainSet {
    fn union_with(&mut self, other: &Self) {
        GrainSet::union_with(self, other);
    }
}

impl Grains for GrainSet {
    fn is_subset(&self, other: &Self) -> bool {
        GrainSet::is_subset(self, other)
    }
}

/// A number of grains. As a union it adds up, and so bounds the size of the union of the sets.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Count(pub u64);

impl Union for Count {
    fn union_with(&mut self, other: &Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// The name of a layer: both ends of its epoch (rule 1; two branches share an opening cut, and their
/// layers are different facts), and the cuts in between that were merged away (rule 5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerName {
    /// The cut that opens the epoch.
    pub from: CutId,
    /// The cut that closes it.
    pub to: CutId,
    /// Both ends and the cuts between them that are known, oldest first.
    pub names: Vec<CutId>,
}

impl LayerName {
    /// The epoch between two neighbouring cuts.
    pub fn new(from: CutId, to: CutId) -> LayerName {
        LayerName { from, to, names: vec![from, to] }
    }

    /// The epochs along `cuts`, oldest first. `None` for fewer than two.
    pub fn along(cuts: impl IntoIterator<Item = CutId>) -> Option<LayerName> {
        let mut name = LayerName {
            from: CutId::from_bytes([0; 16]),
            to: CutId::from_bytes([0; 16]),
            names: cuts.into_iter().collect(),
        };
        let (Some(from), Some(to), true) =
            (name.names.first(), name.names.last(), name.names.len() > 1)
        else {
            return None;
        };
        (name.from, name.to) = (*from, *to);
        name.limit();
        Some(name)
    }

    /// This layer and the next as one; the cut between them stays listed. `None` when `next` does not
    /// begin where this ends.
    pub fn joined(&self, next: &LayerName) -> Option<LayerName> {
        (self.to == next.from).then(|| {
            let mut name = self.clone();
            name.extend(next);
            name
        })
    }

    /// Takes in the layer that begins where this one ends.
    fn extend(&mut self, next: &LayerName) {
        self.names.extend(next.names.iter().skip(1));
        self.to = next.to;
        self.limit();
    }

    fn limit(&mut self) {
        let excess = self.names.len().saturating_sub(MAX_NAMES_PER_LAYER);
        self.names.drain(1..1 + excess);
    }

    /// Checks a name that came from elsewhere: both ends in their places, each id once, not too many.
    pub fn validate(&self) -> Result<(), Error> {
        let unique: BTreeSet<CutId> = self.names.iter().copied().collect();
        let good = (2..=MAX_NAMES_PER_LAYER).contains(&self.names.len())
            && unique.len() == self.names.len()
            && self.names.first() == Some(&self.from)
            && self.names.last() == Some(&self.to);
        match good {
            true => Ok(()),
            false => {
                Err(Error::Lineage { cut: self.from, problem: "opens a layer with a bad name" })
            }
        }
    }
}

/// A closed layer: a name, and what was written (or a bound on how much).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer<S> {
    /// Which epochs.
    pub name: LayerName,
    /// The grains written in them.
    pub grains: S,
}

/// Merges neighbouring layers wherever no one needs the cut between them (`held`, rule 5). Only where
/// exactly one layer ends at that cut and exactly one begins there: beside a fork both stay.
/// Returns the cuts that are no longer an end of any layer; they may be pruned from the lineage.
pub fn merge_neighbours<S: Union>(
    layers: &mut Vec<Layer<S>>,
    held: &BTreeSet<CutId>,
) -> Vec<CutId> {
    let mut ends: BTreeMap<CutId, (usize, usize)> = BTreeMap::new();
    for layer in layers.iter() {
        ends.entry(layer.name.from).or_default().0 += 1;
        ends.entry(layer.name.to).or_default().1 += 1;
    }
    let free = |cut: &CutId| ends.get(cut) == Some(&(1, 1)) && !held.contains(cut);
    let mut merged = Vec::new();
    // Each layer that begins at a free cut is taken in by the one that ends there.
    let (mut tails, mut rest): (BTreeMap<CutId, Layer<S>>, Vec<Layer<S>>) = Default::default();
    for layer in layers.drain(..) {
        match free(&layer.name.from) {
            true => drop(tails.insert(layer.name.from, layer)),
            false => rest.push(layer),
        }
    }
    for layer in &mut rest {
        while let Some(next) = tails.remove(&layer.name.to) {
            merged.push(layer.name.to);
            layer.name.extend(&next.name);
            layer.grains.union_with(&next.grains);
        }
    }
    // A ring of layers (impossible in an honest chain) has no first one; keep it as it is.
    rest.extend(tails.into_values());
    *layers = rest;
    merged
}
