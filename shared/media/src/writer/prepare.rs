//! Beginning a set: checks the media, makes the key, writes labels, envelopes and empty part
//! directories.

use std::path::Path;
use std::rc::Rc;

use disk::Context;
use grain::SetId;
use tokio::sync::Mutex;
use wire::{Envelope, Recipient};

use super::core::Core;
use super::{SetWriter, Target};
use crate::error::MediaError;
use crate::label::{Label, MediumState};
use crate::names::{self, recognise};
use crate::part::PartWriter;
use crate::plan::SetPlan;
use crate::seal::SetKey;

/// See [`SetWriter::create`].
pub(super) async fn create(ctx: &Context, plan: SetPlan) -> Result<SetWriter, MediaError> {
    plan.check()?;
    for dir in &plan.media {
        let io = |e| MediaError::io(dir, "making the directory")(e);
        ctx.storage.create_dir(dir).await.map_err(io)?;
        refuse_used(ctx, dir).await?;
    }
    let key = plan.sealed().then(|| SetKey::new(ctx.random()));
    let envelope = match &key {
        Some(key) => Some(make_envelope(ctx, &plan, key).await?),
        None => None,
    };
    let created_unix_ms = ctx.unix_ms();
    let core = Core::new(ctx.clone(), &plan, key, 1);
    let mut targets = Vec::new();
    for (i, dir) in plan.media.iter().enumerate() {
        let label = new_label(&plan, i as u16 + 1, 0, created_unix_ms);
        targets.push(begin_medium(&core, dir, label, envelope.as_deref()).await?);
    }
    let mut writer = SetWriter { core, plan, targets, envelope };
    writer.start();
    Ok(writer)
}

/// Fails if the directory holds anything with a name of ours.
async fn refuse_used(ctx: &Context, dir: &Path) -> Result<(), MediaError> {
    let io = |e| MediaError::io(dir, "listing the directory")(e);
    let entries = ctx.storage.list(dir).await.map_err(io)?;
    let ours = |name: &str| recognise(name).is_some();
    let Some(first) = entries.iter().find(|entry| ours(&entry.name)) else { return Ok(()) };
    let label = read_label(ctx, dir).await;
    let found = match label {
        Ok(Some(label)) => format!("set {} of `{}`", label.set, label.relationship_name),
        _ => first.name.clone(),
    };
    Err(MediaError::InUse { path: dir.to_owned(), found })
}

/// The label of a directory; none if there is no such file.
pub(super) async fn read_label(ctx: &Context, dir: &Path) -> Result<Option<Label>, MediaError> {
    let path = dir.join(names::LABEL);
    match ctx.storage.read_all(&path, crate::label::MAX_LABEL_BYTES).await {
        Ok(bytes) => Label::decode(&bytes).map(Some).map_err(MediaError::damaged(&path)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(MediaError::io(&path, "reading the label")(e)),
    }
}

/// Wraps the key for the source itself (it takes up interrupted sets) and the plan's recipients.
pub(super) async fn make_envelope(
    ctx: &Context,
    plan: &SetPlan,
    key: &SetKey,
) -> Result<Vec<u8>, MediaError> {
    let mut recipients = vec![Recipient::Site(plan.keys.identity())];
    recipients.extend(plan.sealing.iter().flatten().cloned());
    let key = key.clone();
    // A passphrase costs seconds: that is for the pool.
    let sealed = ctx.offload(move || Envelope::seal(key.expose(), &recipients)).await;
    sealed.map_err(|e| MediaError::Plan(e.to_string()))
}

/// The label of a medium while the set is being written.
pub(super) fn new_label(
    plan: &SetPlan,
    medium: u16,
    generation: u32,
    created_unix_ms: u64,
) -> Label {
    let source = plan.keys.identity();
    Label {
        format: Label::format(),
        set: plan.set,
        state: MediumState::Writing,
        medium,
        media: plan.media.len() as u16,
        sealed: plan.sealed(),
        relationship_name: plan.relationship_name.clone(),
        relationship: plan.relationship,
        source: source.to_string(),
        source_fingerprint: source.fingerprint(),
        recipients: plan.recipient_names.clone(),
        created_unix_ms,
        generation,
        ticket: plan.ticket.clone(),
    }
}

/// Writes label and envelope, then an empty part directory.
async fn begin_medium(
    core: &Rc<Core>,
    dir: &Path,
    label: Label,
    envelope: Option<&[u8]>,
) -> Result<Target, MediaError> {
    write_label(&core.ctx, dir, &label).await?;
    write_envelope(&core.ctx, dir, envelope).await?;
    let path = dir.join(names::part(label.medium));
    let part =
        PartWriter::create(&core.ctx, &path, core.set, label.medium, core.key.as_ref()).await?;
    sync_dir(&core.ctx, dir).await?;
    Ok(target(dir, label, part))
}

/// A target whose lane has not begun.
pub(super) fn target(dir: &Path, label: Label, part: PartWriter) -> Target {
    let part = Rc::new(Mutex::new(part));
    Target { dir: dir.to_owned(), label, part, queue: None, lane: None }
}

pub(super) async fn write_label(
    ctx: &Context,
    dir: &Path,
    label: &Label,
) -> Result<(), MediaError> {
    let path = dir.join(names::LABEL);
    let written = ctx.storage.replace(&path, label.encode().into()).await;
    written.map_err(MediaError::io(&path, "writing the label"))
}

pub(super) async fn write_envelope(
    ctx: &Context,
    dir: &Path,
    envelope: Option<&[u8]>,
) -> Result<(), MediaError> {
    let Some(envelope) = envelope else { return Ok(()) };
    let path = dir.join(names::ENVELOPE);
    let written = ctx.storage.replace(&path, envelope.to_vec().into()).await;
    written.map_err(MediaError::io(&path, "writing the envelope"))
}

pub(super) async fn sync_dir(ctx: &Context, dir: &Path) -> Result<(), MediaError> {
    ctx.storage.sync_dir(dir).await.map_err(MediaError::io(dir, "syncing the directory"))
}

/// Fails unless the label is of `set`.
pub(super) fn same_set(label: &Label, set: SetId, dir: &Path) -> Result<(), MediaError> {
    if label.set == set {
        return Ok(());
    }
    Err(MediaError::OtherSet { path: dir.to_owned(), found: label.set, wanted: set })
}
