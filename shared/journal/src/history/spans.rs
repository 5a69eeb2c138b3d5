//! A set of bytes of the volumes, as spans that neither touch nor overlap.

use std::collections::BTreeMap;

use grain::{Span, VolumeId};

/// See the top of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(BTreeMap<(VolumeId, u64), u64>);

impl Spans {
    /// How many spans it is made of.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, span: Span) {
        let (volume, mut start, mut end) = (span.volume, span.start, span.end());
        while let Some((&(v, from), &to)) = self.0.range(..=(volume, end)).next_back() {
            if v != volume || to < start {
                break;
            }
            (start, end) = (start.min(from), end.max(to));
            self.0.remove(&(v, from));
        }
        self.0.insert((volume, start), end);
    }

    /// The parts of `span` that are not in the set, in address order.
    pub(super) fn missing(&self, span: Span) -> Vec<Span> {
        let volume = span.volume;
        let mut missing = Vec::new();
        let mut at = span.start;
        let before = self.0.range(..(volume, span.start)).next_back();
        if let Some((&(v, _), &to)) = before
            && v == volume
        {
            at = at.max(to);
        }
        for (&(_, from), &to) in self.0.range((volume, span.start)..(volume, span.end())) {
            if from > at {
                missing.push(Span { volume, start: at, bytes: from - at });
            }
            at = at.max(to);
        }
        if at < span.end() {
            missing.push(Span { volume, start: at, bytes: span.end() - at });
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_joined_and_gaps_found() {
        let span = |start, bytes| Span { volume: VolumeId(1), start, bytes };
        let mut set = Spans::default();
        set.insert(Span { volume: VolumeId(0), start: 0, bytes: 1 << 40 });
        set.insert(span(10, 10));
        set.insert(span(30, 10));
        assert_eq!(set.missing(span(0, 50)), vec![span(0, 10), span(20, 10), span(40, 10)]);
        assert_eq!(set.missing(span(12, 20)), vec![span(20, 10)]);
        assert_eq!(set.missing(span(12, 8)), vec![]);
        set.insert(span(20, 5));
        assert_eq!(set.len(), 3);
        set.insert(span(5, 40));
        assert_eq!(set.len(), 2);
        assert_eq!(set.missing(span(0, 50)), vec![span(0, 5), span(45, 5)]);
    }
}
