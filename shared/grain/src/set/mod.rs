//! [`GrainSet`]: a sparse set of grains over the volumes of a relationship.
//!
//! Layers, deltas, missing grains and the work of copy sessions are all such sets. Costs follow what
//! is set: an empty set is nothing, a full page of 32768 grains is one map entry, and combining sets
//! runs over raw words. Equality is of content. A set does not know the geometry; who takes grains
//! from elsewhere checks them first (as [`GrainSetDecoder`] does).

mod bits;
mod page;
#[cfg(test)]
mod tests;
mod wire;
mod words;

use std::collections::BTreeMap;
use std::fmt;

use crate::{Geometry, Run, VolumeId};
use bits::Bits;
use page::Page;

pub use wire::{ChunkCursor, GrainSetDecoder};

/// A sparse set of grains. See the module's description for what operations cost.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GrainSet {
    /// Without entries for volumes that have nothing set, so that derived equality is of content.
    volumes: BTreeMap<VolumeId, Bits>,
    len: u64,
}

impl GrainSet {
    /// The empty set.
    pub fn new() -> GrainSet {
        GrainSet::default()
    }

    /// Every grain of every volume.
    pub fn full(geometry: &Geometry) -> GrainSet {
        let mut set = GrainSet::new();
        for (volume, _) in geometry.iter() {
            set.insert_run(Run { volume, first: 0, count: geometry.grains(volume) });
        }
        set
    }

    /// Adds one grain; true if it is new.
    pub fn insert(&mut self, volume: VolumeId, index: u64) -> bool {
        let new = self.volumes.entry(volume).or_default().insert(index);
        self.len += u64::from(new);
        new
    }

    /// Adds a run; how many of its grains are new. Costs a map entry for each page covered, so a run
    /// from elsewhere is checked against the geometry first.
    pub fn insert_run(&mut self, run: Run) -> u64 {
        if run.first == run.end() {
            return 0;
        }
        let new = self.volumes.entry(run.volume).or_default().insert_run(run.first..run.end());
        self.len += new;
        new
    }

    /// Takes a run out; how many of its grains were there.
    pub fn remove_run(&mut self, run: Run) -> u64 {
        let Some(bits) = self.volumes.get_mut(&run.volume) else { return 0 };
        let gone = bits.remove_run(run.first..run.end());
        if bits.len() == 0 {
            self.volumes.remove(&run.volume);
        }
        self.len -= gone;
        gone
    }

    /// Whether a grain is in the set.
    pub fn contains(&self, volume: VolumeId, index: u64) -> bool {
        self.volumes.get(&volume).is_some_and(|bits| bits.contains(index))
    }

    /// Whether any grain of the run is in the set.
    pub fn intersects(&self, run: Run) -> bool {
        self.volumes.get(&run.volume).is_some_and(|bits| bits.intersects(run.first..run.end()))
    }

    /// Whether all grains of the run are in the set (true for an empty run).
    pub fn contains_all(&self, run: Run) -> bool {
        run.count == 0
            || self.volumes.get(&run.volume).is_some_and(|b| b.contains_all(run.first..run.end()))
    }

    /// How many grains of the run are in the set.
    pub fn count_in(&self, run: Run) -> u64 {
        self.volumes.get(&run.volume).map_or(0, |bits| bits.count_in(run.first..run.end()))
    }

    /// Adds everything of `other`.
    pub fn union_with(&mut self, other: &GrainSet) {
        for (volume, theirs) in &other.volumes {
            self.len += self.volumes.entry(*volume).or_default().union_with(theirs);
        }
    }

    /// Takes out everything that is in `other`.
    pub fn subtract(&mut self, other: &GrainSet) {
        self.shrink(|volume, bits| other.volumes.get(&volume).map_or(0, |b| bits.subtract(b)));
    }

    /// Keeps only what is in `other`, too.
    pub fn intersect_with(&mut self, other: &GrainSet) {
        let nothing = Bits::default();
        self.shrink(|volume, bits| {
            bits.intersect_with(other.volumes.get(&volume).unwrap_or(&nothing))
        });
    }

    fn shrink(&mut self, mut f: impl FnMut(VolumeId, &mut Bits) -> u64) {
        let mut gone = 0;
        self.volumes.retain(|volume, bits| {
            gone += f(*volume, bits);
            bits.len() > 0
        });
        self.len -= gone;
    }

    /// Whether everything in this set is in `other`.
    pub fn is_subset(&self, other: &GrainSet) -> bool {
        self.len <= other.len
            && self
                .volumes
                .iter()
                .all(|(volume, bits)| other.volumes.get(volume).is_some_and(|b| bits.is_subset(b)))
    }

    /// How many grains are in the set; cached.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// How many grains of one volume are in the set; cached.
    pub fn len_of(&self, volume: VolumeId) -> u64 {
        self.volumes.get(&volume).map_or(0, Bits::len)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes that the grains cover; short last grains count as short, and grains beyond the
    /// geometry count nothing.
    pub fn bytes(&self, geometry: &Geometry) -> u64 {
        let mut bytes = 0;
        for (volume, bits) in &self.volumes {
            let grains = geometry.grains(*volume);
            let Some(last) = grains.checked_sub(1) else { continue };
            bytes += bits.count_in(0..last) * geometry.grain.bytes();
            if bits.contains(last) {
                let range = geometry.byte_range(*volume, last, 1);
                bytes += range.end - range.start;
            }
        }
        bytes
    }

    /// Whether every grain lies inside the geometry.
    pub fn fits(&self, geometry: &Geometry) -> bool {
        self.volumes.iter().all(|(v, bits)| bits.next_run(geometry.grains(*v), 1).is_none())
    }

    /// The maximal runs in address order.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut from = Some((VolumeId(0), 0));
        std::iter::from_fn(move || {
            let run = self.next_run(from?, u64::MAX)?;
            from = Some((run.volume, run.end()));
            Some(run)
        })
    }

    /// The first run at or after `from` (a volume and a grain in it), cut after `max_count` grains.
    /// `None` when there is none, or `max_count` is 0. Found through the page map, not by a scan.
    pub fn next_run(&self, from: (VolumeId, u64), max_count: u64) -> Option<Run> {
        if max_count == 0 {
            return None;
        }
        self.volumes.range(from.0..).find_map(|(volume, bits)| {
            let start = if *volume == from.0 { from.1 } else { 0 };
            let grains = bits.next_run(start, max_count)?;
            Some(Run { volume: *volume, first: grains.start, count: grains.end - grains.start })
        })
    }

    /// About how many bytes of memory the set takes.
    pub fn memory_bytes(&self) -> u64 {
        // A B-tree node is two thirds full on average.
        let entry = (size_of::<u64>() + size_of::<Page>()) as u64 * 3 / 2;
        let volume = (size_of::<VolumeId>() + size_of::<Bits>()) as u64 * 3 / 2;
        let pages = self.volumes.values().flat_map(|bits| bits.pages().values());
        let pages: u64 = pages
            .map(|page| entry + page.words().map_or(0, |_| size_of::<page::Part>() as u64))
            .sum();
        size_of::<GrainSet>() as u64 + self.volumes.len() as u64 * volume + pages
    }

    /// Empties the set.
    pub fn clear(&mut self) {
        *self = GrainSet::new();
    }
}

impl fmt::Debug for GrainSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        write!(f, "GrainSet({}", self.len)?;
        for (i, run) in self.runs().take(SHOWN + 1).enumerate() {
            let sign = if i == 0 { ": " } else { ", " };
            match (i == SHOWN, run.count) {
                (true, _) => write!(f, ", ...")?,
                (false, 1) => write!(f, "{sign}{}/{}", run.volume.0, run.first)?,
                (false, n) => write!(f, "{sign}{}/{}+{n}", run.volume.0, run.first)?,
            }
        }
        write!(f, ")")
    }
}

impl Extend<Run> for GrainSet {
    fn extend<I: IntoIterator<Item = Run>>(&mut self, runs: I) {
        for run in runs {
            self.insert_run(run);
        }
    }
}

impl FromIterator<Run> for GrainSet {
    fn from_iter<I: IntoIterator<Item = Run>>(runs: I) -> GrainSet {
        let mut set = GrainSet::new();
        set.extend(runs);
        set
    }
}
