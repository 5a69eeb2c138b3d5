//! Peers of a relationship, as the verb `peer` shows and changes them.

use std::path::Path;

use disk::Context;
use replication::state::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use site::Problem;
use wire::{Identity, SiteKeys, Ticket, TicketContent};

use crate::problem::{of_wire, refused};

/// What `peer` is told.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum PeerArguments {
    /// Show them.
    List,
    /// Take one in, and make it a ticket where addresses are given.
    Add {
        /// Whom.
        identity: String,
        /// Where this site listens, for the ticket.
        addresses: Vec<String>,
    },
    /// Forget one.
    Remove {
        /// Whom, by the beginning of its identity or fingerprint.
        peer: String,
    },
}

/// The short form to read over the telephone; what it is, where it is none of ours.
pub(crate) fn fingerprint(identity: &str) -> String {
    let known = identity.parse::<Identity>();
    known.map_or_else(|_| identity.to_owned(), |identity| identity.fingerprint())
}

/// Whether the operator means this one.
pub(crate) fn is_meant(identity: &str, by: &str) -> bool {
    identity.starts_with(by) || fingerprint(identity).starts_with(by)
}

/// The one that the operator means.
pub(crate) fn meant(s: &State, by: &str) -> Result<String, Problem> {
    let mut found = s.peers.iter().map(|p| &p.identity).filter(|id| is_meant(id, by));
    let words = match (found.next(), found.count()) {
        (Some(identity), 0) => return Ok(identity.clone()),
        (None, _) => format!("no peer begins with {by}"),
        (Some(_), more) => format!("{} peers could be meant", more + 1),
    };
    Err(refused("peer", words)
        .todo("Name the peer by the beginning of its fingerprint; `peer list` shows them."))
}

/// All of them.
pub(crate) fn listed(s: &State) -> Value {
    let one = |peer: &replication::state::Peer| {
        json!({
            "identity": peer.identity,
            "fingerprint": fingerprint(&peer.identity),
            "acknowledged": peer.acked.map(|cut| cut.to_string()),
        })
    };
    json!({ "peers": s.peers.iter().map(one).collect::<Vec<_>>() })
}

/// The answer about one that was taken in, with a ticket where addresses are given.
pub(crate) fn answer_added(
    s: &State,
    identity: &Identity,
    added: bool,
    addresses: &[String],
    keys: &SiteKeys,
) -> Result<Value, Problem> {
    let ticket = match addresses.is_empty() {
        true => None,
        false => Some(ticket(s, addresses, keys)?),
    };
    Ok(json!({ "fingerprint": identity.fingerprint(), "added": added, "ticket": ticket }))
}

/// The answer about one that was forgotten.
pub(crate) fn answer_removed(identity: &str) -> Value {
    json!({ "fingerprint": fingerprint(identity), "removed": true })
}

/// A ticket to this site as the source, signed; its text.
fn ticket(s: &State, addresses: &[String], keys: &SiteKeys) -> Result<String, Problem> {
    let content = TicketContent {
        relationship: s.relationship,
        name: s.name.clone(),
        geometry: s.geometry.clone(),
        addresses: addresses.to_vec(),
        primary: keys.identity(),
    };
    text_of(&Ticket::sign(content, keys).map_err(|e| of_wire(&e))?)
}

/// Reads the ticket that a source wrote.
///
/// # Errors
/// A file that cannot be read, or is no ticket, or a forged one.
pub async fn read_ticket(ctx: &Context, path: &Path) -> Result<Ticket, Problem> {
    let failed =
        |path: &Path, e: std::io::Error| refused("ticket", format!("{}: {e}", path.display()));
    let path = std::path::absolute(path).map_err(|e| failed(path, e))?;
    let read = ctx.storage.read_all(&path, Ticket::MAX_BYTES as u64).await;
    let bytes = read.map_err(|e| failed(&path, e))?;
    Ticket::parse(&bytes).map_err(|e| of_wire(&e))
}

/// The text of a ticket, as it stands in a file.
pub(crate) fn text_of(ticket: &Ticket) -> Result<String, Problem> {
    let text = ticket.to_text().map_err(|e| of_wire(&e))?;
    Ok(String::from_utf8_lossy(text.as_ref()).into_owned())
}

/// The identity, as it is written everywhere.
pub(crate) fn parsed(text: &str) -> Result<Identity, Problem> {
    text.parse::<Identity>().map_err(|e| of_wire(&e))
}

/// Refuses this site itself: a peer that never acknowledges anything.
pub(crate) fn is_another(identity: &Identity, keys: &SiteKeys) -> Result<(), Problem> {
    match *identity == keys.identity() {
        true => {
            Err(refused("peer", "this is this site's own identity").safe("Nothing was changed."))
        }
        false => Ok(()),
    }
}

/// From whom a replica pulls from here on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FollowArguments {
    /// The source's ticket, as text.
    pub ticket: String,
    /// Other addresses than the ticket's.
    pub addresses: Vec<String>,
}

/// What came of it.
pub(crate) struct Followed {
    /// Who it is.
    pub(crate) source: Identity,
    /// It was another one, or elsewhere, before.
    pub(crate) changed: bool,
}

impl FollowArguments {
    /// Puts it into the state of a replica. Gives the new source.
    ///
    /// # Errors
    /// A ticket that is damaged, forged, or of another relationship; another role; a role that was handed
    /// over and not taken yet.
    pub(crate) fn apply(&self, s: &mut State, keys: &SiteKeys) -> Result<Followed, Problem> {
        let ticket = Ticket::parse(self.ticket.as_bytes()).map_err(|e| of_wire(&e))?;
        let content = ticket.content();
        if content.relationship != s.relationship || content.geometry != s.geometry {
            return Err(refused("ticket", "this is the ticket of another relationship")
                .safe("Nothing was changed.")
                .todo(
                    "Ask the new source for one: `peer add NAME IDENTITY --address HOST:PORT`.",
                ));
        }
        is_another(&content.primary, keys)?;
        let source = content.primary.to_string();
        let addresses = match self.addresses.is_empty() {
            true => content.addresses.clone(),
            false => self.addresses.clone(),
        };
        let Some(replica) = &mut s.replica else {
            return Err(refused("role", "this site is a source, and follows nobody")
                .safe("Nothing was changed.")
                .todo("`rejoin` makes it the replica of a site that was promoted."));
        };
        if replica.relinquished {
            return Err(refused("role", "the role was handed over to the site that is followed")
                .safe("Nothing was changed.")
                .todo("Let both meet once, or `promote` this site."));
        }
        let changed = replica.source != source || replica.addresses != addresses;
        if replica.source != source {
            // The word that this side gives way was given for another winner.
            replica.loser = None;
        }
        (replica.source, replica.addresses) = (source.clone(), addresses);
        s.add_peer(&source);
        Ok(Followed { source: content.primary, changed })
    }
}
