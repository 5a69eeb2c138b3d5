//! A passphrase from a file: its first line.

use std::path::Path;

use disk::Context;
use site::Problem;

use crate::problem::refused;

/// Reads the first line of a file as a passphrase.
pub async fn passphrase_from(ctx: &Context, path: &Path) -> Result<String, Problem> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let read = ctx.storage.read_all(&absolute, 64 << 10).await;
    let bytes = read.map_err(|e| refused("passphrase", format!("{}: {e}", path.display())))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| refused("passphrase", format!("{} is not text", path.display())))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(refused(
            "passphrase",
            format!("the first line of {} is empty", path.display()),
        ));
    }
    Ok(line.to_owned())
}
