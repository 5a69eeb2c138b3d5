//! Which layers are kept: neighbours are merged where nobody names the cut between them, and what is
//! no longer needed is kept as a history within a bound. The same at both sites; who names a cut, and
//! how far layers may go, differs by role and is passed in.

use std::collections::BTreeSet;

use grain::lineage::{Count, droppable, merge_neighbours, supplying_layers};
use grain::{CutId, GrainSet, Layer, LayerName};

use super::pool::MapPool;
use crate::map::MapKind;
use crate::state::{ClosedLayer, LayerRef, State, StateStore};
use crate::{Error, Result};

/// The closed layers of a site.
pub struct LayerKeeper<'a> {
    /// The files.
    pub pool: &'a MapPool,
    /// Their records.
    pub store: &'a StateStore,
    /// Bytes of layer files kept at most for what is no longer needed.
    pub history_bytes: u64,
}

impl LayerKeeper<'_> {
    /// The closed layers named, with their grains. A damaged one reads as everything.
    pub async fn load(&self, names: &[LayerName]) -> Result<Vec<Layer<GrainSet>>> {
        let closed = self.store.with(|s| s.layers.closed.clone());
        let mut out = Vec::new();
        for name in names {
            let found = closed.iter().find(|c| c.name == *name).ok_or_else(|| {
                Error::State("a layer that was promised is not here any more".to_owned())
            })?;
            let content = self.pool.read_map(found.at, MapKind::Layer).await?;
            out.push(Layer { name: name.clone(), grains: content.set });
        }
        Ok(out)
    }

    /// What the closed layers hold since a cut of this side's lineage; everything where no layer knows. A
    /// layer's place is that of its cuts in the lineage (rule 1): its last one may have been pruned there.
    pub async fn written_since(&self, cut: CutId) -> Result<GrainSet> {
        let (names, used) = self.store.with(|s| {
            let names: Vec<_> = s.layers.closed.iter().map(|c| c.name.clone()).collect();
            let known = s.lineage.contains(cut).then_some(&s.lineage);
            let used = known.and_then(|chain| supplying_layers(chain, cut, &names).ok());
            (names, used)
        });
        let Some(used) = used else { return Ok(GrainSet::full(&self.pool.geometry())) };
        let used: Vec<_> = used.into_iter().filter_map(|index| names.get(index).cloned()).collect();
        let mut written = GrainSet::new();
        for layer in self.load(&used).await? {
            written.union_with(&layer.grains);
        }
        Ok(written)
    }

    /// Merges what may be merged, drops the oldest beyond the bound, prunes the lineage. A drop is
    /// recorded before its file can be recycled.
    pub async fn tidy<H, F>(&self, held: H, floor: F) -> Result<()>
    where
        H: Fn(&State) -> BTreeSet<CutId>,
        F: Fn(&State) -> Option<CutId>,
    {
        while let Some((first, second)) = self.store.with(|s| next_merge(s, &held(s))) {
            self.merge(first, second).await?;
        }
        let most = (self.history_bytes / self.pool.layer_file_bytes()).max(1) as usize;
        let changed = self.store.change(|s| {
            let before = (s.layers.closed.len(), s.lineage.cuts().len());
            if let Some(floor) = floor(s) {
                drop_oldest(s, floor, most);
            }
            let mut keep = held(s);
            keep.extend(s.layers.closed.iter().flat_map(|c| [c.name.from, c.name.to]));
            s.lineage.prune(|cut| keep.contains(&cut));
            before != (s.layers.closed.len(), s.lineage.cuts().len())
        });
        if changed { self.store.save().await } else { Ok(()) }
    }

    /// Writes the union of two neighbours to a fresh file and records it in their place.
    async fn merge(&self, first: ClosedLayer, second: ClosedLayer) -> Result<()> {
        let mut union = self.pool.read_map(first.at, MapKind::Layer).await?.set;
        union.union_with(&self.pool.read_map(second.at, MapKind::Layer).await?.set);
        // Recorded as free until it is needed: after a crash these bits stand in the two layers, and
        // must not be taken for the open one's.
        let (at, map) = self.pool.create(MapKind::Layer).await?;
        self.pool.distrust(at.file);
        self.store.update(|s| s.layers.free.push(at)).await?;
        map.union_with(&union);
        map.sync().await?;
        let name = first.name.joined(&second.name).ok_or_else(|| {
            Error::State("layers that are not neighbours cannot be merged".to_owned())
        })?;
        let merged = ClosedLayer { at, name, grains: union.len() };
        self.store
            .update(|s| {
                replace_pair(&mut s.layers.closed, first.at, second.at, merged);
                s.layers.free.retain(|f| f.file != at.file);
                s.layers.free.extend([first.at, second.at]);
            })
            .await?;
        self.pool.trust(at.file);
        Ok(())
    }
}

/// The next two layers that may become one.
fn next_merge(s: &State, held: &BTreeSet<CutId>) -> Option<(ClosedLayer, ClosedLayer)> {
    let count = |c: &ClosedLayer| Layer { name: c.name.clone(), grains: Count(c.grains) };
    let mut layers: Vec<Layer<Count>> = s.layers.closed.iter().map(count).collect();
    let free = merge_neighbours(&mut layers, held);
    let cut = free.first()?;
    let first = s.layers.closed.iter().find(|c| c.name.to == *cut)?;
    let second = s.layers.closed.iter().find(|c| c.name.from == *cut)?;
    Some((first.clone(), second.clone()))
}

fn replace_pair(
    closed: &mut Vec<ClosedLayer>,
    first: LayerRef,
    second: LayerRef,
    merged: ClosedLayer,
) {
    let at = closed.iter().position(|c| c.at == first).unwrap_or(0);
    closed.retain(|c| c.at != first && c.at != second);
    closed.insert(at.min(closed.len()), merged);
}

fn drop_oldest(s: &mut State, floor: CutId, most: usize) {
    while s.layers.closed.len() > most {
        let old = |c: &ClosedLayer| droppable(&c.name, &s.lineage, floor);
        let Some(at) = s.layers.closed.iter().position(old) else { return };
        let gone = s.layers.closed.remove(at);
        s.layers.free.push(gone.at);
    }
}
