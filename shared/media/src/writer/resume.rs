//! Taking up a set whose writing was interrupted.
//!
//! What counts is what a part directory names with the source's signature *and* what is still there:
//! length, header, trailer and index of the file are checked again. Everything else of the set is
//! removed, the directory and hash list of an unfinished end first, so that a half-finished signature
//! never stands beside changed segments.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::{Context, OpenMode};
use grain::GrainSet;
use wire::{Envelope, Opener};

use super::core::Core;
use super::prepare::{
    new_label, read_label, same_set, sync_dir, target, write_envelope, write_label,
};
use super::remove::{is_foreign_segment, remove_file};
use super::{SetWriter, Target};
use crate::directory::SegmentFacts;
use crate::error::MediaError;
use crate::index::Index;
use crate::label::Label;
use crate::names::{self, Named, recognise};
use crate::part::{PartReader, PartWriter};
use crate::plan::SetPlan;
use crate::seal::{FileRole, Sealer, SetKey, frame_marker};
use crate::segment::{HEADER_BYTES, SegmentHeader, TRAILER_BYTES, Trailer};

/// See [`SetWriter::resume`].
pub(super) async fn resume(
    ctx: &Context,
    plan: SetPlan,
) -> Result<(SetWriter, GrainSet), MediaError> {
    plan.check()?;
    let labels = labels(ctx, &plan).await?;
    let highest = highest_segment(ctx, &plan).await?;
    let (key, envelope) = open_envelope(ctx, &plan).await?;
    let core = Core::new(ctx.clone(), &plan, key, highest + 1);
    let mut targets = Vec::new();
    for (dir, label) in plan.media.iter().zip(labels) {
        targets.push(take_up(&core, dir, label, envelope.as_deref()).await?);
    }
    targets.sort_by_key(|target| target.label.medium);
    let done = core.durable.borrow().clone();
    *core.accepted.borrow_mut() = done.clone();
    let mut writer = SetWriter { core, plan, targets, envelope };
    writer.start();
    Ok((writer, done))
}

/// A label for each directory: the one that is there, or a new one for a medium that the crash came
/// too early for.
async fn labels(ctx: &Context, plan: &SetPlan) -> Result<Vec<Label>, MediaError> {
    let mut found = Vec::new();
    let mut free: Vec<u16> = (1..=plan.media.len() as u16).collect();
    let (mut generation, mut created_unix_ms) = (0, ctx.unix_ms());
    for dir in &plan.media {
        let io = |e| MediaError::io(dir, "making the directory")(e);
        ctx.storage.create_dir(dir).await.map_err(io)?;
        let label = read_label(ctx, dir).await?;
        if let Some(label) = &label {
            same_set(label, plan.set, dir)?;
            let cannot = |why: String| MediaError::CannotResume { path: dir.clone(), why };
            if usize::from(label.media) != plan.media.len() || label.sealed != plan.sealed() {
                return Err(cannot("the set was begun with other media or sealing".into()));
            }
            let before = free.len();
            free.retain(|medium| *medium != label.medium);
            if free.len() == before {
                return Err(cannot(format!("medium {} is there twice", label.medium)));
            }
            generation = generation.max(label.generation);
            created_unix_ms = created_unix_ms.min(label.created_unix_ms);
        } else {
            refuse_unlabelled(ctx, dir).await?;
        }
        found.push(label);
    }
    let mut free = free.into_iter();
    let numbers = found.iter().map(|label| label.as_ref().map(|label| label.medium));
    let numbers: Vec<u16> = numbers.filter_map(|known| known.or_else(|| free.next())).collect();
    let label = |medium| new_label(plan, medium, generation + 1, created_unix_ms);
    Ok(numbers.into_iter().map(label).collect())
}

/// The label is the first file of a medium: without it, files of ours are of another set.
async fn refuse_unlabelled(ctx: &Context, dir: &Path) -> Result<(), MediaError> {
    let io = |e| MediaError::io(dir, "listing the directory")(e);
    let entries = ctx.storage.list(dir).await.map_err(io)?;
    let named = entries.iter().find(|entry| match recognise(&entry.name) {
        // A label that was being made when the crash came.
        Some(Named::Label) | None => false,
        Some(_) => true,
    });
    match named {
        None => Ok(()),
        Some(e) => Err(MediaError::InUse { path: dir.to_owned(), found: e.name.clone() }),
    }
}

/// The highest segment number that any name on any medium shows.
async fn highest_segment(ctx: &Context, plan: &SetPlan) -> Result<u64, MediaError> {
    let mut highest = 0;
    for dir in &plan.media {
        let io = |e| MediaError::io(dir, "listing the directory")(e);
        for entry in ctx.storage.list(dir).await.map_err(io)? {
            if let Some(Named::Segment(number)) = recognise(&entry.name) {
                highest = highest.max(number);
            }
        }
    }
    // A number near the end of its range cannot be ours.
    Ok(highest.min(u64::MAX >> 8))
}

/// The set key out of the first envelope that opens. A new key begins only where no medium has an
/// envelope: then the crash came before the first segment.
async fn open_envelope(
    ctx: &Context,
    plan: &SetPlan,
) -> Result<(Option<SetKey>, Option<Vec<u8>>), MediaError> {
    if !plan.sealed() {
        return Ok((None, None));
    }
    let mut closed = None;
    for dir in &plan.media {
        let path = dir.join(names::ENVELOPE);
        let envelope = match ctx.storage.read_all(&path, Envelope::MAX_BYTES as u64).await {
            Ok(envelope) => envelope,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(MediaError::io(&path, "reading the envelope")(e)),
        };
        match Envelope::open(&envelope, &[Opener::Site(&plan.keys)]) {
            Ok(key) => return Ok((Some(SetKey::new(*key)), Some(envelope))),
            Err(e) => closed = Some(MediaError::CannotResume { path, why: e.to_string() }),
        }
    }
    if let Some(error) = closed {
        return Err(error);
    }
    let key = SetKey::new(ctx.random());
    let envelope = super::prepare::make_envelope(ctx, plan, &key).await?;
    Ok((Some(key), Some(envelope)))
}

/// Takes up one medium; its kept segments are settled in the core.
async fn take_up(
    core: &Rc<Core>,
    dir: &Path,
    label: Label,
    envelope: Option<&[u8]>,
) -> Result<Target, MediaError> {
    let ctx = &core.ctx;
    remove_file(ctx, &dir.join(names::DIRECTORY)).await?;
    remove_file(ctx, &dir.join(names::HASHES)).await?;
    sync_dir(ctx, dir).await?;
    write_label(ctx, dir, &label).await?;
    write_envelope(ctx, dir, envelope).await?;
    let path = dir.join(names::part(label.medium));
    let mut fresh = path.clone().into_os_string();
    fresh.push(names::NEW_SUFFIX);
    let fresh = PathBuf::from(fresh);
    remove_file(ctx, &fresh).await?;
    let key = core.key.as_ref();
    let mut part = PartWriter::create(ctx, &fresh, core.set, label.medium, key).await?;
    let kept = keep_segments(core, dir, label.medium, &path, &mut part).await?;
    let renamed = ctx.storage.rename(&fresh, &path).await;
    renamed.map_err(MediaError::io(&path, "renaming the part directory"))?;
    sync_dir(ctx, dir).await?;
    remove_unfinished(core, dir, &kept).await?;
    Ok(target(dir, label, part))
}

/// Copies the entries of segments that are still whole into the new part directory.
async fn keep_segments(
    core: &Rc<Core>,
    dir: &Path,
    medium: u16,
    old: &Path,
    part: &mut PartWriter,
) -> Result<BTreeSet<u64>, MediaError> {
    let mut kept = BTreeSet::new();
    let old = match PartReader::open(&core.ctx, old, core.set, medium, core.key.as_ref()).await {
        Ok(old) => old,
        // Missing or torn: nothing on this medium is known to be finished.
        Err(error) => {
            tracing::info!(%error, "no finished segments are known on this medium");
            return Ok(kept);
        }
    };
    let io = |e| MediaError::io(dir, "reading the part directory")(e);
    for i in 0..old.len() {
        let Some(entry) = old.entry(i).await.map_err(io)? else { continue };
        let signed = entry.is_signed_by(&core.keys.identity(), core.set);
        let grains = entry.facts.grain_set(&core.geometry);
        let (Ok(grains), Ok(sum), true) = (grains, entry.facts.root_sum(), signed) else {
            continue;
        };
        let overlaps = |run| core.durable.borrow().intersects(run);
        let again = grains.runs().any(overlaps);
        let whole = entry.facts.medium == medium
            && !again
            && segment_is_whole(core, dir, &entry.facts).await?;
        if whole {
            part.append(&entry.facts, &entry.index, &core.keys).await?;
            kept.insert(entry.facts.number);
            core.settle(entry.facts, &grains, &sum);
        }
    }
    Ok(kept)
}

/// Whether the file is still the finished one: length, header, trailer and index.
async fn segment_is_whole(
    core: &Rc<Core>,
    dir: &Path,
    facts: &SegmentFacts,
) -> Result<bool, MediaError> {
    let path = names::segment_path(dir, facts.number);
    let io = |e| MediaError::io(&path, "checking a segment")(e);
    let file = match core.ctx.storage.open(&path, OpenMode::Read).await {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(io)?,
    };
    let trailer_at = facts.index_offset.checked_add(u64::from(facts.index_len));
    let Some(trailer_at) = trailer_at else { return Ok(false) };
    let len = file.len().map_err(io)?;
    if len != facts.file_len || len.checked_sub(TRAILER_BYTES as u64) != Some(trailer_at) {
        return Ok(false);
    }
    let header = SegmentHeader {
        sealed: core.key.is_some(),
        set: core.set,
        salt: facts.salt,
        number: facts.number,
        stripe: facts.stripe,
        medium: facts.medium,
    };
    let stored = file.read_at(0, HEADER_BYTES).await.map_err(io)?;
    let role = FileRole::Segment(facts.number);
    let sealer = Sealer::new(core.key.as_ref(), core.set, role, &facts.salt);
    let trailer = file.read_at(trailer_at, TRAILER_BYTES).await.map_err(io)?;
    let trailer = Trailer::decode(&trailer, &facts.salt, &sealer, trailer_at);
    let index = file.read_at(facts.index_offset, facts.index_len as usize).await.map_err(io)?;
    let index = Index::open(index, &sealer, frame_marker(&facts.salt), facts.index_offset);
    Ok(stored == header.encode()
        && trailer.is_ok_and(|trailer| trailer.index_digest == facts.index_digest)
        && index.is_ok_and(|plain| Index::digest(&plain) == facts.index_digest))
}

/// Removes the segments of this set that were not kept.
async fn remove_unfinished(
    core: &Rc<Core>,
    dir: &Path,
    kept: &BTreeSet<u64>,
) -> Result<(), MediaError> {
    let io = |e| MediaError::io(dir, "listing the directory")(e);
    for entry in core.ctx.storage.list(dir).await.map_err(io)? {
        let Some(Named::Segment(number)) = recognise(&entry.name) else { continue };
        let path = dir.join(&entry.name);
        if !kept.contains(&number) && !is_foreign_segment(&core.ctx, &path, core.set).await? {
            remove_file(&core.ctx, &path).await?;
        }
    }
    sync_dir(&core.ctx, dir).await
}
