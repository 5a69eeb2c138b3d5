//! The index of records that count and are not in the base yet: for each byte the place of its newest
//! version, and nothing else. Bytes, for what an application writes does not end where grains do.
//!
//! An ordered map from the first byte to a *piece*: a stretch of one record that nothing newer
//! covers. Laying a record over others adds at most two pieces (itself, and the second half of one
//! that it splits), so the map has at most twice as many pieces as there are records; neighbouring
//! zero pieces of one commit become one. A piece takes about 90 bytes with its share of the map.

use std::collections::BTreeMap;

use grain::{Run, Span, VolumeId};

use crate::record::RecordHeader;

/// Where a record stands. Segments are numbered in the order of the log, so places sort that way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub segment: u64,
    pub offset: u64,
}

/// One copy record as the sessions keep it.
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
            zero: header.is_zero(),
        }
    }
}

/// A stretch of a record that is the newest version of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub bytes: u64,
    /// How many bytes of the record come before.
    pub skip: u64,
    /// The record.
    pub place: Place,
    pub zero: bool,
    /// The number of the commit that made it count, or that its stream follows.
    pub commit: u64,
}

impl Stretch {
    /// All of a record.
    pub(crate) fn whole(span: Span, place: Place, zero: bool, commit: u64) -> Stretch {
        Stretch { bytes: span.bytes, skip: 0, place, zero, commit }
    }

    /// The part of this stretch, which begins at byte `start`, inside `from..to`.
    fn clipped(self, start: u64, from: u64, to: u64) -> (u64, Stretch) {
        let first = start.max(from);
        let end = (start + self.bytes).min(to);
        (first, Stretch { bytes: end - first, skip: self.skip + (first - start), ..self })
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Index {
    pieces: BTreeMap<(VolumeId, u64), Stretch>,
    /// Bytes of each commit that are in the map still.
    waiting: BTreeMap<u64, u64>,
    bytes: u64,
}

impl Index {
    /// Lays a record, which begins at byte `start`, over everything older.
    pub(crate) fn insert(&mut self, volume: VolumeId, start: u64, stretch: Stretch) {
        self.remove(Span { volume, start, bytes: stretch.bytes }, |_| true);
        self.put(volume, start, stretch);
        if stretch.zero {
            self.join_zeros(volume, start);
        }
    }

    fn put(&mut self, volume: VolumeId, start: u64, stretch: Stretch) {
        *self.waiting.entry(stretch.commit).or_default() += stretch.bytes;
        self.bytes += stretch.bytes;
        self.pieces.insert((volume, start), stretch);
    }

    fn take(&mut self, volume: VolumeId, start: u64) -> Option<Stretch> {
        let stretch = self.pieces.remove(&(volume, start))?;
        self.bytes -= stretch.bytes;
        if let Some(waiting) = self.waiting.get_mut(&stretch.commit) {
            *waiting -= stretch.bytes;
            if *waiting == 0 {
                self.waiting.remove(&stretch.commit);
            }
        }
        Some(stretch)
    }

    /// Makes one piece of the zero piece at `start` and the zero pieces of the same commit that touch
    /// it. Zeros are not read back, so it does not matter which record a byte's zeros came from, as
    /// long as it lies in the newest of their segments.
    fn join_zeros(&mut self, volume: VolumeId, start: u64) {
        let Some(mut own) = self.take(volume, start) else { return };
        let mut start = start;
        let joins = |a: &Stretch, b: &Stretch| a.zero && b.zero && a.commit == b.commit;
        let before = self.pieces.range(..(volume, start)).next_back().map(|(k, s)| (*k, *s));
        if let Some(((v, at), s)) = before
            && v == volume
            && at + s.bytes == start
            && joins(&s, &own)
        {
            self.take(volume, at);
            start = at;
            own.bytes += s.bytes;
        }
        let after = start + own.bytes;
        if let Some(s) = self.pieces.get(&(volume, after)).copied().filter(|s| joins(s, &own)) {
            self.take(volume, after);
            own.bytes += s.bytes;
        }
        self.put(volume, start, own);
    }

    /// Takes the bytes of `span` out where `which` holds for the piece they are in.
    pub(crate) fn remove(&mut self, span: Span, which: impl Fn(&Stretch) -> bool) {
        let (from, to) = (span.start, span.end());
        let hit: Vec<(u64, Stretch)> =
            self.overlapping(span).filter(|(_, stretch)| which(stretch)).collect();
        for (start, stretch) in hit {
            self.take(span.volume, start);
            let end = start + stretch.bytes;
            if start < from {
                let (at, part) = stretch.clipped(start, start, from);
                self.put(span.volume, at, part);
            }
            if end > to {
                let (at, part) = stretch.clipped(start, to, end);
                self.put(span.volume, at, part);
            }
        }
    }

    /// The pieces that share bytes with `span`, whole, in address order.
    fn overlapping(&self, span: Span) -> impl Iterator<Item = (u64, Stretch)> + '_ {
        let before = self
            .pieces
            .range((span.volume, 0)..(span.volume, span.start))
            .next_back()
            .filter(move |((_, start), stretch)| start + stretch.bytes > span.start);
        let inside = self.pieces.range((span.volume, span.start)..(span.volume, span.end()));
        before.into_iter().chain(inside).map(|((_, start), stretch)| (*start, *stretch))
    }

    /// The pieces of `span`, clipped to it, in address order.
    pub(crate) fn lookup(&self, span: Span) -> Vec<(Span, Stretch)> {
        self.overlapping(span)
            .map(|(start, stretch)| {
                let (start, stretch) = stretch.clipped(start, span.start, span.end());
                (Span { volume: span.volume, start, bytes: stretch.bytes }, stretch)
            })
            .collect()
    }

    /// Pieces from `from` on, whole, in address order.
    pub(crate) fn from(&self, from: (VolumeId, u64)) -> impl Iterator<Item = (Span, Stretch)> + '_ {
        self.pieces.range(from..).map(|((volume, start), stretch)| {
            (Span { volume: *volume, start: *start, bytes: stretch.bytes }, *stretch)
        })
    }

    /// Whether bytes of this commit wait.
    pub(crate) fn waits(&self, commit: u64) -> bool {
        self.waiting.contains_key(&commit)
    }

    /// How many bytes wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
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
