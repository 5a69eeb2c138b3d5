//! The peers that are let in: a set of pinned identities that may change while links are up.
//!
//! It is asked during each TLS handshake, on the thread of that link. Removing a peer keeps it from
//! coming back; ending the link that it has is the relationship's part.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::Identity;

/// A shared set of pinned identities. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct PeerSet {
    by_key: Arc<RwLock<BTreeMap<[u8; 32], Identity>>>,
}

impl PeerSet {
    /// The set of `peers`.
    pub fn new(peers: impl IntoIterator<Item = Identity>) -> Self {
        let set = PeerSet::default();
        set.replace(peers);
        set
    }

    /// Lets `peer` in from now on.
    pub fn allow(&self, peer: Identity) {
        let mut map = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(peer.signing_key(), peer);
    }

    /// Lets `peer` in no more. True if it was in the set.
    pub fn remove(&self, peer: &Identity) -> bool {
        let mut map = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        map.remove(&peer.signing_key()).is_some()
    }

    /// Lets exactly `peers` in from now on.
    pub fn replace(&self, peers: impl IntoIterator<Item = Identity>) {
        let new = peers.into_iter().map(|peer| (peer.signing_key(), peer)).collect();
        *self.by_key.write().unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// The pinned identity with this Ed25519 public key.
    pub fn find(&self, signing_key: &[u8; 32]) -> Option<Identity> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner).get(signing_key).copied()
    }
}
