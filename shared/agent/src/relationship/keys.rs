//! The site's keys on disk: one file, made on first use, mode 0600.

use bytes::Bytes;
use disk::Context;
use site::location::StateDir;
use wire::SiteKeys;

use super::RelationshipError;

const MAX_BYTES: u64 = 64 << 10;

/// Reads the site's keys.
pub async fn load_keys(ctx: &Context, state: &StateDir) -> Result<SiteKeys, RelationshipError> {
    let path = state.site_key();
    let bytes = ctx.storage.read_all(&path, MAX_BYTES).await;
    let bytes = bytes.map_err(RelationshipError::io("read", &path))?;
    Ok(SiteKeys::from_file_bytes(&bytes)?)
}

/// Reads the site's keys, or makes them if there are none. They are durable on return.
pub async fn load_or_make_keys(
    ctx: &Context,
    state: &StateDir,
) -> Result<SiteKeys, RelationshipError> {
    let path = state.site_key();
    let there = ctx.storage.exists(&path).await;
    if there.map_err(RelationshipError::io("look at", &path))?.is_some() {
        return load_keys(ctx, state).await;
    }
    state.prepare()?;
    let keys = SiteKeys::generate()?;
    let bytes = Bytes::copy_from_slice(&keys.to_file_bytes());
    let written = ctx.storage.replace(&path, bytes).await;
    written.map_err(RelationshipError::io("write", &path))?;
    Ok(keys)
}
