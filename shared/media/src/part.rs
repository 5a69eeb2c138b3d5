//! `PART-001.ghp`: what is on one medium, one entry appended as each segment becomes durable.
//!
//! It says which segments are finished (a dump that was interrupted goes on from there) and keeps a
//! second copy of every index. Each entry is a sealed frame with the facts of a segment, its index,
//! and the source's signature over the facts, so that a resumed dump never signs for what somebody
//! else put on the disk meanwhile.
//!
//! Header, 80 bytes: magic, version u32, flags u16, header length u16, set 16, salt 32, medium u16,
//! reserved 10, crc32c. Body of an entry: length of the facts u64, facts, signature 64, index.

use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File, OpenMode};
use grain::SetId;
use wire::{Identity, Signature, SiteKeys};

use crate::directory::{SegmentFacts, decode_block};
use crate::error::MediaError;
use crate::fields::{BadField, Fields};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::index::Index;
use crate::scan::{FoundFrame, find_frames};
use crate::seal::{Domain, FileRole, SALT_BYTES, Sealer, SetKey, TAG_BYTES, frame_marker};
use crate::segment::{VERSION, check_crc, check_magic, check_version, put_crc};

const HEADER_BYTES: usize = 80;
const MAGIC: [u8; 8] = *b"GHPART01";
const SIGNATURE_DOMAIN: &str = "media segment";

/// What the signature of an entry covers.
fn signed_bytes(set: SetId, facts: &[u8]) -> Vec<u8> {
    [&set.to_bytes()[..], facts].concat()
}

/// A part directory being written.
pub(crate) struct PartWriter {
    file: Rc<dyn File>,
    path: std::path::PathBuf,
    set: SetId,
    sealer: Sealer,
    marker: [u8; 8],
    entries: u32,
    end: u64,
    hasher: blake3::Hasher,
}

impl PartWriter {
    /// Makes a new, durable, empty file at `path`; its name is not yet synced.
    pub(crate) async fn create(
        ctx: &Context,
        path: &Path,
        set: SetId,
        medium: u16,
        key: Option<&SetKey>,
    ) -> Result<PartWriter, MediaError> {
        let salt: [u8; SALT_BYTES] = ctx.random();
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..14].copy_from_slice(&u16::from(key.is_some()).to_le_bytes());
        header[14..16].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        header[16..32].copy_from_slice(&set.to_bytes());
        header[32..64].copy_from_slice(&salt);
        header[64..66].copy_from_slice(&medium.to_le_bytes());
        put_crc(&mut header);
        let io = |e| MediaError::io(path, "creating the part directory")(e);
        let file = ctx.storage.open(path, OpenMode::CreateNew).await.map_err(io)?;
        file.write_at(0, Bytes::copy_from_slice(&header)).await.map_err(io)?;
        file.sync_data().await.map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        Ok(PartWriter {
            file,
            path: path.to_owned(),
            set,
            sealer: Sealer::new(key, set, FileRole::Part(medium), &salt),
            marker: frame_marker(&salt),
            entries: 0,
            end: HEADER_BYTES as u64,
            hasher,
        })
    }

    /// Appends the entry of a segment that is durable; it counts from the return of this call on.
    pub(crate) async fn append(
        &mut self,
        facts: &SegmentFacts,
        index: &[u8],
        keys: &SiteKeys,
    ) -> Result<(), MediaError> {
        let encoded = wire::codec::encode(facts).map_err(|e| MediaError::Bug(e.to_string()))?;
        let signature = keys.sign(SIGNATURE_DOMAIN, &signed_bytes(self.set, &encoded));
        let body_len = 8 + encoded.len() + Signature::BYTES + index.len() + TAG_BYTES;
        let number = self.entries;
        let header = FrameHeader { kind: FrameKind::PartEntry, number, body_len: body_len as u32 };
        let header = header.encode(self.marker);
        let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body_len);
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&(encoded.len() as u64).to_le_bytes());
        frame.extend_from_slice(&encoded);
        frame.extend_from_slice(&signature.to_bytes());
        frame.extend_from_slice(index);
        let body = &mut frame[FRAME_HEADER_BYTES..];
        let tag = self.sealer.seal(Domain::PartEntry, u64::from(number), &header, body);
        frame.extend_from_slice(&tag);
        self.hasher.update(&frame);
        let len = frame.len() as u64;
        let io = |e| MediaError::io(&self.path, "writing the part directory")(e);
        self.file.write_at(self.end, frame.into()).await.map_err(io)?;
        self.file.sync_data().await.map_err(io)?;
        self.end += len;
        self.entries += 1;
        Ok(())
    }

    /// Length and BLAKE3 of the file as it stands.
    pub(crate) fn length_and_hash(&self) -> (u64, [u8; 32]) {
        (self.end, *self.hasher.finalize().as_bytes())
    }
}

/// An entry out of its seal; the index matches the facts' digest.
pub(crate) struct PartEntry {
    pub(crate) facts: SegmentFacts,
    pub(crate) index: Vec<u8>,
    facts_bytes: Vec<u8>,
    signature: Signature,
}

impl PartEntry {
    /// Whether `source` signed it for `set`.
    pub(crate) fn is_signed_by(&self, source: &Identity, set: SetId) -> bool {
        let bytes = signed_bytes(set, &self.facts_bytes);
        source.verify(SIGNATURE_DOMAIN, &bytes, &self.signature).is_ok()
    }
}

/// A part directory being read, frame by frame.
pub(crate) struct PartReader {
    file: Rc<dyn File>,
    sealer: Sealer,
    marker: [u8; 8],
    frames: Vec<FoundFrame>,
}

impl PartReader {
    /// Opens the part directory at `path`.
    pub(crate) async fn open(
        ctx: &Context,
        path: &Path,
        set: SetId,
        medium: u16,
        key: Option<&SetKey>,
    ) -> Result<PartReader, MediaError> {
        let io = |e| MediaError::io(path, "reading the part directory")(e);
        let damaged = |field| MediaError::damaged(path)(field);
        let file = ctx.storage.open(path, OpenMode::Read).await.map_err(io)?;
        let len = file.len().map_err(io)?;
        let head_len = len.min(HEADER_BYTES as u64) as usize;
        let header = file.read_at(0, head_len).await.map_err(io)?;
        let salt = decode_header(&header, set, medium, key.is_some()).map_err(damaged)?;
        let marker = frame_marker(&salt);
        let found = find_frames(&file, marker, HEADER_BYTES as u64, len).await.map_err(io)?;
        let sealer = Sealer::new(key, set, FileRole::Part(medium), &salt);
        Ok(PartReader { file, sealer, marker, frames: found })
    }

    /// How many entries were found.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Entry `i`, or none if it is damaged.
    pub(crate) async fn entry(&self, i: usize) -> std::io::Result<Option<PartEntry>> {
        let Some(frame) = self.frames.get(i) else { return Ok(None) };
        let len = frame.header.frame_len() as usize;
        let mut bytes = self.file.read_at(frame.offset, len).await?;
        Ok(self.decode(&mut bytes, frame).ok())
    }

    fn decode(&self, bytes: &mut [u8], frame: &FoundFrame) -> Result<PartEntry, BadField> {
        let bad = |field, why| BadField { field, offset: frame.offset, why };
        // Read again: the file may have changed since the walk.
        let header = FrameHeader::decode(bytes, self.marker, frame.offset)?;
        if header != frame.header || header.kind != FrameKind::PartEntry {
            return Err(bad("kind", "not an entry"));
        }
        let (aad, sealed) = bytes.split_at_mut(FRAME_HEADER_BYTES);
        let plain = self.sealer.open(Domain::PartEntry, u64::from(header.number), aad, sealed);
        let plain = plain.map_err(|_| bad("entry", "does not open"))?;
        let mut fields = Fields::new(plain, frame.offset);
        let len = fields.u64("facts length")?.try_into();
        let facts_bytes =
            fields.slice(len.map_err(|_| bad("facts length", "too long"))?, "facts")?;
        let signature = Signature::from_bytes(fields.array("signature")?);
        let facts: SegmentFacts =
            decode_block(facts_bytes).ok_or(bad("facts", "does not decode"))?;
        let index = fields.rest().to_vec();
        if Index::digest(&index) != facts.index_digest {
            return Err(bad("index", "not the one of the facts"));
        }
        Ok(PartEntry { facts, index, facts_bytes: facts_bytes.to_vec(), signature })
    }
}

fn decode_header(
    bytes: &[u8],
    set: SetId,
    medium: u16,
    sealed: bool,
) -> Result<[u8; SALT_BYTES], BadField> {
    let whole = Fields::new(bytes, 0).array::<HEADER_BYTES>("part header")?;
    let mut fields = Fields::new(&whole, 0);
    check_magic(&mut fields, MAGIC)?;
    check_crc(&whole, 0)?;
    check_version(&mut fields)?;
    let bad = fields.bad("flags", "not those of this set");
    if fields.u16("flags")? != u16::from(sealed) {
        return Err(bad);
    }
    let bad = fields.bad("header length", "not 80");
    if usize::from(fields.u16("header length")?) != HEADER_BYTES {
        return Err(bad);
    }
    let bad = fields.bad("set", "another set");
    if SetId::from_bytes(fields.array("set")?) != set {
        return Err(bad);
    }
    let salt = fields.array("salt")?;
    let bad = fields.bad("medium", "another medium");
    if fields.u16("medium")? != medium {
        return Err(bad);
    }
    fields.zeros(10, "reserved")?;
    Ok(salt)
}
