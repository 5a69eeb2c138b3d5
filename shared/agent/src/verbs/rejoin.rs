//! `rejoin`: this source gives way to another and becomes its replica.

use std::path::PathBuf;

use serde_json::json;
use site::Problem;
use site::location::Name;

use super::Context;
use super::switchover::not_running;
use crate::problem::refused;
use crate::reach;

/// Flags of `rejoin`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Give up what this site acknowledged and the other one never had
    #[arg(long)]
    discard_local: bool,
    /// Put that into files in this directory before; `media-tools kept` reads them
    #[arg(long, value_name = "DIR", requires = "discard_local")]
    keep_overwritten: Option<PathBuf>,
}

/// Asks the running source.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let keep = arguments.keep_overwritten.as_ref().map(std::path::absolute).transpose();
    let keep = keep.map_err(|e| refused("usage", format!("--keep-overwritten: {e}")))?;
    let body = json!({ "discard_local": arguments.discard_local, "keep_overwritten": keep });
    let answer = reach::verb(&client, "rejoin", &body).await?;
    let mut words = "this site is a replica now and pulls what differs".to_owned();
    if let Some(kept) = answer["kept"].as_str() {
        words.push_str(&format!("\nwhat it gives up is kept: {kept}"));
    }
    verb.printer.data(&words, &answer);
    Ok(())
}
