//! `init`: makes the replica from the ticket.

use std::path::PathBuf;

use agent::problem::of_relationship;
use agent::relationship::{InitReplica, VolumeArgument, init_replica};
use serde_json::json;
use site::Problem;
use site::location::Name;

use super::Context;

/// Flags of `init`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship here
    name: Name,
    /// The ticket that `primary-agent init` wrote
    #[arg(long, value_name = "FILE")]
    ticket: PathBuf,
    /// A volume of the same size as at the primary: a regular file or a block device
    #[arg(long = "volume", value_name = "[ALIAS=]PATH", required = true)]
    volumes: Vec<VolumeArgument>,
    /// Where the primary listens [default: as the ticket says]
    #[arg(long = "source", value_name = "HOST:PORT")]
    sources: Vec<String>,
}

/// Makes the replica.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let ticket = agent::read_ticket(&verb.ctx, &arguments.ticket).await?;
    let fingerprint = ticket.content().primary.fingerprint();
    let name = arguments.name.clone();
    let what = InitReplica {
        name: arguments.name,
        ticket,
        volumes: arguments.volumes,
        addresses: arguments.sources,
    };
    let made = init_replica(&verb.ctx, &verb.state, what).await.map_err(|e| of_relationship(&e))?;
    let json = json!({
        "name": name.to_string(),
        "relationship": made.relationship.to_string(),
        "source_fingerprint": fingerprint,
    });
    verb.printer.data(&fingerprint, &json);
    verb.printer.note("above is the fingerprint of the primary: compare it by telephone");
    Ok(())
}
