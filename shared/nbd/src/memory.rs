//! [`MemoryExport`]: a sparse volume in memory, for tests, benchmarks and examples.
//!
//! Does everything that an export can, at once, and keeps nothing: a flush has nothing to do.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use crate::export::{
    BASE_ALLOCATION, BlockSizes, Command, Description, Export, Extent, Features, STATE_HOLE,
    STATE_ZERO,
};
use crate::{Errno, Reply};

/// Memory is allocated in pieces of this many bytes.
const PIECE_BYTES: u64 = 64 << 10;

/// A volume in memory; what was never written is a hole and reads as zeros.
pub struct MemoryExport {
    description: Description,
    /// By piece number.
    pieces: RefCell<BTreeMap<u64, Box<[u8]>>>,
    flushes: Cell<u64>,
}

impl MemoryExport {
    /// An empty volume of `size_bytes` bytes that offers everything.
    pub fn new(size_bytes: u64) -> MemoryExport {
        MemoryExport::with_description(Description {
            size_bytes,
            text: "a volume in memory".into(),
            read_only: false,
            blocks: BlockSizes::default(),
            features: Features::ALL,
            contexts: vec![BASE_ALLOCATION.into()],
        })
    }

    /// An empty volume that describes itself so. Its first metadata context is answered with the
    /// allocation, all others with one extent of flags 0.
    pub fn with_description(description: Description) -> MemoryExport {
        MemoryExport { description, pieces: RefCell::default(), flushes: Cell::new(0) }
    }

    /// How many flushes, and commands with force unit access, were carried out.
    pub fn flushes(&self) -> u64 {
        self.flushes.get()
    }

    /// Fills `buf` with the content from `offset` on.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        let pieces = self.pieces.borrow();
        for_pieces(offset, buf.len() as u64, |piece, within, range| {
            let part = &mut buf[range];
            match pieces.get(&piece) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + part.len()]),
                None => part.fill(0),
            }
        });
    }

    /// Writes `data` at `offset`.
    pub fn write(&self, offset: u64, data: &[u8]) {
        let mut pieces = self.pieces.borrow_mut();
        for_pieces(offset, data.len() as u64, |piece, within, range| {
            let part = &data[range];
            let empty = || vec![0; PIECE_BYTES as usize].into_boxed_slice();
            let bytes = pieces.entry(piece).or_insert_with(empty);
            bytes[within..within + part.len()].copy_from_slice(part);
        });
    }

    /// Makes a range zero; whole pieces become holes unless `keep`.
    fn zero(&self, offset: u64, len: u64, keep: bool) {
        let mut pieces = self.pieces.borrow_mut();
        let first = offset / PIECE_BYTES;
        let last = (offset + len - 1) / PIECE_BYTES;
        let touched: Vec<u64> = match keep {
            true => (first..=last).collect(),
            false => pieces.range(first..=last).map(|(piece, _)| *piece).collect(),
        };
        for piece in touched {
            let from = offset.max(piece * PIECE_BYTES) - piece * PIECE_BYTES;
            let to = (offset + len).min((piece + 1) * PIECE_BYTES) - piece * PIECE_BYTES;
            if to - from == PIECE_BYTES && !keep {
                pieces.remove(&piece);
                continue;
            }
            let empty = || vec![0; PIECE_BYTES as usize].into_boxed_slice();
            let bytes = pieces.entry(piece).or_insert_with(empty);
            bytes[from as usize..to as usize].fill(0);
        }
    }

    /// Allocated stretches and holes of a range.
    fn allocation(&self, offset: u64, len: u64) -> Vec<Extent> {
        let pieces = self.pieces.borrow();
        let end = offset + len;
        let mut extents = Vec::new();
        let mut at = offset;
        for piece in pieces.range(offset / PIECE_BYTES..).map(|(piece, _)| *piece) {
            let start = (piece * PIECE_BYTES).max(at);
            if start >= end {
                break;
            }
            extents.push(Extent { len: start - at, flags: STATE_HOLE | STATE_ZERO });
            let stop = ((piece + 1) * PIECE_BYTES).min(self.description.size_bytes);
            extents.push(Extent { len: stop - start, flags: 0 });
            at = stop;
        }
        if at < end {
            extents.push(Extent { len: end - at, flags: STATE_HOLE | STATE_ZERO });
        }
        extents
    }

    fn done(&self, reply: Reply, fua: bool) {
        if fua {
            self.flushes.set(self.flushes.get() + 1);
        }
        reply.done();
    }
}

/// Calls `visit(piece, offset within it, range within the whole)` for each piece touched.
fn for_pieces(offset: u64, len: u64, mut visit: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done;
        let within = at % PIECE_BYTES;
        let count = (PIECE_BYTES - within).min(len - done);
        visit(at / PIECE_BYTES, within as usize, done as usize..(done + count) as usize);
        done += count;
    }
}

impl Export for MemoryExport {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn submit(&self, command: Command, mut reply: Reply) {
        match command {
            Command::Read { offset, .. } => {
                let filled = reply.fill(|buf| {
                    self.read(offset, buf);
                    Ok(true)
                });
                debug_assert!(filled.is_ok(), "the read never waits");
            }
            Command::Write { offset, data, fua } => {
                self.write(offset, &data);
                self.done(reply, fua);
            }
            Command::Flush => self.done(reply, true),
            Command::Trim { offset, len, fua } => {
                self.zero(offset, len, false);
                self.done(reply, fua);
            }
            // Allocating many pieces is no faster than writing them.
            Command::WriteZeroes { fast_zero: true, no_hole: true, .. } => {
                reply.error(Errno::NotSupported);
            }
            Command::WriteZeroes { offset, len, fua, no_hole, .. } => {
                self.zero(offset, len, no_hole);
                self.done(reply, fua);
            }
            Command::Cache { .. } => reply.done(),
            Command::BlockStatus { offset, len, contexts, .. } => {
                for context in contexts {
                    match context {
                        0 => reply.extents(context, &self.allocation(offset, len)),
                        _ => reply.extents(context, &[Extent { len, flags: 0 }]),
                    }
                }
                reply.done();
            }
        }
    }
}
