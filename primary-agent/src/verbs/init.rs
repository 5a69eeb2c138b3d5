//! `init`: makes a relationship and writes its ticket.

use std::path::PathBuf;

use agent::problem::{of_relationship, of_wire, refused};
use agent::relationship::{InitSource, VolumeArgument, init_source};
use grain::GrainSize;
use serde_json::json;
use site::Problem;
use site::amount::parse_size;
use site::location::Name;
use wire::Identity;

use super::Context;

/// Flags of `init`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// A volume: a regular file or a block device; several are cut and copied together
    #[arg(long = "volume", value_name = "[ALIAS=]PATH", required = true)]
    volumes: Vec<VolumeArgument>,
    /// Identity of the site that receives the copy, as its `identity` prints it
    #[arg(long = "peer", value_name = "IDENTITY")]
    peers: Vec<Identity>,
    /// Unit of tracking, a power of two from 4KiB to 4MiB [default: 64KiB, more for huge volumes]
    #[arg(long, value_name = "SIZE", value_parser = parse_grain)]
    grain: Option<GrainSize>,
    /// Where this site will listen; written into the ticket
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// Where the ticket goes [default: NAME.ticket]
    #[arg(long, value_name = "FILE")]
    ticket: Option<PathBuf>,
}

fn parse_grain(text: &str) -> Result<GrainSize, String> {
    let bytes = parse_size(text).map_err(|e| e.to_string())?;
    GrainSize::from_bytes(bytes).map_err(|e| e.to_string())
}

/// Makes the relationship.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let name = arguments.name.clone();
    let path = arguments.ticket.unwrap_or_else(|| PathBuf::from(format!("{name}.ticket")));
    let path = std::path::absolute(&path)
        .map_err(|e| refused("ticket", format!("{} cannot be used: {e}", path.display())))?;
    let what = InitSource {
        name: arguments.name,
        volumes: arguments.volumes,
        peers: arguments.peers,
        grain: arguments.grain,
        addresses: arguments.addresses,
    };
    let made = init_source(&verb.ctx, &verb.state, what).await.map_err(|e| of_relationship(&e))?;
    let ticket = made.ticket.ok_or_else(|| Problem::bug("init made no ticket"))?;
    let text = ticket.to_text().map_err(|e| of_wire(&e))?;
    verb.ctx.storage.replace(&path, text.into()).await.map_err(|e| {
        refused("ticket", format!("the ticket {} was not written: {e}", path.display()))
            .safe("The relationship was made.")
            .todo("Write it again with `primary-agent init` under another name, or fix the path.")
    })?;
    let json = json!({
        "name": name.to_string(),
        "relationship": made.relationship.to_string(),
        "grain_bytes": made.geometry.grain.bytes(),
        "ticket": path.display().to_string(),
    });
    verb.printer.data(&path.display().to_string(), &json);
    verb.printer.note(&format!(
        "relationship {name}: {} volumes, grain {} KiB, fingerprint {}",
        made.geometry.volumes.len(),
        made.geometry.grain.bytes() >> 10,
        ticket.content().primary.fingerprint()
    ));
    verb.printer.note("bring the ticket to the other site; it holds no secret");
    Ok(())
}
