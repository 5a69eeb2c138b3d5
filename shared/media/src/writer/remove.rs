//! Removing an unfinished or unwanted set from its media: only files of that very set.

use std::io;
use std::path::{Path, PathBuf};

use disk::{Context, OpenMode};
use grain::SetId;

use super::prepare::{read_label, same_set, sync_dir};
use crate::error::MediaError;
use crate::names::{self, Named, recognise};
use crate::segment::{HEADER_BYTES, SegmentHeader};

/// Removes every file of `set` from `dirs`. A directory without a label is left alone, one of
/// another set is refused before anything is removed. The label goes last, so that an interrupted
/// removal can be repeated.
pub async fn remove_set(ctx: &Context, set: SetId, dirs: &[PathBuf]) -> Result<(), MediaError> {
    let mut ours = Vec::new();
    for dir in dirs {
        if let Some(label) = read_label(ctx, dir).await? {
            same_set(&label, set, dir)?;
            ours.push(dir);
        }
    }
    for dir in ours {
        remove_from(ctx, set, dir).await?;
    }
    Ok(())
}

async fn remove_from(ctx: &Context, set: SetId, dir: &Path) -> Result<(), MediaError> {
    let io = |e| MediaError::io(dir, "listing the directory")(e);
    for entry in ctx.storage.list(dir).await.map_err(io)? {
        let path = dir.join(&entry.name);
        let remove = match recognise(&entry.name) {
            _ if entry.is_dir => false,
            None | Some(Named::Label) => false,
            Some(Named::Segment(_)) => !is_foreign_segment(ctx, &path, set).await?,
            Some(_) => true,
        };
        if remove {
            remove_file(ctx, &path).await?;
        }
    }
    sync_dir(ctx, dir).await?;
    remove_file(ctx, &dir.join(names::LABEL)).await?;
    sync_dir(ctx, dir).await
}

/// Removes a file that may already be gone.
pub(super) async fn remove_file(ctx: &Context, path: &Path) -> Result<(), MediaError> {
    match ctx.storage.remove(path).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(MediaError::io(path, "removing")(e)),
        _ => Ok(()),
    }
}

/// Whether the header is whole and names another set. A torn header on a medium labelled as ours is
/// ours: nobody else writes there.
pub(super) async fn is_foreign_segment(
    ctx: &Context,
    path: &Path,
    set: SetId,
) -> Result<bool, MediaError> {
    let io = |e| MediaError::io(path, "reading a segment's header")(e);
    let file = ctx.storage.open(path, OpenMode::Read).await.map_err(io)?;
    let len = file.len().map_err(io)?.min(HEADER_BYTES as u64);
    let header = file.read_at(0, len as usize).await.map_err(io)?;
    Ok(SegmentHeader::decode(&header).is_ok_and(|header| header.set != set))
}
