//! One simulated file: what it reads as now (live), what stable storage holds (durable), and the log
//! of what lies between them.
//!
//! The rule by which the log settles into the durable image is that of a page cache over a disk with
//! sectors of 512 bytes: a sector holds what it held at one instant. Whenever an entry of the log is
//! made durable in a sector, so is every earlier entry in that sector.

use std::ops::Range;

use bytes::Bytes;

use super::image::{Image, PAGE};
use super::ranges::RangeSet;
use super::{Keep, SplitMix64};
use crate::{Extent, FileKind};

/// The unit that a power cut cannot tear, in bytes.
pub const SECTOR: u64 = 512;

/// A seeded choice: a number below its argument.
pub type Choose<'a> = &'a mut dyn FnMut(u64) -> u64;

/// A simulated file or block device, see the module.
#[derive(Clone)]
pub struct Inode {
    pub kind: FileKind,
    pub live: Image,
    durable: Image,
    log: Vec<Entry>,
    /// Lengths since the last sync, oldest first: (number of the step, length).
    lengths: Vec<(u64, u64)>,
    /// What is allocated, in whole pages; data or reserved.
    space: RangeSet,
}

#[derive(Clone)]
struct Entry {
    seq: u64,
    range: Range<u64>,
    what: What,
    /// A sync failed on it: later syncs leave it out.
    lost: bool,
}

#[derive(Clone)]
enum What {
    Data(Bytes),
    Zero,
    /// The zeros behind a new, smaller length; goes with the length.
    Shrink,
}

impl Entry {
    fn apply(&self, part: Range<u64>, image: &mut Image) {
        match &self.what {
            What::Data(data) => {
                let from = (part.start - self.range.start) as usize;
                let to = (part.end - self.range.start) as usize;
                image.write(part.start, &data[from..to]);
            }
            What::Zero | What::Shrink => image.zero(part),
        }
    }

    /// The same entry, of a part of its range only.
    fn part(&self, part: Range<u64>) -> Entry {
        let what = match &self.what {
            What::Data(data) => {
                let from = (part.start - self.range.start) as usize;
                let to = (part.end - self.range.start) as usize;
                What::Data(data.slice(from..to))
            }
            other => other.clone(),
        };
        Entry { range: part, what, ..*self }
    }
}

impl Inode {
    pub fn new(kind: FileKind, len: u64) -> Self {
        let mut image = Image::default();
        image.len = len;
        Inode {
            kind,
            live: image.clone(),
            durable: image,
            log: Vec::new(),
            lengths: Vec::new(),
            space: RangeSet::default(),
        }
    }

    /// Bytes of the disk that it takes.
    pub fn used(&self) -> u64 {
        if self.kind == FileKind::Regular { self.space.total() } else { 0 }
    }

    /// How many more bytes of the disk it would take with `range` allocated.
    pub fn growth(&self, range: Range<u64>) -> u64 {
        if self.kind != FileKind::Regular {
            return 0;
        }
        self.space.missing(page_out(range)).iter().map(|gap| gap.end - gap.start).sum()
    }

    fn push(&mut self, seq: u64, range: Range<u64>, what: What) {
        if !range.is_empty() {
            let entry = Entry { seq, range, what, lost: false };
            entry.apply(entry.range.clone(), &mut self.live);
            self.log.push(entry);
        }
    }

    fn length(&mut self, seq: u64, len: u64) {
        if len != self.live.len {
            self.live.len = len;
            self.lengths.push((seq, len));
        }
    }

    pub fn write(&mut self, seq: u64, offset: u64, data: Bytes) {
        let range = offset..offset + data.len() as u64;
        self.space.insert(page_out(range.clone()));
        self.length(seq, self.live.len.max(range.end));
        self.push(seq, range, What::Data(data));
    }

    pub fn zero(&mut self, seq: u64, range: Range<u64>, punch: bool) {
        let range = range.start.min(self.live.len)..range.end.min(self.live.len);
        if punch {
            self.space.remove(page_in(range.clone()));
        } else {
            self.space.insert(page_out(range.clone()));
        }
        self.push(seq, range, What::Zero);
    }

    pub fn set_len(&mut self, seq: u64, len: u64) {
        let old = self.live.len;
        if len < old {
            self.space.remove(page_in(len..old.next_multiple_of(PAGE)));
            self.push(seq, len..old, What::Shrink);
        }
        self.length(seq, len);
    }

    pub fn allocate(&mut self, seq: u64, range: Range<u64>) {
        self.length(seq, self.live.len.max(range.end));
        self.space.insert(page_out(range));
    }

    /// Makes part of the log durable: of each entry before step `upto`, newest first, the ranges that
    /// `kept` names, and what the rule of the module adds. What is not made durable stays in the log.
    fn settle(&mut self, upto: u64, mut kept: impl FnMut(&Entry) -> Vec<Range<u64>>) {
        let young = self.log.split_off(self.log.partition_point(|entry| entry.seq < upto));
        let mut covered = RangeSet::default();
        let mut parts = Vec::with_capacity(self.log.len());
        for entry in self.log.iter().rev() {
            for range in kept(entry) {
                covered.insert(sector_out(range));
            }
            parts.push(covered.within(entry.range.clone()));
        }
        let mut rest = Vec::new();
        for (entry, parts) in self.log.drain(..).zip(parts.into_iter().rev()) {
            let mut done = RangeSet::default();
            for part in parts {
                entry.apply(part.clone(), &mut self.durable);
                done.insert(part);
            }
            rest.extend(done.missing(entry.range.clone()).into_iter().map(|gap| entry.part(gap)));
        }
        rest.extend(young);
        self.log = rest;
    }

    fn settle_lengths(&mut self, upto: u64) {
        let count = self.lengths.partition_point(|(seq, _)| *seq < upto);
        if let Some((_, len)) = self.lengths.drain(..count).next_back() {
            self.durable.len = len;
        }
    }

    /// A sync that started when step `upto` was the next, and succeeded.
    pub fn sync(&mut self, upto: u64) {
        self.settle_lengths(upto);
        if self.log.iter().all(|entry| entry.seq < upto && !entry.lost) {
            // The common case: where nothing lies between them any more, both images are the same.
            for entry in std::mem::take(&mut self.log) {
                self.durable.share(&self.live, entry.range);
            }
            return;
        }
        self.settle(upto, |entry| if entry.lost { Vec::new() } else { vec![entry.range.clone()] });
    }

    /// Makes the write of step `seq` durable, and the lengths and shrinks up to it.
    pub fn sync_write(&mut self, seq: u64) {
        self.settle_lengths(seq + 1);
        self.settle(seq + 1, |entry| match entry.what {
            What::Data(_) | What::Zero if entry.seq != seq => Vec::new(),
            _ => vec![entry.range.clone()],
        });
    }

    /// A sync that started when step `upto` was the next, and failed.
    pub fn sync_failed(&mut self, upto: u64) {
        for entry in self.log.iter_mut().filter(|e| e.seq < upto) {
            entry.lost = !matches!(entry.what, What::Shrink);
        }
    }

    /// The power fails: chooses what of the log was kept; the durable image is then all there is.
    pub fn power_cut(&mut self, choose: Choose<'_>) {
        let count = choose(self.lengths.len() as u64 + 1) as usize;
        let mode = if self.log.is_empty() { 0 } else { choose(4) };
        self.lose_power(count, |entry| match mode {
            0 => vec![entry.range.clone()],
            1 => Vec::new(),
            _ => match choose(3) {
                0 => Vec::new(),
                1 => vec![entry.range.clone()],
                _ => torn(entry.range.clone(), choose),
            },
        });
    }

    /// The numbers of the steps that are not durable.
    pub fn unsynced(&self) -> impl Iterator<Item = u64> {
        let lengths = self.lengths.iter().map(|(seq, _)| *seq);
        self.log.iter().map(|entry| entry.seq).chain(lengths)
    }

    /// The power fails: of each step that much is kept.
    pub fn power_cut_keeping(&mut self, keep: &dyn Fn(u64) -> Keep) {
        let kept = self.lengths.iter().rposition(|(seq, _)| keep(*seq) != Keep::Lost);
        self.lose_power(kept.map_or(0, |last| last + 1), |entry| match keep(entry.seq) {
            Keep::Lost => Vec::new(),
            Keep::Whole => vec![entry.range.clone()],
            Keep::Torn(seed) => {
                let mut random = SplitMix64::new(seed ^ entry.seq);
                torn(entry.range.clone(), &mut |n| random.below(n))
            }
        });
    }

    /// The power fails: `count` changes of the length happened, and of each entry what `kept` says.
    fn lose_power(&mut self, count: usize, mut kept: impl FnMut(&Entry) -> Vec<Range<u64>>) {
        let undone: Vec<u64> = self.lengths.drain(count..).map(|(seq, _)| seq).collect();
        self.settle_lengths(u64::MAX);
        // What came after a shrink that did not happen cannot have been kept.
        let shrinks = self.log.iter().filter(|e| matches!(e.what, What::Shrink));
        let barrier = shrinks.map(|e| e.seq).find(|seq| undone.contains(seq)).unwrap_or(u64::MAX);
        self.settle(u64::MAX, |entry| match &entry.what {
            _ if entry.seq >= barrier => Vec::new(),
            What::Shrink => vec![entry.range.clone()],
            _ => kept(entry),
        });
        self.log.clear();
        self.durable.zero(self.durable.len..u64::MAX);
        self.live = self.durable.clone();
        // What was reserved stays reserved as far as the file reaches; a punch may be undone.
        self.space.remove(self.live.len.next_multiple_of(PAGE)..u64::MAX);
        for extent in self.extents(0..self.live.len, usize::MAX).iter().filter(|e| e.data) {
            self.space.insert(page_out(extent.offset..extent.offset + extent.len));
        }
    }

    /// The process is killed: pages on which a sync failed may be read from the disk again.
    pub fn kill(&mut self, choose: Choose<'_>) {
        let mut newer = RangeSet::default();
        let mut revert = RangeSet::default();
        for entry in self.log.iter().rev() {
            if entry.lost && choose(2) == 0 {
                let sectors = sector_out(entry.range.clone());
                newer.missing(sectors).into_iter().for_each(|part| revert.insert(part));
            }
            newer.insert(sector_out(entry.range.clone()));
        }
        for part in revert.within(0..u64::MAX) {
            let len = (part.end.min(self.live.len)).saturating_sub(part.start);
            let old = self.durable.bytes(part.start, len as usize);
            self.live.write(part.start, &old);
        }
        let log = std::mem::take(&mut self.log);
        for entry in &log {
            self.log.extend(revert.missing(entry.range.clone()).into_iter().map(|r| entry.part(r)));
        }
    }

    /// Turns over one bit at rest.
    pub fn flip(&mut self, offset: u64, bit: u8) {
        self.live.flip(offset, bit);
        self.durable.flip(offset, bit);
    }

    /// Data and holes, see [`crate::File::extents`].
    pub fn extents(&self, range: Range<u64>, max: usize) -> Vec<Extent> {
        let mut found: Vec<Extent> = Vec::new();
        let mut at = range.start;
        while at < range.end && found.len() < max {
            let (data, end) = match self.live.len {
                len if at >= len => (false, range.end),
                len if self.kind == FileKind::Block => (true, len.min(range.end)),
                len => self.live.stretch(at, len.min(range.end)),
            };
            match found.last_mut() {
                Some(last) if last.data == data => last.len += end - at,
                _ => found.push(Extent { offset: at, len: end - at, data }),
            }
            at = end;
        }
        found
    }
}

/// Some of the sectors of a range.
pub fn torn(range: Range<u64>, choose: Choose<'_>) -> Vec<Range<u64>> {
    let mut kept = Vec::new();
    let mut at = range.start;
    let mut keep = choose(2) == 0;
    while at < range.end {
        let sectors = (range.end.div_ceil(SECTOR) - at / SECTOR).max(1);
        let end = ((at / SECTOR + 1 + choose(sectors)) * SECTOR).min(range.end);
        if keep {
            kept.push(at..end);
        }
        (at, keep) = (end, !keep);
    }
    kept
}

fn sector_out(range: Range<u64>) -> Range<u64> {
    range.start / SECTOR * SECTOR..range.end.div_ceil(SECTOR) * SECTOR
}

fn page_out(range: Range<u64>) -> Range<u64> {
    range.start / PAGE * PAGE..range.end.div_ceil(PAGE) * PAGE
}

fn page_in(range: Range<u64>) -> Range<u64> {
    range.start.div_ceil(PAGE) * PAGE..range.end / PAGE * PAGE
}
