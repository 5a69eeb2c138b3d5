//! The content of one file: a length and sparse pages of 4 KiB that are shared between copies.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

/// The size of a page in bytes.
pub const PAGE: u64 = 4096;

type Page = [u8; PAGE as usize];

/// Pages that are not there read as zeros. Positions beyond `len` may hold pages; it is the owner
/// who keeps the two in step.
#[derive(Clone, Default)]
pub struct Image {
    /// Length in bytes.
    pub len: u64,
    pages: BTreeMap<u64, Rc<Page>>,
}

impl Image {
    /// Fills `buf` from `offset` on.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        for (page, within, part) in pieces(offset, buf.len() as u64) {
            let target = &mut buf[part];
            match self.pages.get(&page) {
                Some(data) => target.copy_from_slice(&data[within..within + target.len()]),
                None => target.fill(0),
            }
        }
    }

    /// The `len` bytes from `offset` on.
    pub fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len);
        for (page, within, part) in pieces(offset, len as u64) {
            match self.pages.get(&page) {
                Some(data) => bytes.extend_from_slice(&data[within..within + part.len()]),
                None => bytes.resize(part.end, 0),
            }
        }
        bytes
    }

    /// Writes `data` at `offset`; the length stays.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        for (page, within, part) in pieces(offset, data.len() as u64) {
            let source = &data[part];
            if let Ok(whole) = Page::try_from(source) {
                self.pages.insert(page, Rc::new(whole));
                continue;
            }
            let target = self.pages.entry(page).or_insert_with(|| Rc::new([0; PAGE as usize]));
            Rc::make_mut(target)[within..within + source.len()].copy_from_slice(source);
        }
    }

    /// Takes the pages that a range touches as they are in `other`.
    pub fn share(&mut self, other: &Image, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        let gone: Vec<u64> = self.pages.range(pages.clone()).map(|(page, _)| *page).collect();
        for page in gone {
            if !other.pages.contains_key(&page) {
                self.pages.remove(&page);
            }
        }
        for (page, data) in other.pages.range(pages) {
            self.pages.insert(*page, data.clone());
        }
    }

    /// Makes a range zeros; pages inside it go.
    pub fn zero(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let inner = range.start.div_ceil(PAGE)..range.end / PAGE;
        if inner.start >= inner.end {
            self.blank(range);
            return;
        }
        self.blank(range.start..inner.start * PAGE);
        self.blank(inner.end * PAGE..range.end);
        let gone: Vec<u64> = self.pages.range(inner).map(|(page, _)| *page).collect();
        for page in gone {
            self.pages.remove(&page);
        }
    }

    /// Zeros in at most two pages, where there are pages.
    fn blank(&mut self, range: Range<u64>) {
        for (page, within, part) in pieces(range.start, range.end.saturating_sub(range.start)) {
            if let Some(target) = self.pages.get_mut(&page) {
                Rc::make_mut(target)[within..within + part.len()].fill(0);
            }
        }
    }

    /// Whether a page stands at `offset`, and where this ends (not beyond `end`).
    pub fn stretch(&self, offset: u64, end: u64) -> (bool, u64) {
        let first = offset / PAGE;
        let mut pages = self.pages.range(first..end.div_ceil(PAGE)).map(|(page, _)| *page);
        match pages.next() {
            None => (false, end),
            Some(page) if page > first => (false, (page * PAGE).min(end)),
            Some(_) => {
                let mut next = first + 1;
                while pages.next() == Some(next) {
                    next += 1;
                }
                (true, (next * PAGE).min(end))
            }
        }
    }

    /// The pages that are there, by their number.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pages.iter().map(|(number, page)| (*number, page.as_slice()))
    }

    /// The page of this number, if there is one.
    pub fn page(&self, number: u64) -> Option<&[u8]> {
        self.pages.get(&number).map(|page| page.as_slice())
    }

    /// Turns one bit over.
    pub fn flip(&mut self, offset: u64, bit: u8) {
        let mut byte = [0];
        self.read(offset, &mut byte);
        self.write(offset, &[byte[0] ^ 1 << (bit % 8)]);
    }
}

/// Cuts a range at page borders: (page, position inside it, part of the caller's buffer).
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done;
        let within = at % PAGE;
        let piece = (PAGE - within).min(len - done);
        let part = done as usize..(done + piece) as usize;
        done += piece;
        Some((at / PAGE, within as usize, part))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 5 * PAGE as usize;

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_buffer(
            steps in proptest::collection::vec((0..SIZE, 0..9_000usize, 0..3u8), 0..20),
        ) {
            let mut image = Image::default();
            let mut plain = vec![0; SIZE];
            for (start, len, value) in steps {
                let end = (start + len).min(SIZE);
                plain[start..end].fill(value);
                match value {
                    0 => image.zero(start as u64..end as u64),
                    _ => image.write(start as u64, &plain[start..end]),
                }
            }
            let mut read = vec![9; SIZE];
            image.read(0, &mut read);
            prop_assert!(read == plain);
            prop_assert!(image.bytes(0, SIZE) == plain);
            prop_assert!(image.bytes(700, SIZE - 900) == plain[700..SIZE - 200]);
            let mut at = 0;
            while at < SIZE as u64 {
                let (data, end) = image.stretch(at, SIZE as u64);
                prop_assert!(end > at);
                if !data {
                    prop_assert!(plain[at as usize..end as usize].iter().all(|b| *b == 0));
                }
                at = end;
            }
        }
    }

    #[test]
    fn copies_share_and_part_ways_when_written() {
        let mut image = Image::default();
        image.write(0, &[1; 10_000]);
        let copy = image.clone();
        image.flip(5, 0);
        let (mut new, mut old) = ([0; 1], [0; 1]);
        image.read(5, &mut new);
        copy.read(5, &mut old);
        assert_eq!((new, old), ([0], [1]));
    }
}
