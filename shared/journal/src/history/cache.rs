//! Blocks of indexes that were read, the least recently used one given up first.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::index::{Entry, PER_BLOCK};

/// The most bytes of decoded blocks.
const LIMIT: usize = 4 << 20;
const BLOCKS: usize = LIMIT / (PER_BLOCK * size_of::<Entry>());

/// Segment and block.
type Key = (u64, u64);

/// See the top of this file.
#[derive(Default)]
pub(super) struct Cache {
    blocks: BTreeMap<Key, (Rc<Vec<Entry>>, u64)>,
    /// Keys by when they were last used.
    used: BTreeMap<u64, Key>,
    clock: u64,
}

impl Cache {
    pub(super) fn get(&mut self, key: Key) -> Option<Rc<Vec<Entry>>> {
        let (block, used) = self.blocks.get_mut(&key)?;
        self.clock += 1;
        self.used.remove(used);
        self.used.insert(self.clock, key);
        *used = self.clock;
        Some(block.clone())
    }

    pub(super) fn put(&mut self, key: Key, block: Rc<Vec<Entry>>) {
        self.clock += 1;
        if let Some((_, used)) = self.blocks.insert(key, (block, self.clock)) {
            self.used.remove(&used);
        }
        self.used.insert(self.clock, key);
        while self.blocks.len() > BLOCKS
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.blocks.remove(&oldest);
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.blocks.len() * PER_BLOCK * size_of::<Entry>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut cache = Cache::default();
        for number in 0..BLOCKS as u64 {
            cache.put((1, number), Rc::default());
        }
        assert!(cache.get((1, 0)).is_some());
        cache.put((2, 0), Rc::default());
        assert!(cache.get((1, 0)).is_some() && cache.get((1, 1)).is_none());
        assert_eq!(cache.blocks.len(), cache.used.len());
        assert!(cache.bytes() <= LIMIT as u64);
    }
}
