//! Words of 64 grains in and out of a set, for map files on disk.

use super::GrainSet;
use super::page::PAGE_WORDS;
use crate::{Run, VolumeId};

impl GrainSet {
    /// Fills `out` with the grains of `volume` from word `first_word` on: bit `b` of `out[w]` is
    /// grain `(first_word + w) * 64 + b`.
    pub fn copy_words(&self, volume: VolumeId, first_word: u64, out: &mut [u64]) {
        out.fill(0);
        let Some(bits) = self.volumes.get(&volume) else { return };
        let page_words = PAGE_WORDS as u64;
        let mut at = 0;
        while at < out.len() {
            let word = first_word + at as u64;
            let inside = (word % page_words) as usize;
            let count = (PAGE_WORDS - inside).min(out.len() - at);
            if let Some(page) = bits.pages().get(&(word / page_words)) {
                match page.words() {
                    None => out[at..at + count].fill(u64::MAX),
                    Some(words) => {
                        out[at..at + count].copy_from_slice(&words[inside..inside + count]);
                    }
                }
            }
            at += count;
        }
    }

    /// Adds the grains whose bits are set in `words` (in the form of [`GrainSet::copy_words`]), but
    /// none at or beyond grain `end`.
    pub fn or_words(&mut self, volume: VolumeId, first_word: u64, words: &[u64], end: u64) {
        let mut open: Option<u64> = None;
        for (w, word) in words.iter().enumerate() {
            let base = (first_word + w as u64) * 64;
            let mut bit = 0;
            while bit < 64 {
                let rest = word >> bit;
                match open {
                    None if rest == 0 => break,
                    None => {
                        bit += rest.trailing_zeros();
                        open = Some(base + u64::from(bit));
                    }
                    Some(first) => {
                        let ones = (!rest).trailing_zeros().min(64 - bit);
                        bit += ones;
                        if bit < 64 {
                            self.insert_clipped(volume, first, base + u64::from(bit), end);
                            open = None;
                        }
                    }
                }
            }
        }
        if let Some(first) = open {
            self.insert_clipped(volume, first, (first_word + words.len() as u64) * 64, end);
        }
    }

    fn insert_clipped(&mut self, volume: VolumeId, first: u64, to: u64, end: u64) {
        let to = to.min(end);
        if first < to {
            self.insert_run(Run { volume, first, count: to - first });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V: VolumeId = VolumeId(3);

    proptest! {
        #[test]
        fn words_out_and_in_again(
            runs in prop::collection::vec((0_u64..100_000, 1_u64..5_000), 0..8),
            sector in 0_u64..30,
        ) {
            let mut set = GrainSet::new();
            for (first, count) in runs {
                set.insert_run(Run { volume: V, first, count });
            }
            let mut words = [0; 62];
            set.copy_words(V, sector * 62, &mut words);
            let mut back = GrainSet::new();
            let end = (sector + 1) * 62 * 64 - 5;
            back.or_words(V, sector * 62, &words, end);
            for grain in sector * 3968..(sector + 1) * 3968 {
                let expected = grain < end && set.contains(V, grain);
                prop_assert_eq!(back.contains(V, grain), expected);
            }
            prop_assert!(back.is_subset(&set));
        }
    }
}
