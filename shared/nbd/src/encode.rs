//! How replies look on the wire: simple, structured and extended headers, data, holes, errors and
//! block status. Appends to an [`Outbox`]; decides nothing else.

use crate::export::{Extent, Part};
use crate::outbox::Outbox;
use crate::protocol::{
    EXTENDED_REPLY_MAGIC, MAX_STRING, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk,
};
use crate::{Errno, protocol};

/// Which headers a connection negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Compact requests, simple replies.
    Simple,
    /// Compact requests, structured replies.
    Structured,
    /// Extended requests and replies.
    Extended,
}

impl Style {
    /// Bytes of a request's header.
    pub(crate) fn request_len(self) -> usize {
        match self {
            Style::Extended => protocol::EXTENDED_REQUEST_LEN,
            _ => protocol::REQUEST_LEN,
        }
    }

    /// Bytes before the data of a read that is answered whole.
    pub(crate) fn data_header_len(self) -> usize {
        match self {
            Style::Simple => 16,
            Style::Structured => 20 + 8,
            Style::Extended => 32 + 8,
        }
    }
}

/// What of a request comes back in its reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) style: Style,
    pub(crate) cookie: u64,
    pub(crate) offset: u64,
}

/// The most bytes of one header together with the fixed fields of its payload.
const HEAD_MAX: usize = 48;

/// A header under construction on the stack.
struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Head {
    fn new() -> Head {
        Head { bytes: [0; HEAD_MAX], len: 0 }
    }

    fn add<const N: usize>(mut self, field: [u8; N]) -> Head {
        self.bytes[self.len..self.len + N].copy_from_slice(&field);
        self.len += N;
        self
    }

    fn chunk(tag: Tag, flags: u16, kind: u16, payload_len: usize) -> Head {
        let head = Head::new();
        match tag.style {
            Style::Extended => head
                .add(EXTENDED_REPLY_MAGIC.to_be_bytes())
                .add(flags.to_be_bytes())
                .add(kind.to_be_bytes())
                .add(tag.cookie.to_be_bytes())
                .add(tag.offset.to_be_bytes())
                .add((payload_len as u64).to_be_bytes()),
            _ => head
                .add(STRUCTURED_REPLY_MAGIC.to_be_bytes())
                .add(flags.to_be_bytes())
                .add(kind.to_be_bytes())
                .add(tag.cookie.to_be_bytes())
                .add((payload_len as u32).to_be_bytes()),
        }
    }

    fn simple(tag: Tag, error: u32) -> Head {
        Head::new()
            .add(SIMPLE_REPLY_MAGIC.to_be_bytes())
            .add(error.to_be_bytes())
            .add(tag.cookie.to_be_bytes())
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Success of a command without data. With `chunked`, chunks of this reply went before.
pub(crate) fn done(out: &mut Outbox, tag: Tag, chunked: bool) {
    let head = match tag.style {
        Style::Simple => Head::simple(tag, 0),
        Style::Structured if !chunked => Head::simple(tag, 0),
        _ => Head::chunk(tag, chunk::DONE, chunk::NONE, 0),
    };
    out.put(head.as_slice());
}

/// Failure of a command. The message goes along where the headers allow.
pub(crate) fn error(out: &mut Outbox, tag: Tag, errno: Errno, message: &str) {
    if tag.style == Style::Simple {
        return out.put(Head::simple(tag, errno as u32).as_slice());
    }
    let message = clipped(message);
    let head = Head::chunk(tag, chunk::DONE, chunk::ERROR, 6 + message.len())
        .add((errno as u32).to_be_bytes())
        .add((message.len() as u16).to_be_bytes());
    out.put(head.as_slice());
    out.put(message.as_bytes());
}

/// At most so much of `text` as a string of the protocol may have.
pub(crate) fn clipped(text: &str) -> &str {
    let mut end = text.len().min(MAX_STRING);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// Writes the header of a read of `len` bytes that is answered whole; `head` has
/// [`Style::data_header_len`] bytes.
pub(crate) fn data_header(head: &mut [u8], tag: Tag, len: usize) {
    head.copy_from_slice(whole_read(tag, len).as_slice());
}

fn whole_read(tag: Tag, len: usize) -> Head {
    match tag.style {
        Style::Simple => Head::simple(tag, 0),
        _ => {
            Head::chunk(tag, chunk::DONE, chunk::OFFSET_DATA, 8 + len).add(tag.offset.to_be_bytes())
        }
    }
}

/// The answer to a read as `parts`, which cover it. With `whole` the parts become one chunk with
/// the zeros of holes spelled out; simple replies always look so.
pub(crate) fn parts(out: &mut Outbox, tag: Tag, parts: Vec<Part>, whole: bool) {
    let whole = whole || tag.style == Style::Simple;
    if whole {
        let len = parts.iter().map(Part::len).sum();
        out.put(whole_read(tag, len).as_slice());
    }
    let mut at = tag.offset;
    let last = parts.len().saturating_sub(1);
    for (i, part) in parts.into_iter().enumerate() {
        let len = part.len();
        let flags = if i == last { chunk::DONE } else { 0 };
        match part {
            Part::Data(bytes) => {
                if !whole {
                    let head = Head::chunk(tag, flags, chunk::OFFSET_DATA, 8 + len);
                    out.put(head.add(at.to_be_bytes()).as_slice());
                }
                out.put_owned(bytes);
            }
            Part::Hole(zeros) if whole => out.put_zeros(zeros as usize),
            Part::Hole(zeros) => {
                let head = Head::chunk(tag, flags, chunk::OFFSET_HOLE, 12);
                out.put(head.add(at.to_be_bytes()).add(zeros.to_be_bytes()).as_slice());
            }
        }
        at += len as u64;
    }
}

/// One context's extents, as [`fit`] left them; not the last chunk of its reply.
pub(crate) fn block_status(out: &mut Outbox, tag: Tag, context: u32, extents: &[Extent]) {
    if tag.style == Style::Extended {
        let head = Head::chunk(tag, 0, chunk::BLOCK_STATUS_EXT, 8 + 16 * extents.len())
            .add(context.to_be_bytes())
            .add((extents.len() as u32).to_be_bytes());
        out.put(head.as_slice());
        for extent in extents {
            out.put(&extent.len.to_be_bytes());
            out.put(&extent.flags.to_be_bytes());
        }
        return;
    }
    let head = Head::chunk(tag, 0, chunk::BLOCK_STATUS, 4 + 8 * extents.len());
    out.put(head.add(context.to_be_bytes()).as_slice());
    for extent in extents {
        out.put(&(extent.len as u32).to_be_bytes());
        out.put(&(extent.flags as u32).to_be_bytes());
    }
}

/// What a block status reply may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatusBounds {
    /// The length that was asked, in bytes.
    pub(crate) asked: u64,
    /// Bytes from the asked offset to the end of the export.
    pub(crate) room: u64,
    /// One extent, not longer than asked.
    pub(crate) req_one: bool,
    /// Lengths have 32 bits.
    pub(crate) compact: bool,
    /// The most extents.
    pub(crate) count: usize,
}

/// The longest extent of a compact reply: the largest multiple of 64 KiB below 2^32.
const COMPACT_EXTENT_MAX: u64 = 0xffff_0000;

/// Brings extents into the form that the protocol asks: none empty, neighbours with the same flags
/// joined, none beyond the export, only the last one beyond what was asked. Clients ask again for
/// what is cut off.
pub(crate) fn fit(extents: &[Extent], bounds: StatusBounds) -> Vec<Extent> {
    let longest = if bounds.compact { COMPACT_EXTENT_MAX } else { u64::MAX };
    let reach = if bounds.req_one { bounds.asked.min(bounds.room) } else { bounds.room };
    let mut fitted: Vec<Extent> = Vec::new();
    let mut covered = 0_u64;
    for extent in extents {
        let len = extent.len.min(reach - covered);
        if len == 0 {
            continue;
        }
        let full = covered >= bounds.asked || fitted.len() >= bounds.count;
        match fitted.last_mut() {
            Some(last) if last.flags == extent.flags => last.len += len,
            Some(_) if full || bounds.req_one => break,
            _ => fitted.push(Extent { len, flags: extent.flags }),
        }
        covered += len;
        let Some(last) = fitted.last_mut() else { break };
        if last.len > longest {
            last.len = longest;
            break;
        }
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: StatusBounds =
        StatusBounds { asked: 100, room: 1000, req_one: false, compact: true, count: 8 };

    fn run(pairs: &[(u64, u64)], bounds: StatusBounds) -> Vec<(u64, u64)> {
        let extents: Vec<Extent> =
            pairs.iter().map(|&(len, flags)| Extent { len, flags }).collect();
        fit(&extents, bounds).iter().map(|e| (e.len, e.flags)).collect()
    }

    #[test]
    fn neighbours_join_and_only_the_last_reaches_beyond() {
        assert_eq!(run(&[(10, 0), (0, 3), (20, 0), (200, 3), (5, 0)], BOUNDS), [(30, 0), (200, 3)]);
        assert_eq!(run(&[(5000, 3)], BOUNDS), [(1000, 3)]);
    }

    #[test]
    fn one_extent_is_not_longer_than_asked() {
        let one = StatusBounds { req_one: true, ..BOUNDS };
        assert_eq!(run(&[(40, 1), (900, 1)], one), [(100, 1)]);
        assert_eq!(run(&[(40, 1), (900, 0)], one), [(40, 1)]);
    }

    #[test]
    fn counts_and_32_bit_lengths_are_kept() {
        let few = StatusBounds { count: 2, ..BOUNDS };
        assert_eq!(run(&[(1, 0), (1, 1), (1, 0)], few), [(1, 0), (1, 1)]);
        let wide = StatusBounds { asked: u64::MAX, room: u64::MAX, ..BOUNDS };
        assert_eq!(run(&[(1 << 40, 0), (1, 1)], wide), [(COMPACT_EXTENT_MAX, 0)]);
        let extended = StatusBounds { compact: false, ..wide };
        assert_eq!(run(&[(1 << 40, 0), (1, 1)], extended), [(1 << 40, 0), (1, 1)]);
    }

    #[test]
    fn messages_are_clipped_between_characters() {
        let long = "\u{e9}".repeat(3000);
        assert_eq!(clipped(&long).len(), MAX_STRING);
        let odd = format!("x{long}");
        assert_eq!(clipped(&odd).len(), MAX_STRING - 1);
    }
}
