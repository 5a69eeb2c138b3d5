//! `identity`: one line on stdout, the short fingerprint on stderr.

use crate::problem::of_relationship;
use crate::relationship::load_or_make_keys;
use serde_json::json;
use site::Problem;

use super::Context;

/// Flags of `identity`: none.
#[derive(clap::Args)]
pub struct Arguments {}

/// Prints the identity, making the keys on first use.
pub async fn run(verb: Context, _: Arguments) -> Result<(), Problem> {
    let keys = load_or_make_keys(&verb.ctx, &verb.state).await.map_err(|e| of_relationship(&e))?;
    let identity = keys.identity();
    let fingerprint = identity.fingerprint();
    let json = json!({ "identity": identity.to_string(), "fingerprint": fingerprint });
    verb.printer.data(&identity.to_string(), &json);
    verb.printer.note(&format!("fingerprint: {fingerprint}"));
    Ok(())
}
