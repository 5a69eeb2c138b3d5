//! A set of bytes as disjoint ranges.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of `u64` positions kept as disjoint, non-touching ranges (start to end).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    /// How many positions are in the set.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Everything that overlaps or touches is merged into one.
        while let Some((&from, &to)) = self.ranges.range(..=end).next_back() {
            if to < start {
                break;
            }
            self.ranges.remove(&from);
            self.total -= to - from;
            start = start.min(from);
            end = end.max(to);
        }
        self.ranges.insert(start, end);
        self.total += end - start;
    }

    /// Takes a range out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&from, &to)) = self.ranges.range(..range.end).next_back() {
            if to <= range.start {
                break;
            }
            self.ranges.remove(&from);
            self.total -= to - from;
            for rest in [from..range.start, range.end..to] {
                if !rest.is_empty() {
                    self.ranges.insert(rest.start, rest.end);
                    self.total += rest.end - rest.start;
                }
            }
        }
    }

    /// The parts of `range` that are in the set, in order.
    pub fn within(&self, range: Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        let before = self.ranges.range(..=range.start).next_back();
        let first = before.map_or(range.start, |(&from, _)| from);
        self.ranges
            .range(first..range.end)
            .map(|(&from, &to)| from.max(range.start)..to.min(range.end))
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut at = range.start;
        let mut gaps = Vec::new();
        for part in self.within(range.clone()) {
            if at < part.start {
                gaps.push(at..part.start);
            }
            at = part.end;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_array(
            steps in proptest::collection::vec((any::<bool>(), 0..40u64, 0..20u64), 0..30),
            (ask, len) in (0..40u64, 0..30u64),
        ) {
            let mut set = RangeSet::default();
            let mut plain = [false; 80];
            for (add, start, len) in steps {
                let range = start..start + len;
                plain[start as usize..(start + len) as usize].fill(add);
                if add { set.insert(range) } else { set.remove(range) }
            }
            prop_assert_eq!(set.total(), plain.iter().filter(|p| **p).count() as u64);
            let ask = ask..ask + len;
            for (parts, wanted) in [(set.within(ask.clone()), true), (set.missing(ask.clone()), false)] {
                let found: Vec<u64> = parts.into_iter().flatten().collect();
                let expected: Vec<u64> =
                    ask.clone().filter(|i| plain[*i as usize] == wanted).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
