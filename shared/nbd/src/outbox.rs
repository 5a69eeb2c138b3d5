//! [`Outbox`]: the bytes of a connection that wait to be sent, gathered for one vectored write.
//!
//! Headers and small data lie one after the other in an arena that is initialised once and used
//! again; large owned buffers stand between them without being copied. Does no I/O and has no limit
//! of its own: the connection stops taking up requests while much is waiting.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

/// Owned buffers below this length are copied into the arena: cheaper than a slice of their own.
const OWN_FROM_BYTES: usize = 16 << 10;
/// The arena starts with this size.
const ARENA_MIN_BYTES: usize = 64 << 10;
/// An empty arena above this size is given back.
const ARENA_KEEP_BYTES: usize = 4 << 20;

enum Piece {
    /// So many bytes of the arena, after those of the pieces before.
    Arena(usize),
    Owned(Bytes),
}

/// Bytes that wait to be sent.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Fully initialised; `start..end` is waiting.
    arena: Vec<u8>,
    start: usize,
    end: usize,
    pieces: VecDeque<Piece>,
    waiting: usize,
}

impl Outbox {
    /// How many bytes wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Appends a copy of `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `bytes`, without a copy if they are many.
    pub(crate) fn put_owned(&mut self, bytes: Bytes) {
        if bytes.len() < OWN_FROM_BYTES {
            return self.put(&bytes);
        }
        self.waiting += bytes.len();
        self.pieces.push_back(Piece::Owned(bytes));
    }

    /// Appends `len` zeros.
    pub(crate) fn put_zeros(&mut self, len: usize) {
        self.space(len).fill(0);
    }

    /// Appends `len` bytes of any content and lends them to be filled.
    pub(crate) fn space(&mut self, len: usize) -> &mut [u8] {
        self.make_room(len);
        match self.pieces.back_mut() {
            Some(Piece::Arena(last)) => *last += len,
            _ => self.pieces.push_back(Piece::Arena(len)),
        }
        let from = self.end;
        self.end += len;
        self.waiting += len;
        &mut self.arena[from..self.end]
    }

    /// Takes back the `len` bytes that the last call of [`Outbox::space`] lent.
    pub(crate) fn take_back(&mut self, len: usize) {
        let Some(Piece::Arena(last)) = self.pieces.back_mut() else { return };
        debug_assert!(*last >= len, "only what was lent last can be taken back");
        *last -= len;
        self.end -= len;
        self.waiting -= len;
        if *last == 0 {
            self.pieces.pop_back();
        }
    }

    /// Makes sure that `len` bytes fit behind `end`.
    fn make_room(&mut self, len: usize) {
        if self.end + len <= self.arena.len() {
            return;
        }
        let held = self.end - self.start;
        if self.start >= held && held + len <= self.arena.len() {
            self.arena.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = held;
            return;
        }
        let size = (self.end + len).next_power_of_two().max(ARENA_MIN_BYTES);
        self.arena.resize(size, 0);
    }

    /// Points `slices` at what waits, in order, and returns how many of them are used.
    pub(crate) fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.start;
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = match piece {
                Piece::Arena(len) => {
                    at += len;
                    IoSlice::new(&self.arena[at - len..at])
                }
                Piece::Owned(bytes) => IoSlice::new(bytes),
            };
            used += 1;
        }
        used
    }

    /// Forgets the first `count` bytes: they were sent.
    pub(crate) fn sent(&mut self, count: usize) {
        self.waiting = self.waiting.saturating_sub(count);
        let mut left = count;
        while let Some(piece) = self.pieces.front_mut() {
            let len = match piece {
                Piece::Arena(len) => *len,
                Piece::Owned(bytes) => bytes.len(),
            };
            let now = len.min(left);
            left -= now;
            match piece {
                Piece::Arena(len) => {
                    *len -= now;
                    self.start += now;
                }
                Piece::Owned(bytes) => bytes.advance(now),
            }
            if now < len {
                return;
            }
            self.pieces.pop_front();
        }
        self.clear();
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.start = 0;
        self.end = 0;
        self.waiting = 0;
        if self.arena.len() > ARENA_KEEP_BYTES {
            self.arena = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 16];
        let used = outbox.gather(&mut slices);
        slices[..used].iter().flat_map(|s| s.iter().copied()).collect()
    }

    #[test]
    fn pieces_keep_their_order_and_partial_sends_their_place() {
        let mut outbox = Outbox::default();
        outbox.put(b"head");
        let large = Bytes::from(vec![7; OWN_FROM_BYTES]);
        outbox.put_owned(large.clone());
        outbox.put_owned(Bytes::from_static(b"small"));
        outbox.put_zeros(3);
        let mut expected = b"head".to_vec();
        expected.extend_from_slice(&large);
        expected.extend_from_slice(b"small\0\0\0");
        assert_eq!(content(&outbox), expected);
        for step in [1, 3, 5, OWN_FROM_BYTES - 5, 2, 6] {
            outbox.sent(step);
            expected.drain(..step);
            assert_eq!(content(&outbox), expected);
            assert_eq!(outbox.waiting(), expected.len());
        }
        assert_eq!(outbox.waiting(), 0);
    }

    #[test]
    fn space_is_taken_back() {
        let mut outbox = Outbox::default();
        outbox.put(b"a");
        outbox.space(100_000).fill(1);
        outbox.take_back(100_000);
        outbox.put(b"b");
        assert_eq!(content(&outbox), b"ab");
    }

    #[test]
    fn a_peer_that_reads_slowly_does_not_make_the_arena_grow() {
        let mut outbox = Outbox::default();
        outbox.put(&[0; 1000]);
        for _ in 0..10_000 {
            outbox.put(&[1; 500]);
            outbox.sent(500);
        }
        assert_eq!(outbox.waiting(), 1000);
        assert!(outbox.arena.len() <= 2 * ARENA_MIN_BYTES, "{}", outbox.arena.len());
    }
}
