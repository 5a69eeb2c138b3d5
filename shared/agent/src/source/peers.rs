//! Peers of a running source.

use std::rc::Rc;

use serde_json::Value;
use site::Problem;

use super::SourceAgent;
use crate::peer::{self, PeerArguments};
use crate::problem::of_replication;

impl SourceAgent {
    /// Shows peers, takes one in, forgets one.
    pub(super) async fn peer(self: &Rc<Self>, arguments: PeerArguments) -> Result<Value, Problem> {
        let store = self.source.store();
        match arguments {
            PeerArguments::List => Ok(store.with(peer::listed)),
            PeerArguments::Add { identity, addresses } => {
                let identity = peer::parsed(&identity)?;
                peer::is_another(&identity, &self.relationship.keys)?;
                let added = self.source.add_peer(&identity.to_string()).await;
                let added = added.map_err(|e| of_replication(&e))?;
                self.allowed.allow(identity);
                if added {
                    self.events.note(format!("{} is a peer now", identity.fingerprint()));
                }
                let keys = &self.relationship.keys;
                store.with(|s| peer::answer_added(s, &identity, added, &addresses, keys))
            }
            PeerArguments::Remove { peer } => {
                let identity = store.with(|s| peer::meant(s, &peer))?;
                let may = store.with(|s| s.may_remove_peer(&identity));
                may.map_err(|e| of_replication(&e))?;
                // It may not come back in the meantime, and what it is being sent ends first.
                let pinned = peer::parsed(&identity)?;
                self.allowed.remove(&pinned);
                self.end_link(&identity);
                if let Err(e) = self.source.remove_peer(&identity).await {
                    self.allowed.allow(pinned);
                    return Err(of_replication(&e));
                }
                self.events.note(format!("{} is a peer no more", pinned.fingerprint()));
                Ok(peer::answer_removed(&identity))
            }
        }
    }
}
