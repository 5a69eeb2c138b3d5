//! The delta between two sites (rule 2), with what a broken session left behind (rule 9).
//!
//! One function for all uses. Over [`Count`](super::Count) it bounds the size of the delta from names
//! alone, which is what a verdict shows; over grain sets it is the delta. So the two cannot disagree
//! on whether it is known.

use super::{EpochGap, Layer, Lineage, Union, newest_common_cut, supplying_layers};
use crate::{CutId, SessionId};

/// What one site brings to the delta.
#[derive(Clone, Debug)]
pub struct Holding<'a, S> {
    /// Its chain.
    pub lineage: &'a Lineage,
    /// The closed layers that it can supply.
    pub layers: &'a [Layer<S>],
    /// What was written since its head. Belongs to its head alone (rule 1).
    pub open: &'a S,
    /// What a direct catch-up that was not committed may have changed (rule 10); else empty.
    pub direct: &'a S,
    /// Grains that it should hold and does not: damaged, not loaded yet.
    pub missing: &'a S,
    /// The session that broke before its commit, if there is one.
    pub partial: Option<PartialSession<'a, S>>,
    /// Of a fuzzy seed: the cut that a catch-up must pass before it is consistent (rule 7).
    pub fuzzy_end: Option<CutId>,
}

/// A copy session that broke before its commit.
#[derive(Clone, Copy, Debug)]
pub struct PartialSession<'a, S> {
    /// Its id, which the commit that adopts it names.
    pub session: SessionId,
    /// The cut that it copied.
    pub cut: CutId,
    /// What had not arrived.
    pub remaining: &'a S,
}

/// What has to be pulled, and what the commit then records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta<S> {
    /// The newest common cut.
    pub since: CutId,
    /// The grains to pull.
    pub pull: S,
    /// The layer that the commit writes (rule 3): all that may differ, also what a broken session had
    /// brought already.
    pub record: S,
    /// The broken session whose grains count: the commit adopts it.
    pub carries: Option<SessionId>,
}

/// Why there is no delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoDelta {
    /// The sites share no cut.
    NoCommonCut,
    /// A fuzzy seed ends at a cut that the other site does not know (rule 7).
    FuzzyEndUnknown(CutId),
    /// Neither site can supply this epoch.
    Unknown(EpochGap),
}

/// The grains that `replica` must pull from `source` to become what `source` is at its head (where the
/// source's open layer is taken in as well, so that the answer holds for now).
pub fn delta<S: Union>(source: &Holding<S>, replica: &Holding<S>) -> Result<Delta<S>, NoDelta> {
    let since = newest_common_cut(source.lineage, replica.lineage).ok_or(NoDelta::NoCommonCut)?;
    for (one, other) in [(source, replica), (replica, source)] {
        if let Some(end) = one.fuzzy_end.filter(|end| !other.lineage.contains(*end)) {
            return Err(NoDelta::FuzzyEndUnknown(end));
        }
    }
    let mut whole = S::default();
    let chains = [source.lineage, replica.lineage];
    let known = chains.map(|chain| closed_since(&mut whole, chain, since, source, replica));
    // Of two gaps the same one is named, whoever is first.
    if let Some(gap) = known.into_iter().filter_map(Result::err).min() {
        return Err(NoDelta::Unknown(gap));
    }
    for side in [source, replica] {
        whole.union_with(side.open);
        whole.union_with(side.direct);
    }
    let carried = replica.partial.as_ref().and_then(|partial| {
        let later = carry_over(partial, source, replica)?;
        Some((partial.session, later))
    });
    let (carries, mut pull) = match carried {
        Some((session, pull)) => (Some(session), pull),
        None => (None, whole.clone()),
    };
    pull.union_with(source.missing);
    pull.union_with(replica.missing);
    let mut record = whole;
    record.union_with(&pull);
    Ok(Delta { since, pull, record, carries })
}

/// Rule 9: what was left of a broken session of a cut, and what the source wrote since that cut; `None`
/// when the cut is not the source's or not all of its layers since are known.
fn carry_over<S: Union>(
    partial: &PartialSession<S>,
    source: &Holding<S>,
    replica: &Holding<S>,
) -> Option<S> {
    if !source.lineage.contains(partial.cut) {
        return None;
    }
    let mut pull = partial.remaining.clone();
    closed_since(&mut pull, source.lineage, partial.cut, source, replica).ok()?;
    pull.union_with(source.open);
    pull.union_with(source.direct);
    Some(pull)
}

/// Adds every layer of either side that supplies an epoch of `chain` since a cut.
fn closed_since<S: Union>(
    into: &mut S,
    chain: &Lineage,
    since: CutId,
    source: &Holding<S>,
    replica: &Holding<S>,
) -> Result<(), EpochGap> {
    let layers: Vec<&Layer<S>> = source.layers.iter().chain(replica.layers).collect();
    for index in supplying_layers(chain, since, layers.iter().map(|layer| &layer.name))? {
        if let Some(layer) = layers.get(index) {
            into.union_with(&layer.grains);
        }
    }
    Ok(())
}

/// Which closed layers [`delta`] takes in, by their places in each side's list: these, and no others,
/// have to be fetched from the side that has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayersUsed {
    /// Of the source's layers.
    pub source: Vec<usize>,
    /// Of the replica's layers.
    pub replica: Vec<usize>,
}

/// See [`LayersUsed`].
pub fn layers_used<S: Union>(
    source: &Holding<S>,
    replica: &Holding<S>,
) -> Result<LayersUsed, NoDelta> {
    let since = newest_common_cut(source.lineage, replica.lineage).ok_or(NoDelta::NoCommonCut)?;
    let names = || source.layers.iter().chain(replica.layers).map(|layer| &layer.name);
    let mut used = LayersUsed::default();
    let mut all = std::collections::BTreeSet::new();
    for chain in [source.lineage, replica.lineage] {
        all.extend(supplying_layers(chain, since, names()).map_err(NoDelta::Unknown)?);
    }
    for index in all {
        match index.checked_sub(source.layers.len()) {
            None => used.source.push(index),
            Some(index) => used.replica.push(index),
        }
    }
    Ok(used)
}
