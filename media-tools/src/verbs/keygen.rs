//! `keygen`: an escrow key, which can open sets that name its recipient.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::json;
use site::{Exit, Problem};
use wire::EscrowKey;

use super::Context;

/// Flags of `keygen`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where the secret key goes; must not exist
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

/// Makes a key.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let failed = |e: &dyn std::fmt::Display| {
        Problem::new("keygen", format!("{}: {e}", arguments.to.display()), Exit::OPERATOR)
            .safe("No file was overwritten.")
    };
    let path = std::path::absolute(&arguments.to).map_err(|e| failed(&e))?;
    if verb.ctx.storage.exists(&path).await.map_err(|e| failed(&e))?.is_some() {
        return Err(failed(&"there is a file already"));
    }
    let key = EscrowKey::generate();
    let recipient = key.recipient().map_err(|e| failed(&e))?.to_string();
    let bytes = Bytes::copy_from_slice(&key.to_file_bytes());
    verb.ctx.storage.replace(&path, bytes).await.map_err(|e| failed(&e))?;
    verb.printer.data(&recipient, &json!({ "recipient": recipient, "file": path }));
    verb.printer.note("keep the file safe; `dump --recipient` takes the line above");
    Ok(())
}
