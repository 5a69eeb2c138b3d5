//! One medium: its label and its copy of the signed directory.

use std::io;
use std::path::{Path, PathBuf};

use disk::{Context, OpenMode};
use grain::SetId;

use super::damage::{Damage, Fault};
use crate::directory::{DirectoryFault, MAX_DIRECTORY_BYTES, SignedDirectory};
use crate::error::MediaError;
use crate::fields::BadField;
use crate::label::{Label, MAX_LABEL_BYTES};
use crate::names::{self, Named, recognise};
use crate::segment::{HEADER_BYTES, SegmentHeader};

/// A directory that holds one medium of a set. Nothing of it is trusted yet but that the directory's
/// signature, if there is one, is that of the source it names.
pub struct Medium {
    /// Where it is.
    pub dir: PathBuf,
    /// The set that it belongs to.
    pub set: SetId,
    /// Which medium of the set, from 1.
    pub number: u16,
    /// The label; none if it is damaged and the signed directory stood in for it.
    pub label: Option<Label>,
    /// Its copy of the signed directory, if there is a whole one.
    pub directory: Option<SignedDirectory>,
    /// BLAKE3 of the label's bytes.
    pub(crate) label_hash: [u8; 32],
    /// BLAKE3 of the directory's bytes.
    pub(crate) directory_hash: [u8; 32],
    /// Why there is none.
    pub directory_error: Option<MediaError>,
    /// What was found wrong on the way.
    pub damage: Vec<Damage>,
}

impl Medium {
    /// Looks at a directory. A damaged label is reported, and the medium still used, where a whole
    /// signed directory says what the label would have said.
    pub async fn open(ctx: &Context, dir: &Path) -> Result<Medium, MediaError> {
        let mut label_hash = [0; 32];
        let label = read_label(ctx, dir, &mut label_hash).await;
        let (directory, directory_error, directory_hash) = match read_directory(ctx, dir).await {
            Ok(Some((directory, hash))) => (Some(directory), None, hash),
            Ok(None) => (None, None, [0; 32]),
            Err(error) => (None, Some(error), [0; 32]),
        };
        let mut damage = Vec::new();
        let label = match (label, &directory) {
            (Ok(label), Some(directory)) => against(ctx, dir, label, directory).await?,
            (label, _) => label,
        };
        let (label, set, number) = match (label, &directory) {
            (Ok(label), _) => (Some(label.clone()), label.set, label.medium),
            (Err(error), Some(directory)) => {
                let number = number_without_label(ctx, dir, directory.manifest.media).await;
                let Some(number) = number else { return Err(error) };
                let fault = match &error {
                    MediaError::Damaged { field, .. } => Fault::Field(*field),
                    MediaError::NotAMedium(_) => Fault::Missing,
                    other => Fault::Unreadable(other.to_string()),
                };
                damage.push(Damage::of_file(&dir.join(names::LABEL), number, fault));
                (None, directory.manifest.set, number)
            }
            (Err(error), None) => return Err(error),
        };
        Ok(Medium {
            dir: dir.to_owned(),
            set,
            number,
            label,
            directory,
            label_hash,
            directory_hash,
            directory_error,
            damage,
        })
    }

    /// The path of a file on this medium.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

async fn read_label(ctx: &Context, dir: &Path, hash: &mut [u8; 32]) -> Result<Label, MediaError> {
    let path = dir.join(names::LABEL);
    match ctx.storage.read_all(&path, MAX_LABEL_BYTES).await {
        Ok(bytes) => {
            *hash = *blake3::hash(&bytes).as_bytes();
            Label::decode(&bytes).map_err(MediaError::damaged(&path))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(MediaError::NotAMedium(dir.to_owned()))
        }
        Err(e) => Err(MediaError::io(&path, "reading the label")(e)),
    }
}

async fn read_directory(
    ctx: &Context,
    dir: &Path,
) -> Result<Option<(SignedDirectory, [u8; 32])>, MediaError> {
    let path = dir.join(names::DIRECTORY);
    let bytes = match ctx.storage.read_all(&path, MAX_DIRECTORY_BYTES).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(MediaError::io(&path, "reading the directory")(e)),
    };
    let decoded = ctx
        .offload(move || {
            SignedDirectory::decode(&bytes).map(|dir| (dir, *blake3::hash(&bytes).as_bytes()))
        })
        .await;
    decoded.map(Some).map_err(|fault| match fault {
        DirectoryFault::Field(field) => MediaError::Damaged { path: path.clone(), field },
        DirectoryFault::Signature => MediaError::BadSignature(path.clone()),
    })
}

/// Settles a label and a directory that name different sets: the segments beside them say which of
/// the two is out of place. A label that is gives way; a directory that is, is an error.
async fn against(
    ctx: &Context,
    dir: &Path,
    label: Label,
    directory: &SignedDirectory,
) -> Result<Result<Label, MediaError>, MediaError> {
    let (found, wanted) = (directory.manifest.set, label.set);
    if found == wanted {
        return Ok(Ok(label));
    }
    for entry in ctx.storage.list(dir).await.unwrap_or_default() {
        let path = dir.join(&entry.name);
        let Some(Named::Segment(_)) = recognise(&entry.name) else { continue };
        let Ok(file) = ctx.storage.open(&path, OpenMode::Read).await else { continue };
        let len = (HEADER_BYTES as u64).min(entry.len) as usize;
        let Ok(header) = file.read_at(0, len).await else { continue };
        if SegmentHeader::decode(&header).is_ok_and(|header| header.set == found) {
            let why = "not that of the signed directory and the segments";
            let field = BadField { field: "set", offset: 0, why };
            return Ok(Err(MediaError::Damaged { path: dir.join(names::LABEL), field }));
        }
    }
    Err(MediaError::OtherSet { path: dir.join(names::DIRECTORY), found, wanted })
}

/// The number of a medium by its part directory's name.
async fn number_without_label(ctx: &Context, dir: &Path, media: u16) -> Option<u16> {
    let entries = ctx.storage.list(dir).await.ok()?;
    let mut numbers = (1..=media).filter(|n| entries.iter().any(|e| e.name == names::part(*n)));
    let only = numbers.next()?;
    numbers.next().is_none().then_some(only)
}
