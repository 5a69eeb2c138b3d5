//! The sorted index of a sealed segment: entries in blocks, and what stays of it in memory.

use disk::Context;
use grain::{Geometry, GrainSet, Span, VolumeId};

use crate::codec::{Reader, Writer, crc_of};
use crate::layout::{Nonce, is_possible_counter};

use super::layout::{Tally, is_possible_life};
use super::record::{Kind, RecordHeader};
use super::{MAX_RECORD_BYTES, MAX_ZERO_BYTES, Moment};

/// Bytes of a block, and what the index section begins at a multiple of.
pub(super) const BLOCK: u64 = 4096;
const ENTRY: usize = 40;
const BLOCK_HEAD: usize = 16;
/// Entries of a block.
pub(super) const PER_BLOCK: usize = (BLOCK as usize - BLOCK_HEAD) / ENTRY;
const FENCE: u64 = 10;
/// Bytes of the head, in a block of its own.
pub(super) const HEAD_LEN: usize = 160;
const HEAD_MAGIC: u32 = u32::from_le_bytes(*b"GHUI");
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"GHUB");
/// The longest part of the set of touched grains.
const CHUNK: usize = 64 << 10;

/// Saved bytes of a record, and where the record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub volume: VolumeId,
    pub start: u64,
    pub bytes: u32,
    pub zero: bool,
    pub commit: u64,
    pub split: u32,
    pub life: u32,
    pub offset: u64,
}

/// Which of two records with the same byte was saved earlier: the lower one.
pub(super) type Rank = (Moment, u32, u32, u64, u64);

impl Entry {
    pub(super) fn of(header: &RecordHeader) -> Entry {
        Entry {
            volume: header.span.volume,
            start: header.span.start,
            bytes: header.span.bytes as u32,
            zero: header.kind == Kind::SavedZero,
            commit: header.commit,
            split: header.split,
            life: header.life,
            offset: header.offset,
        }
    }

    pub(super) fn span(&self) -> Span {
        Span { volume: self.volume, start: self.start, bytes: u64::from(self.bytes) }
    }

    /// The moment as this life sees it: the looks of earlier lives are over.
    pub(super) fn moment(&self, life: u32) -> Moment {
        Moment { commit: self.commit, split: if self.life == life { self.split } else { 0 } }
    }

    pub(super) fn rank(&self, life: u32, segment: u64) -> Rank {
        (self.moment(life), self.life, self.split, segment, self.offset)
    }

    /// The order of the index.
    pub(super) fn key(&self) -> (VolumeId, u64, u64, u32, u32, u64) {
        (self.volume, self.start, self.commit, self.life, self.split, self.offset)
    }

    fn encode(&self, w: &mut Writer) {
        w.u16(self.volume.0).u8(u8::from(self.zero)).u8(0).u32(self.bytes).u64(self.start);
        w.u64(self.commit).u32(self.split).u32(self.life).u64(self.offset);
    }

    fn decode(r: &mut Reader<'_>) -> Option<Entry> {
        let (volume, zero, _, bytes) = (VolumeId(r.u16()?), r.u8()? != 0, r.u8()?, r.u32()?);
        let (start, commit, split, life) = (r.u64()?, r.u64()?, r.u32()?, r.u32()?);
        let offset = r.u64()?;
        let sound = bytes > 0
            && u64::from(bytes) <= if zero { MAX_ZERO_BYTES } else { MAX_RECORD_BYTES }
            && is_possible_counter(start)
            && is_possible_counter(commit)
            && is_possible_counter(offset);
        sound.then_some(Entry { volume, start, bytes, zero, commit, split, life, offset })
    }
}

/// What is known of a segment's saved bytes without its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub entries: u64,
    /// The lowest and highest commit; meaningless without entries.
    pub least: u64,
    pub most: u64,
    /// Bytes of the longest.
    pub longest: u64,
    pub touched: GrainSet,
}

impl Summary {
    pub(super) fn add(&mut self, entry: &Entry, geometry: &Geometry) {
        if self.entries == 0 {
            (self.least, self.most) = (entry.commit, entry.commit);
        }
        self.entries += 1;
        self.least = self.least.min(entry.commit);
        self.most = self.most.max(entry.commit);
        self.longest = self.longest.max(u64::from(entry.bytes));
        self.touched.insert_run(geometry.touched_by(entry.span()));
    }

    pub(super) fn of(entries: &[Entry], geometry: &Geometry) -> Summary {
        let mut summary = Summary::default();
        entries.iter().for_each(|entry| summary.add(entry, geometry));
        summary
    }

    /// Whether some record may be at or after `moment` and in `span`.
    pub(super) fn may_have(&self, moment: Moment, span: Span, geometry: &Geometry) -> bool {
        let later = self.entries > 0 && self.most >= moment.commit;
        later && self.touched.intersects(geometry.touched_by(span))
    }
}

/// The head of an index: tells where the rest is, and what the segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub records_end: u64,
    pub entries: u64,
    pub body_bytes: u64,
    pub least: u64,
    pub most: u64,
    pub longest: u64,
    pub before: Tally,
    pub after: Tally,
    pub digest: [u8; 32],
    pub life: u32,
}

/// Where the index of a segment begins whose records end at `end`.
pub(super) fn place(end: u64) -> u64 {
    end.next_multiple_of(BLOCK)
}

impl Head {
    pub(super) fn blocks(&self) -> u64 {
        self.entries.div_ceil(PER_BLOCK as u64)
    }

    /// Where block `number` stands.
    pub(super) fn block_at(&self, number: u64) -> u64 {
        place(self.records_end) + BLOCK * (1 + number)
    }

    pub(super) fn body_at(&self) -> u64 {
        self.block_at(self.blocks())
    }

    pub(super) fn encode(&self, nonce: &Nonce) -> Vec<u8> {
        let mut w = Writer::with_capacity(BLOCK as usize);
        w.u32(HEAD_MAGIC).u32(0).u64(self.records_end).u64(self.entries).u64(self.blocks());
        w.u64(self.body_bytes).u64(self.least).u64(self.most).u64(self.longest);
        w.u64(self.before.reach).u64(self.before.controls);
        w.u64(self.after.reach).u64(self.after.controls);
        w.bytes(&self.digest).u32(self.life).pad_to(HEAD_LEN);
        let mut bytes = w.finish();
        let crc = crc_of(&[nonce, &bytes]).to_le_bytes();
        bytes[4..8].copy_from_slice(&crc);
        bytes.resize(BLOCK as usize, 0);
        bytes
    }

    /// The head of the index of a segment whose records end at `end`, in a file of `len` bytes.
    pub(super) fn decode(bytes: &[u8], nonce: &Nonce, end: u64, len: u64) -> Option<Head> {
        let bytes = bytes.get(..HEAD_LEN)?;
        let mut r = Reader::new(bytes);
        if r.u32()? != HEAD_MAGIC {
            return None;
        }
        if r.u32()? != crc_of(&[nonce, bytes.get(..4)?, &[0; 4], bytes.get(8..)?]) {
            return None;
        }
        let (records_end, entries, blocks) = (r.u64()?, r.u64()?, r.u64()?);
        let (body_bytes, least, most, longest) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let before = Tally { reach: r.u64()?, controls: r.u64()? };
        let after = Tally { reach: r.u64()?, controls: r.u64()? };
        let (digest, life) = (r.array()?, r.u32()?);
        let counters = [records_end, entries, blocks, body_bytes, least, most];
        let possible = counters.into_iter().all(is_possible_counter)
            && before.is_possible()
            && after.is_possible();
        let head = Head {
            records_end,
            entries,
            body_bytes,
            least,
            most,
            longest,
            before,
            after,
            digest,
            life,
        };
        let sound = possible
            && is_possible_life(life)
            && records_end == end
            && longest <= MAX_ZERO_BYTES
            // Each entry has a record.
            && entries <= end / 128
            && blocks == head.blocks()
            && head.body_at().checked_add(body_bytes)? <= len;
        sound.then_some(head)
    }
}

/// The entries of one block.
pub(super) fn encode_block(entries: &[Entry], number: u64, nonce: &Nonce) -> Vec<u8> {
    let mut w = Writer::with_capacity(BLOCK as usize);
    w.u32(BLOCK_MAGIC).u32(0).u32(entries.len() as u32).u32(0);
    entries.iter().for_each(|entry| entry.encode(&mut w));
    w.pad_to(BLOCK as usize);
    let mut bytes = w.finish();
    let crc = crc_of(&[nonce, &number.to_le_bytes(), &bytes]).to_le_bytes();
    bytes[4..8].copy_from_slice(&crc);
    bytes
}

/// See [`encode_block`].
pub(super) fn decode_block(bytes: &[u8], number: u64, nonce: &Nonce) -> Option<Vec<Entry>> {
    let mut r = Reader::new(bytes);
    if bytes.len() as u64 != BLOCK || r.u32()? != BLOCK_MAGIC {
        return None;
    }
    let pieces: [&[u8]; 5] =
        [nonce, &number.to_le_bytes(), bytes.get(..4)?, &[0; 4], bytes.get(8..)?];
    if r.u32()? != crc_of(&pieces) {
        return None;
    }
    let (count, _) = (r.u32()? as usize, r.u32()?);
    if count > PER_BLOCK {
        return None;
    }
    (0..count).map(|_| Entry::decode(&mut r)).collect()
}

/// What stands after the blocks: the first key of each block, the events of the segment as their records
/// are, and the grains that its saved bytes touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    pub fences: Vec<(VolumeId, u64)>,
    /// Header and payload of each.
    pub events: Vec<Vec<u8>>,
    pub touched: GrainSet,
}

impl Body {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        for (volume, start) in &self.fences {
            w.u16(volume.0).u64(*start);
        }
        for parts in [&self.events, &self.touched.encode_pages(CHUNK)] {
            w.u32(parts.len() as u32);
            for part in parts {
                w.u32(part.len() as u32).bytes(part);
            }
        }
        w.finish()
    }

    pub(super) fn decode(bytes: &[u8], blocks: u64, geometry: &Geometry) -> Option<Body> {
        if blocks.checked_mul(FENCE)? > bytes.len() as u64 {
            return None;
        }
        let mut r = Reader::new(bytes);
        let mut body = Body::default();
        for _ in 0..blocks {
            body.fences.push((VolumeId(r.u16()?), r.u64()?));
        }
        if !body.fences.is_sorted() {
            return None;
        }
        for _ in 0..r.u32()? {
            let len = r.u32()? as usize;
            body.events.push(r.bytes(len)?.to_vec());
        }
        let mut decoder = grain::GrainSetDecoder::new();
        for _ in 0..r.u32()? {
            let len = r.u32()? as usize;
            decoder.decode_chunk(r.bytes(len)?, geometry).ok()?;
        }
        body.touched = decoder.finish().ok()?;
        r.is_empty().then_some(body)
    }

    /// BLAKE3 of the encoded form, in the pool when it is long.
    pub(super) async fn digest(ctx: &Context, encoded: &bytes::Bytes) -> [u8; 32] {
        crate::segment::digest_of(ctx, encoded).await
    }
}
