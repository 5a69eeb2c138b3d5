//! A set as it shows itself without a key: its media, its verified manifest, its file hashes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use disk::{Context, OpenMode};
use grain::SetId;
use wire::Identity;

use super::damage::{Damage, Fault};
use super::medium::Medium;
use crate::directory::{Manifest, ManifestFile, SignedDirectory};
use crate::error::MediaError;
use crate::names::{self, Named, recognise};
use crate::{hashes, label};

const CHUNK_BYTES: u64 = 1 << 20;

/// The media of one set that are there, and the directory that speaks for all of it. The signature
/// was verified; whether its signer is the right one is known only where the caller said who that is.
pub struct SignedSet {
    pub(crate) ctx: Context,
    pub(crate) media: Vec<Medium>,
    pub(crate) directory: SignedDirectory,
    pub(crate) directory_hash: [u8; 32],
    /// What is wrong with labels and directory copies.
    pub damage: Vec<Damage>,
}

impl SignedSet {
    /// Opens the media at `dirs`, which must be of one set; some may be absent, one must have the
    /// signed directory. With `expected`, the signer must be that source.
    pub async fn open(
        ctx: &Context,
        dirs: &[PathBuf],
        expected: Option<&Identity>,
    ) -> Result<SignedSet, MediaError> {
        let mut media = Vec::new();
        for dir in dirs {
            media.push(Medium::open(ctx, dir).await?);
        }
        let Some(set) = media.first().map(|medium| medium.set) else {
            return Err(MediaError::Plan("no directory was given".into()));
        };
        same_set(&media, set)?;
        let chosen = choose(&media, expected)?;
        let Some((directory, directory_hash)) = chosen else {
            return Err(no_directory(set, &media));
        };
        let mut damage = Vec::new();
        for medium in &mut media {
            damage.append(&mut medium.damage);
            damage.extend(copy_fault(medium, &directory, directory_hash));
            let signed = file_of(&directory.manifest, medium.number, names::LABEL);
            let differs = signed.is_none_or(|file| file.hash != medium.label_hash);
            if medium.label.is_some() && differs {
                let path = medium.path(names::LABEL);
                damage.push(Damage::of_file(&path, medium.number, Fault::Hash));
            }
        }
        Ok(SignedSet { ctx: ctx.clone(), media, directory, directory_hash, damage })
    }

    /// The set.
    pub fn set(&self) -> SetId {
        self.directory.manifest.set
    }

    /// The media that are there.
    pub fn media(&self) -> &[Medium] {
        &self.media
    }

    /// The verified manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.directory.manifest
    }

    /// Whether the content is encrypted.
    pub fn sealed(&self) -> bool {
        self.directory.sealed
    }

    /// Whether every medium of the set is there.
    pub fn is_complete(&self) -> bool {
        (1..=self.manifest().media).all(|n| self.medium(n).is_some())
    }

    /// The medium with this number, if it is there.
    pub fn medium(&self, number: u16) -> Option<&Medium> {
        self.media.iter().find(|medium| medium.number == number)
    }

    /// Compares every file that should be there with its signed hash, and the plain hash lists with
    /// the manifest. `on_bytes` hears of every stretch read. No key is needed.
    pub async fn check_files(&self, on_bytes: &dyn Fn(u64)) -> Vec<Damage> {
        let mut damage = self.damage.clone();
        for medium in &self.media {
            let signed = self.manifest().files.iter();
            for file in signed.filter(|file| file.medium == medium.number) {
                let path = medium.path(&file.name);
                if let Some(fault) = self.check_file(&path, file, on_bytes).await {
                    let known = damage.iter().any(|d| d.path == path);
                    if !known {
                        let segment = names::segment_number(&file.name);
                        let found = Damage::of_file(&path, medium.number, fault);
                        damage.push(Damage { segment, ..found });
                    }
                }
            }
            damage.extend(self.check_list(medium).await);
            damage.extend(self.unlisted(medium).await);
        }
        damage
    }

    async fn check_file(
        &self,
        path: &Path,
        signed: &ManifestFile,
        on_bytes: &dyn Fn(u64),
    ) -> Option<Fault> {
        let checked = async {
            let file = self.ctx.storage.open(path, OpenMode::Read).await?;
            let found = file.len()?;
            if found != signed.len {
                return Ok(Some(Fault::Length { found, signed: signed.len }));
            }
            let mut hasher = blake3::Hasher::new();
            let mut at = 0;
            let mut next = file.read_at(0, found.min(CHUNK_BYTES) as usize).await?;
            while !next.is_empty() {
                let chunk = std::mem::take(&mut next);
                at += chunk.len() as u64;
                on_bytes(chunk.len() as u64);
                let hash = self.ctx.offload(move || {
                    hasher.update(&chunk);
                    hasher
                });
                let more = (found - at).min(CHUNK_BYTES) as usize;
                let (hashed, read) = tokio::join!(hash, file.read_at(at, more));
                (hasher, next) = (hashed, read?);
            }
            Ok((hasher.finalize().as_bytes() != &signed.hash).then_some(Fault::Hash))
        };
        checked.await.unwrap_or_else(|e: std::io::Error| Some(io_fault(&e)))
    }

    async fn check_list(&self, medium: &Medium) -> Option<Damage> {
        let path = medium.path(names::HASHES);
        let of = |fault| Some(Damage::of_file(&path, medium.number, fault));
        let bytes = match self.ctx.storage.read_all(&path, hashes::MAX_HASHES_BYTES).await {
            Ok(bytes) => bytes,
            Err(e) => return of(io_fault(&e)),
        };
        let signed = self.manifest().files.iter().filter(|file| file.medium == medium.number);
        let mut expected: Vec<_> = signed.map(|f| (f.name.clone(), f.hash)).collect();
        expected.push((names::DIRECTORY.into(), self.directory_hash));
        if bytes == hashes::encode(&expected) {
            return None;
        }
        of(hashes::decode(&bytes).map_or_else(Fault::Field, |_| Fault::HashList))
    }

    async fn unlisted(&self, medium: &Medium) -> Vec<Damage> {
        let Ok(entries) = self.ctx.storage.list(&medium.dir).await else { return Vec::new() };
        let signed = self.manifest().files.iter().filter(|file| file.medium == medium.number);
        let signed: BTreeSet<&str> = signed.map(|file| file.name.as_str()).collect();
        let strange = entries.iter().filter(|entry| {
            let ours = matches!(recognise(&entry.name), Some(Named::Segment(_) | Named::Part));
            ours && !signed.contains(entry.name.as_str())
        });
        let damage = |name: &str| {
            let found = Damage::of_file(&medium.path(name), medium.number, Fault::Unlisted);
            Damage { segment: names::segment_number(name), ..found }
        };
        strange.map(|entry| damage(&entry.name)).collect()
    }
}

/// What an error of the file system says about a file that should be there.
pub(super) fn io_fault(error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::Unreadable(error.to_string()),
    }
}

pub(super) fn file_of<'a>(
    manifest: &'a Manifest,
    medium: u16,
    name: &str,
) -> Option<&'a ManifestFile> {
    manifest.files.iter().find(|file| file.medium == medium && file.name == name)
}

fn same_set(media: &[Medium], set: SetId) -> Result<(), MediaError> {
    for (i, medium) in media.iter().enumerate() {
        if medium.set != set {
            let path = medium.dir.clone();
            return Err(MediaError::OtherSet { path, found: medium.set, wanted: set });
        }
        if let Some(twin) = media.iter().take(i).find(|other| other.number == medium.number) {
            return Err(MediaError::Plan(format!(
                "{} and {} both hold medium {}",
                twin.dir.display(),
                medium.dir.display(),
                medium.number
            )));
        }
    }
    Ok(())
}

/// The directory of the latest generation among the media; a foreign signer is an error, wherever it
/// stands.
fn choose(
    media: &[Medium],
    expected: Option<&Identity>,
) -> Result<Option<(SignedDirectory, [u8; 32])>, MediaError> {
    let mut best: Option<&Medium> = None;
    for medium in media {
        let Some(directory) = &medium.directory else { continue };
        let signer = directory.manifest.source;
        if let Some(expected) = expected.filter(|expected| **expected != signer) {
            return Err(MediaError::WrongSource {
                path: medium.path(names::DIRECTORY),
                found: signer.fingerprint(),
                expected: expected.fingerprint(),
            });
        }
        let first = best.and_then(|best| best.directory.as_ref());
        if let Some(first) = first.filter(|first| first.manifest.source != signer) {
            return Err(MediaError::WrongSource {
                path: medium.path(names::DIRECTORY),
                found: signer.fingerprint(),
                expected: first.manifest.source.fingerprint(),
            });
        }
        let age = |d: &SignedDirectory| (d.manifest.generation, d.manifest.signed_unix_ms);
        if first.is_none_or(|first| age(first) < age(directory)) {
            best = Some(medium);
        }
    }
    Ok(best.and_then(|medium| Some((medium.directory.clone()?, medium.directory_hash))))
}

/// What is wrong with a medium's copy of the directory, compared with the chosen one.
fn copy_fault(medium: &Medium, chosen: &SignedDirectory, hash: [u8; 32]) -> Option<Damage> {
    let fault = match (&medium.directory, &medium.directory_error) {
        (Some(_), _) if medium.directory_hash == hash => return None,
        (Some(copy), _) if copy.manifest.generation < chosen.manifest.generation => Fault::Stale,
        (Some(_), _) => Fault::OtherVersion,
        (None, Some(MediaError::Damaged { field, .. })) => Fault::Field(*field),
        (None, Some(MediaError::BadSignature(_))) => Fault::NotSigned,
        (None, Some(error)) => Fault::Unreadable(error.to_string()),
        (None, None) => Fault::Missing,
    };
    Some(Damage::of_file(&medium.path(names::DIRECTORY), medium.number, fault))
}

fn no_directory(set: SetId, media: &[Medium]) -> MediaError {
    let mut why = "the set was never finished".to_owned();
    for medium in media {
        if let Some(error) = &medium.directory_error {
            why = error.to_string();
        } else if medium.label.as_ref().is_some_and(|l| l.state == label::MediumState::Finished) {
            why = "the directory was removed after the set was finished".into();
        }
    }
    let media = media.iter().map(|medium| medium.dir.clone()).collect();
    MediaError::NoDirectory { set, media, why }
}
