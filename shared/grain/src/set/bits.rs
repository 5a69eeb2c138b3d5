//! The set grains of one volume: sparse pages in order.
//!
//! Grain indices may be any `u64`; costs follow what is set, not how large the volume is. The one
//! exception is setting a run, which costs a map entry for each page that the run covers: runs that
//! come from elsewhere are clipped to the geometry before they get here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::page::{PAGE_GRAINS, Page};

/// Where a grain stands: its page, and its bit there.
pub(super) fn place(index: u64) -> (u64, usize) {
    (index / PAGE_GRAINS, (index % PAGE_GRAINS) as usize)
}

/// The pages that a run of grains touches, each with the range of its bits.
fn pieces(grains: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = grains.start;
    std::iter::from_fn(move || {
        if at >= grains.end {
            return None;
        }
        let (page, bit) = place(at);
        let left = (grains.end - at).min(PAGE_GRAINS - bit as u64);
        at += left;
        Some((page, bit..bit + left as usize))
    })
}

/// The part of page `number` that lies in `grains`.
fn clip(number: u64, grains: &Range<u64>) -> Range<usize> {
    let base = number * PAGE_GRAINS;
    let from = grains.start.max(base) - base;
    let to = (grains.end - base).min(PAGE_GRAINS);
    from as usize..to as usize
}

/// The set grains of one volume.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Bits {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

impl Bits {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn pages(&self) -> &BTreeMap<u64, Page> {
        &self.pages
    }

    /// Puts a whole page in place; there was none before.
    pub(super) fn put_page(&mut self, number: u64, page: Page) {
        self.len += page.count();
        if page.count() > 0 {
            self.pages.insert(number, page);
        }
    }

    pub(super) fn insert(&mut self, index: u64) -> bool {
        let (number, bit) = place(index);
        let new = self.pages.entry(number).or_insert_with(Page::empty).insert(bit);
        self.len += u64::from(new);
        new
    }

    pub(super) fn insert_run(&mut self, grains: Range<u64>) -> u64 {
        let mut new = 0;
        for (number, range) in pieces(grains) {
            let whole = range.len() as u64 == PAGE_GRAINS;
            new += match self.pages.entry(number) {
                Entry::Vacant(slot) if whole => {
                    slot.insert(Page::Full);
                    PAGE_GRAINS
                }
                Entry::Vacant(slot) => slot.insert(Page::empty()).insert_range(range),
                Entry::Occupied(slot) => slot.into_mut().insert_range(range),
            };
        }
        self.len += new;
        new
    }

    pub(super) fn remove_run(&mut self, grains: Range<u64>) -> u64 {
        if grains.is_empty() {
            return 0;
        }
        let mut gone = 0;
        let mut emptied = Vec::new();
        let span = place(grains.start).0..=place(grains.end - 1).0;
        for (number, page) in self.pages.range_mut(span) {
            let range = clip(*number, &grains);
            if range.len() as u64 == PAGE_GRAINS {
                gone += page.count();
                emptied.push(*number);
                continue;
            }
            gone += page.remove_range(range);
            if page.count() == 0 {
                emptied.push(*number);
            }
        }
        for number in emptied {
            self.pages.remove(&number);
        }
        self.len -= gone;
        gone
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        let (number, bit) = place(index);
        self.pages.get(&number).is_some_and(|page| page.contains(bit))
    }

    /// The pages that touch `grains`, each with the range of its bits that lies inside.
    fn touched(&self, grains: Range<u64>) -> impl Iterator<Item = (&Page, Range<usize>)> {
        let last = grains.end.saturating_sub(1).max(grains.start);
        let found = self.pages.range(place(grains.start).0..=place(last).0);
        found.map(move |(number, page)| (page, clip(*number, &grains)))
    }

    pub(super) fn intersects(&self, grains: Range<u64>) -> bool {
        !grains.is_empty() && self.touched(grains).any(|(page, range)| page.any_in(range))
    }

    pub(super) fn contains_all(&self, grains: Range<u64>) -> bool {
        pieces(grains).all(|(n, range)| self.pages.get(&n).is_some_and(|page| page.all_in(range)))
    }

    pub(super) fn count_in(&self, grains: Range<u64>) -> u64 {
        if grains.is_empty() {
            return 0;
        }
        self.touched(grains).map(|(page, range)| page.count_in(range)).sum()
    }

    /// The first run at or after `from`, cut after `max_count` grains: its first grain and its end.
    pub(super) fn next_run(&self, from: u64, max_count: u64) -> Option<Range<u64>> {
        let (start, bit) = place(from);
        let mut pages = self.pages.range(start..).map(|(number, page)| (*number, page));
        let (mut number, mut page, first) = pages.find_map(|(number, page)| {
            let from = if number == start { bit } else { 0 };
            page.next_one(from).map(|one| (number, page, one))
        })?;
        let begin = number * PAGE_GRAINS + first as u64;
        let limit = begin.saturating_add(max_count);
        let mut at = first;
        loop {
            let stop = page.next_zero(at).map_or(PAGE_GRAINS, |zero| zero as u64);
            let end = (number * PAGE_GRAINS).saturating_add(stop);
            if end >= limit || stop < PAGE_GRAINS {
                return Some(begin..end.min(limit));
            }
            match pages.next() {
                Some((next, p)) if next == number + 1 && p.contains(0) => {
                    (number, page) = (next, p)
                }
                _ => return Some(begin..end),
            }
            at = 0;
        }
    }

    pub(super) fn union_with(&mut self, other: &Bits) -> u64 {
        let mut new = 0;
        for (number, theirs) in &other.pages {
            new += match self.pages.entry(*number) {
                Entry::Vacant(slot) => slot.insert(theirs.clone()).count(),
                Entry::Occupied(slot) => slot.into_mut().union_with(theirs),
            };
        }
        self.len += new;
        new
    }

    pub(super) fn subtract(&mut self, other: &Bits) -> u64 {
        self.shrink(|number, page| other.pages.get(&number).map_or(0, |p| page.subtract(p)))
    }

    pub(super) fn intersect_with(&mut self, other: &Bits) -> u64 {
        self.shrink(|number, page| match other.pages.get(&number) {
            Some(theirs) => page.intersect_with(theirs),
            None => page.remove_range(0..PAGE_GRAINS as usize),
        })
    }

    /// Lets `f` take bits from each page (it says how many) and drops the pages that it emptied.
    fn shrink(&mut self, mut f: impl FnMut(u64, &mut Page) -> u64) -> u64 {
        let mut gone = 0;
        self.pages.retain(|number, page| {
            gone += f(*number, page);
            page.count() > 0
        });
        self.len -= gone;
        gone
    }

    pub(super) fn is_subset(&self, other: &Bits) -> bool {
        self.len <= other.len
            && self
                .pages
                .iter()
                .all(|(n, page)| other.pages.get(n).is_some_and(|p| page.is_subset(p)))
    }
}
