//! `follow`: this replica pulls from another source from here on.

use std::path::PathBuf;

use replication::state::Role;
use serde_json::json;
use site::Problem;
use site::location::Name;
use wire::Ticket;

use super::Context;
use crate::peer::{read_ticket, text_of};
use crate::problem::{of_relationship, of_replication, refused};
use crate::{FollowArguments, Relationship, reach};

/// A shorter beginning of a fingerprint says nothing.
const LEAST: usize = 9;

/// Flags of `follow`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// The new source's ticket, as its `peer add` wrote it
    #[arg(long, value_name = "FILE")]
    ticket: PathBuf,
    /// The new source's fingerprint, or its beginning, as its operator read it to you: anybody can make a ticket
    #[arg(long, value_name = "FINGERPRINT")]
    fingerprint: Option<String>,
    /// Where the new source listens [default: as the ticket says]
    #[arg(long = "source", value_name = "HOST:PORT")]
    sources: Vec<String>,
}

/// Tells the running agent, or changes what is on disk.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let ticket = read_ticket(&verb.ctx, &arguments.ticket).await?;
    compared(&ticket, arguments.fingerprint.as_deref())?;
    let ticket = text_of(&ticket)?;
    let body = FollowArguments { ticket, addresses: arguments.sources };
    let answer = match reach::running(&verb.state, &arguments.name).await? {
        Some(client) => reach::verb(&client, "follow", &json!(body)).await?,
        None => {
            let (name, role) = (&arguments.name, Some(Role::Replica));
            let opened = Relationship::open_locked(&verb.ctx, &verb.state, name, role).await;
            let (found, _lock) = opened.map_err(|e| of_relationship(&e))?;
            let followed = found.store.change(|s| body.apply(s, &found.keys))?;
            found.store.save().await.map_err(|e| of_replication(&e))?;
            json!({ "source": followed.source.fingerprint() })
        }
    };
    let source = answer["source"].as_str().unwrap_or_default();
    verb.printer.data(&format!("follows {source} from here on"), &answer);
    Ok(())
}

/// A ticket is signed by whoever made it. Whether that is the new source, only its operator can say.
fn compared(ticket: &Ticket, told: Option<&str>) -> Result<(), Problem> {
    let is = ticket.content().primary.fingerprint();
    let todo = format!(
        "Ask the operator of the new source for its fingerprint (`identity` prints it there). If it is \
         {is}, give --fingerprint {is}."
    );
    match told {
        Some(told) if told.len() >= LEAST && is.starts_with(told) => Ok(()),
        Some(told) => {
            Err(refused("fingerprint", format!("the ticket was made by {is}, not by {told}"))
                .safe("Nothing was changed.")
                .todo(todo))
        }
        None => Err(refused(
            "fingerprint",
            format!("the ticket was made by {is}: is that the new source?"),
        )
        .safe("Nothing was changed.")
        .todo(todo)),
    }
}
