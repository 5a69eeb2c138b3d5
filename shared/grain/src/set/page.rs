//! One page of a grain set: the bits of 32768 neighbouring grains.
//!
//! A page is either full (and then costs nothing beyond its entry in the map) or an array of words
//! with its cached count. The form is canonical: a page whose bits are all set is always [`Page::Full`],
//! and an empty page is never kept (its owner drops it), so that comparing the forms compares the
//! sets. Single bits and ranges go through `bitvec`; whole pages are combined word by word, which is
//! more than twenty times faster than combining bit slices.

use std::ops::Range;

use bitvec::prelude::{BitArray, Lsb0};

/// Grains a page covers.
pub(super) const PAGE_GRAINS: u64 = 32_768;
/// 64-bit words in a page.
pub(super) const PAGE_WORDS: usize = 512;
/// [`PAGE_GRAINS`] as a count of bits in memory.
const PAGE_BITS: usize = PAGE_GRAINS as usize;

/// The bits of a page that is neither empty nor full.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Part {
    count: u32,
    bits: BitArray<[u64; PAGE_WORDS], Lsb0>,
}

/// One page.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Page {
    /// Every grain is set.
    Full,
    /// Some are.
    Part(Box<Part>),
}

impl Page {
    /// A page with nothing set; the owner drops it unless something is set right away.
    pub(super) fn empty() -> Page {
        Page::Part(Box::new(Part { count: 0, bits: BitArray::ZERO }))
    }

    /// The page whose words are `words`, bit 0 of word 0 being the first grain.
    pub(super) fn from_words(words: [u64; PAGE_WORDS]) -> Page {
        let mut part = Part { count: 0, bits: BitArray::new(words) };
        part.recount();
        let mut page = Page::Part(Box::new(part));
        page.settle();
        page
    }

    /// How many grains are set.
    pub(super) fn count(&self) -> u64 {
        match self {
            Page::Full => PAGE_GRAINS,
            Page::Part(part) => u64::from(part.count),
        }
    }

    /// The words, or `None` for a full page.
    pub(super) fn words(&self) -> Option<&[u64; PAGE_WORDS]> {
        match self {
            Page::Full => None,
            Page::Part(part) => Some(&part.bits.data),
        }
    }

    /// Sets one bit; true if it was not set.
    pub(super) fn insert(&mut self, bit: usize) -> bool {
        let Page::Part(part) = self else { return false };
        if part.bits.replace(bit, true) {
            return false;
        }
        part.count += 1;
        self.settle();
        true
    }

    /// Sets a range; how many were not set.
    pub(super) fn insert_range(&mut self, range: Range<usize>) -> u64 {
        let Page::Part(part) = self else { return 0 };
        if range.len() == PAGE_BITS {
            let new = PAGE_GRAINS - u64::from(part.count);
            *self = Page::Full;
            return new;
        }
        let slice = &mut part.bits[range];
        let new = slice.count_zeros() as u32;
        slice.fill(true);
        part.count += new;
        self.settle();
        u64::from(new)
    }

    /// Clears a range; how many were set.
    pub(super) fn remove_range(&mut self, range: Range<usize>) -> u64 {
        let part = self.open();
        let slice = &mut part.bits[range];
        let gone = slice.count_ones() as u32;
        slice.fill(false);
        part.count -= gone;
        u64::from(gone)
    }

    /// Whether one bit is set.
    pub(super) fn contains(&self, bit: usize) -> bool {
        match self {
            Page::Full => true,
            Page::Part(part) => part.bits[bit],
        }
    }

    /// Whether any bit of a range is set.
    pub(super) fn any_in(&self, range: Range<usize>) -> bool {
        match self {
            Page::Full => !range.is_empty(),
            Page::Part(part) => part.bits[range].any(),
        }
    }

    /// Whether all bits of a range are set.
    pub(super) fn all_in(&self, range: Range<usize>) -> bool {
        match self {
            Page::Full => true,
            Page::Part(part) => part.bits[range].all(),
        }
    }

    /// How many bits of a range are set.
    pub(super) fn count_in(&self, range: Range<usize>) -> u64 {
        match self {
            Page::Full => range.len() as u64,
            Page::Part(part) => part.bits[range].count_ones() as u64,
        }
    }

    /// The first set bit at or after `from`.
    pub(super) fn next_one(&self, from: usize) -> Option<usize> {
        match self {
            Page::Full => (from < PAGE_BITS).then_some(from),
            Page::Part(part) => part.scan(from, 0),
        }
    }

    /// The first clear bit at or after `from`.
    pub(super) fn next_zero(&self, from: usize) -> Option<usize> {
        match self {
            Page::Full => None,
            Page::Part(part) => part.scan(from, u64::MAX),
        }
    }

    /// Adds what `other` has; how many were new.
    pub(super) fn union_with(&mut self, other: &Page) -> u64 {
        let before = self.count();
        match (&mut *self, other) {
            (Page::Full, _) => {}
            (_, Page::Full) => *self = Page::Full,
            (Page::Part(a), Page::Part(b)) => {
                a.combine(b, |a, b| a | b);
                self.settle();
            }
        }
        self.count() - before
    }

    /// Takes away what `other` has; how many went.
    pub(super) fn subtract(&mut self, other: &Page) -> u64 {
        let before = self.count();
        match other {
            Page::Full => *self = Page::empty(),
            Page::Part(b) => self.open().combine(b, |a, b| a & !b),
        }
        before - self.count()
    }

    /// Keeps only what `other` has too; how many went.
    pub(super) fn intersect_with(&mut self, other: &Page) -> u64 {
        let before = self.count();
        match (&mut *self, other) {
            (_, Page::Full) => {}
            (Page::Full, Page::Part(_)) => *self = other.clone(),
            (Page::Part(a), Page::Part(b)) => a.combine(b, |a, b| a & b),
        }
        before - self.count()
    }

    /// Whether `other` has all that this has.
    pub(super) fn is_subset(&self, other: &Page) -> bool {
        match (self, other) {
            (_, Page::Full) => true,
            (Page::Full, Page::Part(_)) => false,
            (Page::Part(a), Page::Part(b)) => {
                a.count <= b.count && a.bits.data.iter().zip(&b.bits.data).all(|(a, b)| a & !b == 0)
            }
        }
    }

    /// The bits for clearing some: a full page is written out. The caller clears at least one.
    fn open(&mut self) -> &mut Part {
        if let Page::Full = self {
            let bits = BitArray::new([u64::MAX; PAGE_WORDS]);
            *self = Page::Part(Box::new(Part { count: PAGE_GRAINS as u32, bits }));
        }
        match self {
            Page::Part(part) => part,
            // invariant: the lines above wrote a full page out.
            Page::Full => unreachable!("written out above"),
        }
    }

    /// Restores the canonical form after bits were added.
    fn settle(&mut self) {
        if self.count() == PAGE_GRAINS {
            *self = Page::Full;
        }
    }
}

impl Part {
    fn combine(&mut self, other: &Part, f: impl Fn(u64, u64) -> u64) {
        for (a, b) in self.bits.data.iter_mut().zip(&other.bits.data) {
            *a = f(*a, *b);
        }
        self.recount();
    }

    fn recount(&mut self) {
        self.count = self.bits.data.iter().map(|w| w.count_ones()).sum();
    }

    /// The first bit at or after `from` that is set in the words XOR `flip`.
    fn scan(&self, from: usize, flip: u64) -> Option<usize> {
        let mut index = from / 64;
        let mut word = (self.bits.data.get(index)? ^ flip) & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = self.bits.data.get(index)? ^ flip;
        }
        Some(index * 64 + word.trailing_zeros() as usize)
    }
}
