//! `DIRECTORY.ghd`: the signed statement of what a set is. `docs/formats/media-directory.md`.
//!
//! ```text
//! | header 96 | manifest (plain) | facts and segments (sealed) | signature 64 |
//! ```
//!
//! The signature of the source covers every byte before it, sealed or not, so that a carrier can
//! verify manifest and file hashes without a key. It is on every medium, and written last: a set
//! without it is not complete.

use grain::fingerprint::{Fingerprint, FingerprintPlan, FingerprintSum};
use grain::{CutId, Geometry, GrainSet, RelationshipId, SetId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wire::{Identity, Signature, SiteKeys};

use crate::fields::{BadField, Fields};
use crate::plan::{CutFacts, check_geometry};
use crate::root_digest::RootSum;
use crate::runs;
use crate::seal::{Domain, FileRole, SALT_BYTES, Sealer, SetKey};
use crate::segment::{Stripe, VERSION, check_crc, check_magic, check_version, put_crc};

/// The largest directory that is read, in bytes.
pub const MAX_DIRECTORY_BYTES: u64 = 1 << 30;
/// The domain of the directory's signature.
const SIGNATURE_DOMAIN: &str = "media directory";
const HEADER_BYTES: usize = 96;
const MAGIC: [u8; 8] = *b"GHDIRECT";
const FLAG_SEALED: u16 = 1;

/// A file of the set, as signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// On which medium, from 1.
    pub medium: u16,
    /// Its name there.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// The plain part of a directory: enough to check the disks without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which set.
    pub set: SetId,
    /// Which relationship.
    pub relationship: RelationshipId,
    /// Who signs.
    pub source: Identity,
    /// How many media.
    pub media: u16,
    /// See [`Label::generation`](crate::Label::generation).
    pub generation: u32,
    /// When the set was begun, milliseconds since 1970, UTC.
    pub created_unix_ms: u64,
    /// When it was signed.
    pub signed_unix_ms: u64,
    /// Every file of every medium but the directory itself and the hash list.
    pub files: Vec<ManifestFile>,
}

/// What a set holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetFacts {
    /// Grain size and volumes.
    pub geometry: Geometry,
    /// The cut.
    pub cut: CutFacts,
    /// The cut that the receiver must hold already; none for a full copy.
    pub basis: Option<CutId>,
    /// Set when the copy is fuzzy: consistent only from this cut on.
    pub fuzzy_end: Option<CutId>,
    /// The root digest, see [`RootSum`].
    pub root_digest: [u8; 32],
    /// The fingerprint of this generation, over the sampled chunks of the grains in the set; its plan
    /// is that of the cut.
    pub fingerprint: Fingerprint,
    /// Grains in the set, zero ones included.
    pub grains: u64,
    /// Of them, not zero.
    pub data_grains: u64,
    /// Grains that the source could not read, in the form of [`runs`].
    pub(crate) unreadable: Vec<u8>,
}

/// A finished segment, as signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentFacts {
    /// Its number in the set.
    pub number: u64,
    /// The medium that holds it, from 1.
    pub medium: u16,
    /// Length of the file in bytes.
    pub file_len: u64,
    /// BLAKE3 of the file.
    pub file_hash: [u8; 32],
    /// The salt of its header, from which its key follows.
    pub salt: [u8; 32],
    /// Its place in a parity stripe.
    pub stripe: Stripe,
    /// Where its index begins in the file.
    pub index_offset: u64,
    /// Length of the index frame in bytes.
    pub index_len: u32,
    /// Digest of the index in plain: the link from signature to grain digests.
    pub index_digest: [u8; 32],
    /// Records in it.
    pub records: u32,
    /// Grains that are not zero.
    pub data_grains: u64,
    /// Which grains it holds, in the form of [`runs`].
    pub(crate) grains: Vec<u8>,
    /// The [`RootSum`] of its grains.
    pub(crate) sum: Vec<u8>,
    /// What its grains add to the fingerprint of the set.
    pub fingerprint: FingerprintSum,
}

impl SegmentFacts {
    /// Which grains it holds.
    pub fn grain_set(&self, geometry: &Geometry) -> Result<GrainSet, BadField> {
        runs::decode(&self.grains, geometry)
    }

    /// The sum over its non-zero grains.
    pub fn root_sum(&self) -> Result<RootSum, BadField> {
        RootSum::from_bytes(&self.sum)
    }
}

impl SetFacts {
    /// Grains that the source could not read.
    pub fn unreadable(&self) -> Result<GrainSet, BadField> {
        runs::decode(&self.unreadable, &self.geometry)
    }

    /// Facts of a set without counts yet.
    pub(crate) fn new(geometry: Geometry, cut: CutFacts, basis: Option<CutId>) -> Self {
        let plan = FingerprintPlan::of_cut(&geometry, cut.cut);
        SetFacts {
            fingerprint: plan.so_far(&FingerprintSum::new()),
            geometry,
            cut,
            basis,
            fuzzy_end: None,
            root_digest: [0; 32],
            grains: 0,
            data_grains: 0,
            unreadable: runs::encode(&GrainSet::new()),
        }
    }
}

/// A directory with both its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// The plain part.
    pub manifest: Manifest,
    /// What the set holds.
    pub facts: SetFacts,
    /// Its segments, by number.
    pub segments: Vec<SegmentFacts>,
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    wire::codec::encode(value).map_err(|e| e.to_string())
}

fn put_block<T: Serialize>(out: &mut Vec<u8>, value: &T) -> Result<(), String> {
    let block = encode(value)?;
    out.extend_from_slice(&(block.len() as u64).to_le_bytes());
    out.extend_from_slice(&block);
    Ok(())
}

fn take_block<T: DeserializeOwned>(
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Result<T, BadField> {
    let bad = fields.bad(name, "does not decode");
    let len = usize::try_from(fields.u64(name)?).map_err(|_| bad)?;
    decode_block(fields.slice(len, name)?).ok_or(bad)
}

pub(crate) fn decode_block<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    wire::codec::decode(bytes, wire::codec::MAX_BYTES).ok()
}

impl Directory {
    /// The whole file, sealed under `salt` and signed.
    pub(crate) fn encode(
        &self,
        key: Option<&SetKey>,
        salt: &[u8; SALT_BYTES],
        keys: &SiteKeys,
    ) -> Result<Vec<u8>, String> {
        let manifest = encode(&self.manifest)?;
        let mut body = Vec::new();
        put_block(&mut body, &self.facts)?;
        body.extend_from_slice(&(self.segments.len() as u64).to_le_bytes());
        for segment in &self.segments {
            put_block(&mut body, segment)?;
        }
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let flags = if key.is_some() { FLAG_SEALED } else { 0 };
        header[12..14].copy_from_slice(&flags.to_le_bytes());
        header[14..16].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        header[16..32].copy_from_slice(&self.manifest.set.to_bytes());
        header[32..64].copy_from_slice(salt);
        header[64..72].copy_from_slice(&(manifest.len() as u64).to_le_bytes());
        let body_len = body.len() + crate::seal::TAG_BYTES;
        header[72..80].copy_from_slice(&(body_len as u64).to_le_bytes());
        put_crc(&mut header);
        let sealer = Sealer::new(key, self.manifest.set, FileRole::Directory, salt);
        let tag = sealer.seal(Domain::Directory, 0, &header, &mut body);
        let mut file = header.to_vec();
        for part in [&manifest[..], &body, &tag] {
            file.extend_from_slice(part);
        }
        let signature = keys.sign(SIGNATURE_DOMAIN, &file);
        file.extend_from_slice(&signature.to_bytes());
        Ok(file)
    }
}

/// A directory whose signature was verified against the source that it names; its sealed part may
/// still be closed.
#[derive(Clone)]
pub struct SignedDirectory {
    /// The plain part.
    pub manifest: Manifest,
    /// Whether the rest needs a key.
    pub sealed: bool,
    salt: [u8; SALT_BYTES],
    header: [u8; HEADER_BYTES],
    body: Vec<u8>,
    body_at: u64,
}

/// Why a directory was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirectoryFault {
    Field(BadField),
    /// Well formed, but the signature is not that of the named source.
    Signature,
}

impl From<BadField> for DirectoryFault {
    fn from(bad: BadField) -> Self {
        DirectoryFault::Field(bad)
    }
}

impl SignedDirectory {
    /// Reads a file and verifies its signature.
    pub(crate) fn decode(file: &[u8]) -> Result<SignedDirectory, DirectoryFault> {
        let mut fields = Fields::new(file, 0);
        let header = fields.array::<HEADER_BYTES>("directory header")?;
        let mut head = Fields::new(&header, 0);
        check_magic(&mut head, MAGIC)?;
        check_crc(&header, 0)?;
        check_version(&mut head)?;
        let bad_flags = head.bad("flags", "unknown");
        let flags = head.u16("flags")?;
        let bad_len = head.bad("header length", "not 96");
        if usize::from(head.u16("header length")?) != HEADER_BYTES {
            return Err(bad_len.into());
        }
        if flags & !FLAG_SEALED != 0 {
            return Err(bad_flags.into());
        }
        let set = SetId::from_bytes(head.array("set")?);
        let salt = head.array("salt")?;
        let bad_manifest = head.bad("manifest length", "longer than the file");
        let manifest_len = usize::try_from(head.u64("manifest length")?);
        let manifest_len = manifest_len.map_err(|_| bad_manifest)?;
        let bad_body = head.bad("body length", "longer than the file");
        let body_len = usize::try_from(head.u64("body length")?).map_err(|_| bad_body)?;
        head.zeros(12, "reserved")?;
        let plain = fields.slice(manifest_len, "manifest")?;
        let body_at = (HEADER_BYTES + manifest_len) as u64;
        let body = fields.slice(body_len, "body")?.to_vec();
        let signed_len = HEADER_BYTES + manifest_len + body_len;
        let signature = Signature::from_bytes(fields.array("signature")?);
        fields.end("signature")?;
        let field = |field, why| BadField { field, offset: HEADER_BYTES as u64, why };
        let manifest: Manifest = decode_block(plain).ok_or(field("manifest", "does not decode"))?;
        let signed = file.get(..signed_len).unwrap_or_default();
        let verdict = manifest.source.verify(SIGNATURE_DOMAIN, signed, &signature);
        verdict.map_err(|_| DirectoryFault::Signature)?;
        if manifest.set != set {
            return Err(field("set", "not the one of the header").into());
        }
        let sealed = flags & FLAG_SEALED != 0;
        Ok(SignedDirectory { manifest, sealed, salt, header, body, body_at })
    }

    /// Opens the sealed part. None when the key does not fit (the signature has already said that the
    /// bytes are whole).
    pub(crate) fn open(&self, key: Option<&SetKey>) -> Option<Result<Directory, BadField>> {
        let sealer = Sealer::new(key, self.manifest.set, FileRole::Directory, &self.salt);
        let mut body = self.body.clone();
        let plain = sealer.open(Domain::Directory, 0, &self.header, &mut body).ok()?;
        Some(self.decode_body(plain))
    }

    fn decode_body(&self, plain: &[u8]) -> Result<Directory, BadField> {
        let mut fields = Fields::new(plain, self.body_at);
        let at = fields.bad("geometry", "not valid");
        let facts: SetFacts = take_block(&mut fields, "facts")?;
        check_geometry(&facts.geometry).map_err(|_| at)?;
        facts.unreadable()?;
        let plan = FingerprintPlan::of_cut(&facts.geometry, facts.cut.cut);
        if facts.fingerprint.seed != plan.seed() || facts.fingerprint.chunks > plan.chunks() {
            return Err(BadField { field: "fingerprint", why: "not one of the cut", ..at });
        }
        let count = fields.u64("segment count")?;
        let mut segments: Vec<SegmentFacts> = Vec::new();
        for _ in 0..count {
            let bad = fields.bad("segment", "out of order or out of bounds");
            let segment: SegmentFacts = take_block(&mut fields, "segment")?;
            let after_last = segments.last().is_none_or(|last| last.number < segment.number);
            let on_a_medium = (1..=self.manifest.media).contains(&segment.medium);
            if !after_last || !on_a_medium {
                return Err(bad);
            }
            segment.grain_set(&facts.geometry)?;
            segment.root_sum()?;
            segments.push(segment);
        }
        fields.end("segments")?;
        Ok(Directory { manifest: self.manifest.clone(), facts, segments })
    }
}

#[cfg(test)]
mod tests;
