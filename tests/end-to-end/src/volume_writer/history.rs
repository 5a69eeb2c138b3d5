//! What a writer has done, and what a raw volume may therefore hold.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// One content of a block.
#[derive(Clone, Copy, Debug)]
struct Version {
    /// The write that made it; 0 for what was there before.
    number: u64,
    hash: u64,
    /// It was answered, so it has happened; else it may have.
    certain: bool,
    /// It was flushed, or written with force unit access.
    durable: bool,
}

/// All writes of a [`super::VolumeWriter`], by block.
#[derive(Clone, Debug, Default)]
pub struct History {
    block_bytes: u64,
    blocks: BTreeMap<u64, Vec<Version>>,
    newest: u64,
    answered: u64,
    /// The newest write that a flush covered.
    flushed: u64,
    /// Blocks of the newest write.
    under_way: std::ops::Range<u64>,
    /// Blocks with answered writes that are not flushed, some of them more than once.
    unflushed: Vec<u64>,
}

/// What a raw volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was after one of these writes: every earlier one is there and no later one.
    Instant(RangeInclusive<u64>),
    /// Every block is as some write left it, but not at one instant.
    Mixed {
        /// A block that is as only a late write left it, as a byte offset.
        late: u64,
        /// A block that is as it was before that.
        early: u64,
    },
    /// A block holds what no write left there.
    Foreign {
        /// Its byte offset.
        offset: u64,
    },
}

impl History {
    pub(super) fn begin(&mut self, block_bytes: u64) {
        assert!(self.block_bytes == 0 || self.block_bytes == block_bytes, "another block size");
        self.block_bytes = block_bytes;
    }

    fn hashes(&self, data: &[u8]) -> Vec<u64> {
        let hash = |block: &[u8]| {
            let mut hasher = DefaultHasher::new();
            hasher.write(block);
            hasher.finish()
        };
        data.chunks(self.block_bytes as usize).map(hash).collect()
    }

    pub(super) fn lacks(&self, first: u64, count: u64) -> bool {
        (first..first + count).any(|block| !self.blocks.contains_key(&block))
    }

    /// What stood there before the first write.
    pub(super) fn initial(&mut self, first: u64, data: &[u8]) {
        for (block, hash) in (first..).zip(self.hashes(data)) {
            let version = Version { number: 0, hash, certain: true, durable: true };
            self.blocks.entry(block).or_insert_with(|| vec![version]);
        }
    }

    /// A write goes out; its number.
    pub(super) fn sent(&mut self, first: u64, data: &[u8]) -> u64 {
        self.newest += 1;
        let number = self.newest;
        self.under_way = first..first + data.len() as u64 / self.block_bytes;
        for (block, hash) in (first..).zip(self.hashes(data)) {
            let version = Version { number, hash, certain: false, durable: false };
            self.blocks.entry(block).or_default().push(version);
        }
        number
    }

    /// The write was answered.
    pub(super) fn answer(&mut self, number: u64, durable: bool) {
        self.answered += 1;
        for block in self.under_way.clone() {
            let newest = self.blocks.get_mut(&block).and_then(|versions| versions.last_mut());
            if let Some(version) = newest.filter(|version| version.number == number) {
                (version.certain, version.durable) = (true, durable);
                self.unflushed.push(block);
            }
        }
    }

    /// A flush was answered that was sent when `covers` was the newest write.
    pub(super) fn flushed(&mut self, covers: u64) {
        self.flushed = self.flushed.max(covers);
        for block in std::mem::take(&mut self.unflushed) {
            let versions = self.blocks.get_mut(&block).into_iter().flatten();
            for version in versions.filter(|v| v.certain && v.number <= covers) {
                version.durable = true;
            }
        }
    }

    /// The number of the newest write, answered or not.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// How many writes were answered.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// The newest write that a flush covered.
    pub fn newest_flushed(&self) -> u64 {
        self.flushed
    }

    fn read(&self, path: &Path) -> BTreeMap<u64, u64> {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut buf = vec![0; self.block_bytes as usize];
        let mut seen = BTreeMap::new();
        for block in self.blocks.keys() {
            let read = file.read_exact_at(&mut buf, block * self.block_bytes);
            read.unwrap_or_else(|e| panic!("{}: block {block}: {e}", path.display()));
            seen.insert(*block, self.hashes(&buf)[0]);
        }
        seen
    }

    /// Blocks (byte offsets) of the raw volume at `path` that do not hold what was flushed, or
    /// something written there later. Empty is as it must be at the source, whatever happened to it.
    pub fn lost(&self, path: &Path) -> Vec<u64> {
        let seen = self.read(path);
        let lost = self.blocks.iter().filter(|(block, versions)| {
            let durable = versions.iter().rposition(|version| version.durable).unwrap_or(0);
            versions[durable..].iter().all(|version| seen.get(block) != Some(&version.hash))
        });
        lost.map(|(block, _)| block * self.block_bytes).collect()
    }

    /// Whether the raw volume at `path` is as it was at one instant, and at which; the latest one, where the same
    /// bytes were written more than once.
    pub fn judge(&self, path: &Path) -> Verdict {
        let seen = self.read(path);
        // For each instant, how many blocks begin (or cease) to be as they are now.
        let mut changes: BTreeMap<u64, i64> = BTreeMap::new();
        let (mut late, mut early) = ((0, 0), (self.newest, 0));
        for (block, versions) in &self.blocks {
            let offset = block * self.block_bytes;
            let Some(spans) = seen.get(block).and_then(|hash| self.spans(versions, *hash)) else {
                return Verdict::Foreign { offset };
            };
            late = late.max((*spans[0].start(), offset));
            early = early.min((spans.last().map_or(0, |span| *span.end()), offset));
            for span in spans {
                *changes.entry(*span.start()).or_default() += 1;
                *changes.entry(span.end() + 1).or_default() -= 1;
            }
        }
        let (mut blocks, mut begun, mut found) = (0, None, None);
        for (instant, change) in changes {
            blocks += change;
            let all = blocks == self.blocks.len() as i64;
            if let (Some(first), false) = (begun, all) {
                found = Some(Verdict::Instant(first..=instant - 1));
            }
            begun = all.then_some(begun.unwrap_or(instant));
        }
        found.unwrap_or(Verdict::Mixed { late: late.1, early: early.1 })
    }

    /// The instants at which a block held bytes of this hash, in order and apart from each other; `None` when
    /// it never did. A later write that was not answered may never have happened.
    fn spans(&self, versions: &[Version], hash: u64) -> Option<Vec<RangeInclusive<u64>>> {
        let mut spans: Vec<RangeInclusive<u64>> = Vec::new();
        for (at, version) in versions.iter().enumerate().filter(|(_, v)| v.hash == hash) {
            let next = versions[at + 1..].iter().find(|version| version.certain);
            let end = next.map_or(self.newest, |version| version.number - 1);
            match spans.last_mut().filter(|last| *last.end() + 1 >= version.number) {
                Some(last) => *last = *last.start()..=end.max(*last.end()),
                None => spans.push(version.number..=end),
            }
        }
        (!spans.is_empty()).then_some(spans)
    }
}
