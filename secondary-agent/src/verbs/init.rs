//! `init`: makes the replica from the ticket.

use std::path::PathBuf;

use agent::problem::{of_relationship, of_wire, refused};
use agent::relationship::{InitReplica, VolumeArgument, init_replica};
use serde_json::json;
use site::Problem;
use site::location::Name;
use wire::Ticket;

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
    let path = std::path::absolute(&arguments.ticket)
        .map_err(|e| refused("ticket", format!("{}: {e}", arguments.ticket.display())))?;
    let read = verb.ctx.storage.read_all(&path, Ticket::MAX_BYTES as u64).await;
    let bytes = read.map_err(|e| refused("ticket", format!("{}: {e}", path.display())))?;
    let ticket = Ticket::parse(&bytes).map_err(|e| of_wire(&e))?;
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
