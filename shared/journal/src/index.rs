//! The index of committed records that are not in the base yet: for each grain the place of its
//! newest version, and nothing else.
//!
//! An ordered map from the first grain to a *piece*: a stretch of one record that nothing newer
//! covers. Laying a record over others adds at most two pieces (itself, and the second half of one
//! that it splits), so the map has at most twice as many pieces as there are records; neighbouring
//! zero pieces of one commit become one. A piece takes about 90 bytes with its share of the map.

use std::collections::BTreeMap;

use grain::{GrainSet, Run, VolumeId};

use crate::record::{Kind, RecordHeader};

/// Where a record stands. Segments are numbered in the order of the log, so places sort that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub segment: u64,
    pub offset: u64,
}

/// One record as the index and the sessions keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordRef {
    pub sequence: u64,
    pub run: Run,
    pub place: Place,
    pub zero: bool,
}

impl RecordRef {
    pub(crate) fn new(header: &RecordHeader, segment: u64) -> Self {
        RecordRef {
            sequence: header.sequence,
            run: header.run,
            place: Place { segment, offset: header.offset },
            zero: header.kind == Kind::CopyZero,
        }
    }
}

/// A stretch of a record that is the newest version of its grains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub count: u64,
    /// How many grains of the record come before.
    pub skip: u64,
    /// The record.
    pub place: Place,
    pub zero: bool,
    /// The number of the commit that made it count.
    pub commit: u64,
}

impl Stretch {
    /// The part of this stretch, which begins at grain `first`, inside `from..to`.
    fn clipped(self, first: u64, from: u64, to: u64) -> (u64, Stretch) {
        let start = first.max(from);
        let end = (first + self.count).min(to);
        (start, Stretch { count: end - start, skip: self.skip + (start - first), ..self })
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Index {
    pieces: BTreeMap<(VolumeId, u64), Stretch>,
    /// Grains of each commit that are in the map still.
    waiting: BTreeMap<u64, u64>,
    grains: u64,
}

impl Index {
    /// Lays a record over everything older.
    pub(crate) fn insert(&mut self, record: &RecordRef, commit: u64) {
        let run = record.run;
        self.remove(run, |_| true);
        let stretch =
            Stretch { count: run.count, skip: 0, place: record.place, zero: record.zero, commit };
        self.put(run.volume, run.first, stretch);
        if record.zero {
            self.join_zeros(run.volume, run.first);
        }
    }

    fn put(&mut self, volume: VolumeId, first: u64, stretch: Stretch) {
        *self.waiting.entry(stretch.commit).or_default() += stretch.count;
        self.grains += stretch.count;
        self.pieces.insert((volume, first), stretch);
    }

    fn take(&mut self, volume: VolumeId, first: u64) -> Option<Stretch> {
        let stretch = self.pieces.remove(&(volume, first))?;
        self.grains -= stretch.count;
        if let Some(waiting) = self.waiting.get_mut(&stretch.commit) {
            *waiting -= stretch.count;
            if *waiting == 0 {
                self.waiting.remove(&stretch.commit);
            }
        }
        Some(stretch)
    }

    /// Makes one piece of the zero piece at `first` and the zero pieces of the same commit that touch
    /// it. Zeros are not read back, so it does not matter which record a grain's zeros came from, as
    /// long as it lies in the newest of their segments.
    fn join_zeros(&mut self, volume: VolumeId, first: u64) {
        let Some(mut own) = self.take(volume, first) else { return };
        let mut first = first;
        let joins = |a: &Stretch, b: &Stretch| a.zero && b.zero && a.commit == b.commit;
        let before = self.pieces.range(..(volume, first)).next_back().map(|(k, s)| (*k, *s));
        if let Some(((v, at), s)) = before
            && v == volume
            && at + s.count == first
            && joins(&s, &own)
        {
            self.take(volume, at);
            first = at;
            own.count += s.count;
        }
        let after = first + own.count;
        if let Some(s) = self.pieces.get(&(volume, after)).copied().filter(|s| joins(s, &own)) {
            self.take(volume, after);
            own.count += s.count;
        }
        self.put(volume, first, own);
    }

    /// Takes the grains of `run` out where `which` holds for the piece they are in.
    pub(crate) fn remove(&mut self, run: Run, which: impl Fn(&Stretch) -> bool) {
        let (from, to) = (run.first, run.end());
        let hit: Vec<(u64, Stretch)> =
            self.overlapping(run).filter(|(_, stretch)| which(stretch)).collect();
        for (first, stretch) in hit {
            self.take(run.volume, first);
            let end = first + stretch.count;
            if first < from {
                let (at, part) = stretch.clipped(first, first, from);
                self.put(run.volume, at, part);
            }
            if end > to {
                let (at, part) = stretch.clipped(first, to, end);
                self.put(run.volume, at, part);
            }
        }
    }

    /// Takes every grain of `set` out.
    pub(crate) fn remove_set(&mut self, set: &GrainSet) {
        for run in set.runs() {
            self.remove(run, |_| true);
        }
    }

    /// The pieces that share grains with `run`, whole, in address order.
    fn overlapping(&self, run: Run) -> impl Iterator<Item = (u64, Stretch)> + '_ {
        let before = self
            .pieces
            .range((run.volume, 0)..(run.volume, run.first))
            .next_back()
            .filter(move |((_, first), stretch)| first + stretch.count > run.first);
        let inside = self.pieces.range((run.volume, run.first)..(run.volume, run.end()));
        before.into_iter().chain(inside).map(|((_, first), stretch)| (*first, *stretch))
    }

    /// The pieces of `run`, clipped to it, in address order.
    pub(crate) fn lookup(&self, run: Run) -> Vec<(Run, Stretch)> {
        self.overlapping(run)
            .map(|(first, stretch)| {
                let (first, stretch) = stretch.clipped(first, run.first, run.end());
                (Run { volume: run.volume, first, count: stretch.count }, stretch)
            })
            .collect()
    }

    /// Pieces from `from` on, whole, in address order.
    pub(crate) fn from(&self, from: (VolumeId, u64)) -> impl Iterator<Item = (Run, Stretch)> + '_ {
        self.pieces.range(from..).map(|((volume, first), stretch)| {
            (Run { volume: *volume, first: *first, count: stretch.count }, *stretch)
        })
    }

    /// Whether grains of this commit wait.
    pub(crate) fn waits(&self, commit: u64) -> bool {
        self.waiting.contains_key(&commit)
    }

    pub(crate) fn grains(&self) -> u64 {
        self.grains
    }

    pub(crate) fn pieces(&self) -> u64 {
        self.pieces.len() as u64
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests;
