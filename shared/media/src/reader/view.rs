//! A set with its directory open: what it holds, where, and what of it is there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use disk::Context;
use grain::GrainSet;
use wire::{Envelope, EscrowKey, Identity, Opener, Passphrase, SiteKeys};

use super::damage::{Damage, Fault};
use super::segment_reader::SegmentReader;
use super::signed::{SignedSet, file_of};
use crate::directory::{Directory, SegmentFacts, SetFacts};
use crate::error::MediaError;
use crate::names;
use crate::seal::SetKey;

/// Something that may open a set.
#[derive(Clone)]
pub enum KeySource {
    /// The keys of a site.
    Site(Rc<SiteKeys>),
    /// A key of its own, as `media-tools keygen` makes it.
    Escrow(Rc<EscrowKey>),
    /// A passphrase; trying it costs seconds.
    Passphrase(Passphrase),
    /// The set key itself.
    SetKey(SetKey),
}

/// Where a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentPlace {
    /// Its medium is there, and so is the file with the signed length.
    Present,
    /// Its medium was not given.
    MediumAbsent,
    /// Its medium is there, but the file is missing or has another length.
    Damaged(Fault),
}

/// A segment of the set.
#[derive(Clone, Debug)]
pub struct SegmentStatus {
    /// Its number.
    pub number: u64,
    /// Its medium, from 1.
    pub medium: u16,
    /// Its path, if its medium is there.
    pub path: Option<PathBuf>,
    /// Where it is.
    pub place: SegmentPlace,
}

/// What readers of one set share.
pub(super) struct Inner {
    pub(super) signed: SignedSet,
    pub(super) directory: Directory,
    pub(super) key: Option<SetKey>,
}

/// An open set. Cheap to clone; readers of several segments run side by side.
#[derive(Clone)]
pub struct SetView {
    inner: Rc<Inner>,
}

impl SetView {
    /// Opens the media at `dirs` (see [`SignedSet::open`]) and unlocks the set with the first of
    /// `keys` that fits.
    pub async fn open(
        ctx: &Context,
        dirs: &[PathBuf],
        keys: &[KeySource],
        expected: Option<&Identity>,
    ) -> Result<SetView, MediaError> {
        let signed = SignedSet::open(ctx, dirs, expected).await?;
        SetView::unlock(signed, keys).await
    }

    /// Unlocks a set.
    pub async fn unlock(mut signed: SignedSet, keys: &[KeySource]) -> Result<SetView, MediaError> {
        let key = if signed.sealed() { Some(find_key(&mut signed, keys).await?) } else { None };
        let dir = signed.media.first().map(|medium| medium.dir.clone()).unwrap_or_default();
        let path = dir.join(names::DIRECTORY);
        let (copy, opener) = (signed.directory.clone(), key.clone());
        let opened = signed.ctx.offload(move || copy.open(opener.as_ref())).await;
        let Some(opened) = opened else {
            let why = "the key is not the one that this set was sealed with".into();
            return Err(MediaError::NoKey { path, why });
        };
        let directory = opened.map_err(MediaError::damaged(&path))?;
        if !agrees(&directory) {
            return Err(MediaError::NotAsSigned { path, what: "manifest and segments differ" });
        }
        Ok(SetView { inner: Rc::new(Inner { signed, directory, key }) })
    }

    /// Media, manifest, and what is wrong with labels and directories.
    pub fn signed(&self) -> &SignedSet {
        &self.inner.signed
    }

    /// The whole directory.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// Geometry, cut, digests, counts.
    pub fn facts(&self) -> &SetFacts {
        &self.inner.directory.facts
    }

    /// The set key, to wrap it for somebody else; none for an unencrypted set.
    pub fn set_key(&self) -> Option<&SetKey> {
        self.inner.key.as_ref()
    }

    /// Every segment of the set, and whether it can be read now.
    pub async fn segments(&self) -> Vec<SegmentStatus> {
        let mut all = Vec::new();
        for facts in &self.inner.directory.segments {
            let medium = self.inner.signed.medium(facts.medium);
            let path = medium.map(|medium| medium.path(&names::segment(facts.number)));
            let place = match &path {
                None => SegmentPlace::MediumAbsent,
                Some(path) => self.place(path, facts.file_len).await,
            };
            let (number, medium) = (facts.number, facts.medium);
            all.push(SegmentStatus { number, medium, path, place });
        }
        all
    }

    async fn place(&self, path: &std::path::Path, signed: u64) -> SegmentPlace {
        let opened = self.inner.signed.ctx.storage.open(path, disk::OpenMode::Read).await;
        match opened.and_then(|file| file.len()) {
            Ok(found) if found == signed => SegmentPlace::Present,
            Ok(found) => SegmentPlace::Damaged(Fault::Length { found, signed }),
            Err(e) => SegmentPlace::Damaged(super::signed::io_fault(&e)),
        }
    }

    /// All grains that the set lists.
    pub fn listed(&self) -> GrainSet {
        self.grains_where(|_| true)
    }

    /// The grains listed on one medium, whether or not it is there.
    pub fn listed_on(&self, medium: u16) -> GrainSet {
        self.grains_where(|facts| facts.medium == medium)
    }

    /// The grains listed on media that were not given: not loaded yet, as opposed to damaged.
    pub fn listed_on_absent(&self) -> GrainSet {
        self.grains_where(|facts| self.inner.signed.medium(facts.medium).is_none())
    }

    /// The grains of one segment; empty for an unknown number.
    pub fn grains_of(&self, segment: u64) -> GrainSet {
        let geometry = &self.inner.directory.facts.geometry;
        self.segment(segment).and_then(|facts| facts.grain_set(geometry).ok()).unwrap_or_default()
    }

    /// The facts of a segment; the directory has them in the order of their numbers.
    fn segment(&self, number: u64) -> Option<&SegmentFacts> {
        let segments = &self.inner.directory.segments;
        let found = segments.binary_search_by_key(&number, |facts| facts.number).ok()?;
        segments.get(found)
    }

    fn grains_where(&self, want: impl Fn(&SegmentFacts) -> bool) -> GrainSet {
        let directory = &self.inner.directory;
        let mut grains = GrainSet::new();
        for facts in directory.segments.iter().filter(|facts| want(facts)) {
            // Decoded once already when the directory was opened: it cannot fail now.
            if let Ok(more) = facts.grain_set(&directory.facts.geometry) {
                grains.union_with(&more);
            }
        }
        grains
    }

    /// The segments on media that are there, by medium: `(medium, numbers)`.
    pub fn present_segments(&self) -> Vec<(u16, Vec<u64>)> {
        let numbers = |medium: u16| {
            let segments = self.inner.directory.segments.iter();
            segments.filter(|facts| facts.medium == medium).map(|facts| facts.number).collect()
        };
        self.inner.signed.media.iter().map(|m| (m.number, numbers(m.number))).collect()
    }

    /// Reads one segment; none if the set has no such segment or its medium is not there.
    pub fn read_segment(&self, number: u64) -> Option<SegmentReader> {
        let facts = self.segment(number)?;
        let medium = self.inner.signed.medium(facts.medium)?;
        let path = medium.path(&names::segment(number));
        let part = medium.path(&names::part(medium.number));
        Some(SegmentReader::new(self.inner.clone(), facts.clone(), path, part))
    }
}

/// Whether the manifest lists every segment with the same length and hash.
fn agrees(directory: &Directory) -> bool {
    let files = directory.manifest.files.iter();
    let files: BTreeMap<(u16, &str), (u64, [u8; 32])> =
        files.map(|file| ((file.medium, file.name.as_str()), (file.len, file.hash))).collect();
    directory.segments.iter().all(|facts| {
        let name = names::segment(facts.number);
        files.get(&(facts.medium, name.as_str())) == Some(&(facts.file_len, facts.file_hash))
    })
}

/// The set key out of an envelope on any medium, those with the signed hash first.
async fn find_key(signed: &mut SignedSet, keys: &[KeySource]) -> Result<SetKey, MediaError> {
    let (mut whole, mut changed) = (Vec::new(), Vec::new());
    let mut path = PathBuf::new();
    let mut why = "no envelope was found on the media that are there".to_owned();
    let mut damage = Vec::new();
    for medium in &signed.media {
        path = medium.path(names::ENVELOPE);
        let limit = Envelope::MAX_BYTES as u64;
        match signed.ctx.storage.read_all(&path, limit).await {
            Ok(envelope) => {
                let hash = *blake3::hash(&envelope).as_bytes();
                let file = file_of(&signed.directory.manifest, medium.number, names::ENVELOPE);
                if file.is_some_and(|file| file.hash == hash) {
                    whole.push(envelope);
                } else {
                    damage.push(Damage::of_file(&path, medium.number, Fault::Hash));
                    changed.push(envelope);
                }
            }
            Err(e) => {
                damage.push(Damage::of_file(&path, medium.number, super::signed::io_fault(&e)));
            }
        }
    }
    signed.damage.append(&mut damage);
    if let Some(key) = keys.iter().find_map(|key| match key {
        KeySource::SetKey(key) => Some(key.clone()),
        _ => None,
    }) {
        return Ok(key);
    }
    whole.dedup();
    for envelope in whole.iter().chain(&changed) {
        for key in keys {
            match try_key(&signed.ctx, envelope, key).await {
                Ok(key) => return Ok(key),
                Err(error) => why = error.to_string(),
            }
        }
    }
    if keys.is_empty() {
        why = "the set is encrypted and no key was given".into();
    }
    Err(MediaError::NoKey { path, why })
}

async fn try_key(
    ctx: &Context,
    envelope: &[u8],
    source: &KeySource,
) -> Result<SetKey, wire::Error> {
    let key = match source {
        KeySource::SetKey(key) => return Ok(key.clone()),
        KeySource::Site(keys) => Envelope::open(envelope, &[Opener::Site(keys)])?,
        KeySource::Escrow(key) => Envelope::open(envelope, &[Opener::Key(key)])?,
        KeySource::Passphrase(passphrase) => {
            let (envelope, passphrase) = (envelope.to_vec(), passphrase.clone());
            let open = move || Envelope::open(&envelope, &[Opener::Passphrase(&passphrase)]);
            ctx.offload(open).await?
        }
    };
    Ok(SetKey::new(*key))
}
