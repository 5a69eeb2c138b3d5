//! The wire form of a grain set, in chunks of bounded size (`docs/formats/grain-map.md`).
//!
//! A page travels in the smallest of three forms: full, runs, raw. The decoder believes nothing: it
//! takes pages only in ascending order, only grains inside the geometry, and checks the number of
//! grains with every chunk. What it allocates is bounded by the geometry, never by what a chunk says.

use super::page::{PAGE_GRAINS, PAGE_WORDS, Page};
use super::{Bits, GrainSet};
use crate::{Error, Geometry, VolumeId};

const VERSION: u8 = 1;
const FLAG_LAST: u8 = 1;
const HEADER_BYTES: usize = 16;
const KIND_FULL: u8 = 1;
const KIND_RUNS: u8 = 2;
const KIND_RAW: u8 = 3;
const RAW_BYTES: usize = PAGE_WORDS * 8;
/// A chunk always has room for one raw page, whatever the caller asks.
const MIN_CHUNK_BYTES: usize = HEADER_BYTES + 32 + RAW_BYTES;

/// Where the next chunk of a set begins; starts at its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkCursor {
    volume: u16,
    page: u64,
    number: u32,
    grains: u64,
}

impl GrainSet {
    /// The wire form: chunks of at most `max_bytes_per_chunk` (or 4 KiB and a bit, if that is more).
    /// An empty set is one chunk.
    pub fn encode_pages(&self, max_bytes_per_chunk: usize) -> Vec<Vec<u8>> {
        let mut chunks = Vec::new();
        let mut cursor = Some(ChunkCursor::default());
        while let Some(at) = cursor {
            let (chunk, next) = self.encode_chunk(at, max_bytes_per_chunk);
            chunks.push(chunk);
            cursor = next;
        }
        chunks
    }

    /// One chunk of the wire form, and where the next begins (`None` after the last): for senders
    /// that do not want all of a large set in memory twice. The set must not change in between.
    pub fn encode_chunk(
        &self,
        from: ChunkCursor,
        max_bytes: usize,
    ) -> (Vec<u8>, Option<ChunkCursor>) {
        let limit = max_bytes.max(MIN_CHUNK_BYTES);
        let mut next = ChunkCursor { number: from.number.wrapping_add(1), ..from };
        let mut chunk = vec![0; HEADER_BYTES];
        let mut more = false;
        let mut entry = Vec::with_capacity(RAW_BYTES + 32);
        'volumes: for (volume, bits) in self.volumes.range(VolumeId(from.volume)..) {
            let mut at = if volume.0 == from.volume { from.page } else { 0 };
            while let Some((number, page)) = bits.pages().range(at..).next() {
                entry.clear();
                let pages = encode_entry(&mut entry, *volume, *number, page, bits);
                if chunk.len() + entry.len() > limit {
                    (next.volume, next.page, more) = (volume.0, *number, true);
                    break 'volumes;
                }
                chunk.extend_from_slice(&entry);
                next.grains += if pages > 1 { pages * PAGE_GRAINS } else { page.count() };
                at = number + pages;
            }
        }
        chunk[0] = VERSION;
        chunk[1] = if more { 0 } else { FLAG_LAST };
        chunk[4..8].copy_from_slice(&from.number.to_le_bytes());
        chunk[8..16].copy_from_slice(&next.grains.to_le_bytes());
        (chunk, more.then_some(next))
    }
}

/// Writes the entry that begins with page `number`; how many pages it holds.
fn encode_entry(out: &mut Vec<u8>, volume: VolumeId, number: u64, page: &Page, bits: &Bits) -> u64 {
    let head = |out: &mut Vec<u8>, kind| {
        out.push(kind);
        out.extend_from_slice(&volume.0.to_le_bytes());
        put_varint(out, number);
    };
    let Some(words) = page.words() else {
        let mut pages = 0;
        for (at, page) in bits.pages().range(number..) {
            if *at != number + pages || page.words().is_some() {
                break;
            }
            pages += 1;
        }
        head(out, KIND_FULL);
        put_varint(out, pages);
        return pages;
    };
    head(out, KIND_RUNS);
    let head_bytes = out.len();
    out.extend_from_slice(&[0; 2]);
    let mut at = 0;
    while let Some(first) = page.next_one(at) {
        let end = page.next_zero(first).unwrap_or(PAGE_GRAINS as usize);
        put_varint(out, (first - at) as u64);
        put_varint(out, (end - first) as u64);
        at = end;
        if out.len() - head_bytes >= RAW_BYTES {
            break;
        }
    }
    let runs_bytes = out.len() - head_bytes - 2;
    if runs_bytes + 2 < RAW_BYTES {
        out[head_bytes..head_bytes + 2].copy_from_slice(&(runs_bytes as u16).to_le_bytes());
        return 1;
    }
    out.clear();
    head(out, KIND_RAW);
    for word in words {
        out.extend_from_slice(&word.to_le_bytes());
    }
    1
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Puts a set together from its chunks, in their order.
#[derive(Debug, Default)]
pub struct GrainSetDecoder {
    set: GrainSet,
    chunks: u32,
    /// One past the last page taken: volume and page.
    past: (u16, u64),
    last_seen: bool,
}

impl GrainSetDecoder {
    /// Nothing decoded yet.
    pub fn new() -> GrainSetDecoder {
        GrainSetDecoder::default()
    }

    /// Takes the next chunk; true if it was the last. After an error the decoder is of no use.
    pub fn decode_chunk(&mut self, chunk: &[u8], geometry: &Geometry) -> Result<bool, Error> {
        let mut input = Input { bytes: chunk, offset: 0 };
        if self.last_seen {
            return Err(input.error("flags", "a chunk after the last one"));
        }
        let grains = self.header(&mut input)?;
        while input.offset < chunk.len() {
            self.entry(&mut input, geometry)?;
        }
        if self.set.len() != grains {
            return Err(Input { bytes: chunk, offset: 8 }.error("grains", "is not their number"));
        }
        Ok(self.last_seen)
    }

    /// The set, once the last chunk is in.
    pub fn finish(self) -> Result<GrainSet, Error> {
        match self.last_seen {
            true => Ok(self.set),
            false => {
                Err(Error::Map { field: "flags", offset: 1, problem: "the last chunk is missing" })
            }
        }
    }

    fn header(&mut self, input: &mut Input) -> Result<u64, Error> {
        if input.array("version")? != [VERSION] {
            return Err(input.error("version", "is unknown"));
        }
        let [flags, r0, r1] = input.array("flags")?;
        if flags & !FLAG_LAST != 0 || r0 != 0 || r1 != 0 {
            return Err(input.error("flags", "reserved bits are set"));
        }
        if u32::from_le_bytes(input.array("number")?) != self.chunks {
            return Err(input.error("number", "is not that of the next chunk"));
        }
        self.chunks = self.chunks.wrapping_add(1);
        self.last_seen = flags & FLAG_LAST != 0;
        Ok(u64::from_le_bytes(input.array("grains")?))
    }

    fn entry(&mut self, input: &mut Input, geometry: &Geometry) -> Result<(), Error> {
        let [kind] = input.array("kind")?;
        let volume = u16::from_le_bytes(input.array("volume")?);
        let grains = geometry.grains(VolumeId(volume));
        let number = input.varint("page")?;
        if (volume, number) < self.past {
            return Err(input.error("page", "is not in ascending order"));
        }
        // How many grains of this page exist; a page outside the volume has none.
        let inside = number.checked_mul(PAGE_GRAINS).and_then(|base| grains.checked_sub(base));
        let Some(inside) = inside.filter(|n| *n > 0) else {
            return Err(input.error("page", "lies outside the volume"));
        };
        let mut pages = 1;
        let bits = self.set.volumes.entry(VolumeId(volume)).or_default();
        let before = bits.len();
        match kind {
            KIND_FULL => {
                pages = input.varint("pages")?;
                if pages == 0 || pages > inside / PAGE_GRAINS {
                    return Err(input.error("pages", "reach outside the volume"));
                }
                (number..number + pages).for_each(|n| bits.put_page(n, Page::Full));
            }
            KIND_RUNS => bits.put_page(number, runs(input, inside)?),
            KIND_RAW => bits.put_page(number, raw(input, inside)?),
            _ => return Err(input.error("kind", "is unknown")),
        }
        self.set.len += bits.len() - before;
        self.past = (volume, number + pages);
        Ok(())
    }
}

fn runs(input: &mut Input, inside: u64) -> Result<Page, Error> {
    let len = u16::from_le_bytes(input.array("runs length")?);
    let end = input.offset + usize::from(len);
    let mut page = Page::empty();
    let mut at = 0;
    while input.offset < end {
        let gap = input.varint("run gap")?;
        let count = input.varint("run length")?;
        if count == 0 || (gap == 0 && at > 0) {
            return Err(input.error("run length", "is not that of a maximal run"));
        }
        let from = gap.checked_add(at);
        let to = from.and_then(|from| from.checked_add(count));
        let (Some(from), Some(to)) = (from, to.filter(|to| *to <= inside.min(PAGE_GRAINS))) else {
            return Err(input.error("run length", "reaches outside the volume or page"));
        };
        page.insert_range(from as usize..to as usize);
        at = to;
    }
    if input.offset != end || page.count() == 0 {
        return Err(input.error("runs length", "does not fit the runs"));
    }
    Ok(page)
}

fn raw(input: &mut Input, inside: u64) -> Result<Page, Error> {
    let mut words = [0; PAGE_WORDS];
    for word in &mut words {
        *word = u64::from_le_bytes(input.array("raw page")?);
    }
    let page = Page::from_words(words);
    if page.count() == 0 {
        return Err(input.error("raw page", "is empty"));
    }
    if inside < PAGE_GRAINS && page.next_one(inside as usize).is_some() {
        return Err(input.error("raw page", "has grains outside the volume"));
    }
    Ok(page)
}

/// Foreign bytes, read front to back.
struct Input<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Input<'_> {
    fn error(&self, field: &'static str, problem: &'static str) -> Error {
        Error::Map { field, offset: self.offset, problem }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        let bytes = self.bytes.get(self.offset..).and_then(|rest| rest.first_chunk());
        let bytes = *bytes.ok_or_else(|| self.error(field, "is cut off"))?;
        self.offset += N;
        Ok(bytes)
    }

    /// A little-endian base-128 number in its shortest form.
    fn varint(&mut self, field: &'static str) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array(field)?;
            let part = u64::from(byte & 0x7f);
            if (shift == 63 && part > 1) || (byte == 0 && shift > 0) {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(field, "is not a number in its shortest form"))
    }
}
