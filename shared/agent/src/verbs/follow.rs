//! `follow`: this replica pulls from another source from here on.

use std::path::PathBuf;

use replication::state::Role;
use serde_json::json;
use site::Problem;
use site::location::Name;

use super::Context;
use crate::peer::{read_ticket, text_of};
use crate::problem::{of_relationship, of_replication};
use crate::{FollowArguments, Relationship, reach};

/// Flags of `follow`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// The new source's ticket, as its `peer add` wrote it
    #[arg(long, value_name = "FILE")]
    ticket: PathBuf,
    /// Where the new source listens [default: as the ticket says]
    #[arg(long = "source", value_name = "HOST:PORT")]
    sources: Vec<String>,
}

/// Tells the running agent, or changes what is on disk.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let ticket = text_of(&read_ticket(&verb.ctx, &arguments.ticket).await?)?;
    let body = FollowArguments { ticket, addresses: arguments.sources };
    let answer = match reach::running(&verb.state, &arguments.name).await? {
        Some(client) => reach::verb(&client, "follow", &json!(body)).await?,
        None => {
            let open = || Relationship::open(&verb.ctx, &verb.state, &arguments.name);
            let found = open().await.map_err(|e| of_relationship(&e))?;
            let _lock = found.dir.lock().map_err(|e| of_relationship(&e.into()))?;
            // The state may have changed until the lock was ours.
            let found = open().await.map_err(|e| of_relationship(&e))?;
            found.require(Role::Replica).map_err(|e| of_relationship(&e))?;
            let source = found.store.change(|s| body.apply(s))?;
            found.store.save().await.map_err(|e| of_replication(&e))?;
            json!({ "source": source.fingerprint() })
        }
    };
    let source = answer["source"].as_str().unwrap_or_default();
    verb.printer.data(&format!("follows {source} from here on"), &answer);
    verb.printer.note("above is the fingerprint of the new source: compare it by telephone");
    Ok(())
}
