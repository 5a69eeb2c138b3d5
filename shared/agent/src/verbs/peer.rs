//! `peer`: the other sites of a relationship.

use std::path::PathBuf;

use replication::state::Role;
use serde_json::{Value, json};
use site::Problem;
use site::location::Name;
use wire::Identity;

use super::Context;
use crate::peer::{self, PeerArguments};
use crate::problem::{of_relationship, of_replication, refused};
use crate::{Relationship, reach};

/// Flags of `peer`.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Show them
    List {
        /// Name of the relationship
        name: Name,
    },
    /// Take another replica in; with an address it gets a ticket
    Add {
        /// Name of the relationship
        name: Name,
        /// Its identity, as its `identity` prints it
        identity: Identity,
        /// Where this site listens; written into the ticket
        #[arg(long = "address", value_name = "HOST:PORT")]
        addresses: Vec<String>,
        /// Where the ticket goes [default: NAME.ticket]
        #[arg(long, value_name = "FILE", requires = "addresses")]
        ticket: Option<PathBuf>,
    },
    /// Forget a replica: nothing is kept for it any more
    Remove {
        /// Name of the relationship
        name: Name,
        /// Which, by the beginning of its fingerprint or identity
        peer: String,
    },
}

/// Asks the running agent, or changes what is on disk.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let (name, body, file) = match arguments.action {
        Action::List { name } => (name, PeerArguments::List, None),
        Action::Add { name, identity, addresses, ticket } => {
            let path = ticket.unwrap_or_else(|| PathBuf::from(format!("{name}.ticket")));
            let path = std::path::absolute(&path)
                .map_err(|e| refused("ticket", format!("{}: {e}", path.display())))?;
            let identity = identity.to_string();
            let file = (!addresses.is_empty()).then_some(path);
            (name, PeerArguments::Add { identity, addresses }, file)
        }
        Action::Remove { name, peer } => (name, PeerArguments::Remove { peer }, None),
    };
    let mut answer = match reach::running(&verb.state, &name).await? {
        Some(client) => reach::verb(&client, "peer", &json!(body)).await?,
        None => at_rest(&verb, &name, &body).await?,
    };
    if let (Some(path), Some(text)) = (file, answer["ticket"].as_str()) {
        let written = verb.ctx.storage.replace(&path, text.to_owned().into()).await;
        written.map_err(|e| {
            refused("ticket", format!("the ticket {} was not written: {e}", path.display()))
                .safe("The peer was taken in.")
                .todo("Give the command again with another path: it may be said twice.")
        })?;
        answer["ticket"] = json!(path.display().to_string());
    }
    verb.printer.data(&words(&answer), &answer);
    Ok(())
}

fn words(answer: &Value) -> String {
    let word = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
    if let Some(peers) = answer["peers"].as_array() {
        let line = |p: &Value| {
            let has =
                p["acknowledged"].as_str().map_or("nothing yet".to_owned(), |c| format!("cut {c}"));
            format!("{}: has {has}", p["fingerprint"].as_str().unwrap_or_default())
        };
        return peers.iter().map(line).collect::<Vec<_>>().join("\n");
    }
    if answer["removed"] == true {
        return format!("{} is a peer no more", word("fingerprint"));
    }
    let mut text = format!("{} is a peer", word("fingerprint"));
    if answer["ticket"].is_string() {
        text.push_str(&format!("\n{}", word("ticket")));
    }
    text
}

/// No agent runs: the state is changed under its lock.
async fn at_rest(verb: &Context, name: &Name, body: &PeerArguments) -> Result<Value, Problem> {
    if matches!(body, PeerArguments::List) {
        let found = Relationship::open(&verb.ctx, &verb.state, name).await;
        return Ok(found.map_err(|e| of_relationship(&e))?.store.with(peer::listed));
    }
    let role = matches!(body, PeerArguments::Add { .. }).then_some(Role::Source);
    let opened = Relationship::open_locked(&verb.ctx, &verb.state, name, role).await;
    let (found, _lock) = opened.map_err(|e| of_relationship(&e))?;
    let answer = match body {
        PeerArguments::List => found.store.with(peer::listed),
        PeerArguments::Add { identity, addresses } => {
            let identity = peer::parsed(identity)?;
            peer::is_another(&identity, &found.keys)?;
            let added = found.store.change(|s| s.add_peer(&identity.to_string()));
            let keys = &found.keys;
            found.store.with(|s| peer::answer_added(s, &identity, added, addresses, keys))?
        }
        PeerArguments::Remove { peer } => {
            let identity = found.store.with(|s| peer::meant(s, peer))?;
            let removed = found.store.change(|s| s.remove_peer(&identity));
            removed.map_err(|e| of_replication(&e))?;
            peer::answer_removed(&identity)
        }
    };
    found.store.save().await.map_err(|e| of_replication(&e))?;
    Ok(answer)
}
