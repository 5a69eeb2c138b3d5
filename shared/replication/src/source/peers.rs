//! Peers come and go: each has what it has acknowledged, its mark, and its mode.

use std::rc::Rc;

use super::Source;
use super::keep::forget_promotion;
use super::stream::End;
use crate::state::{Peer, State};
use crate::{Error, Result};

impl State {
    /// Takes another peer in; false when it is one already. It has acknowledged nothing: layers are kept for
    /// it from here on.
    pub fn add_peer(&mut self, identity: &str) -> bool {
        let known = self.peers.iter().any(|peer| peer.identity == identity);
        if !known {
            self.peers.push(Peer::new(identity.to_owned()));
        }
        !known
    }

    /// Forgets a peer. What was kept for it alone goes.
    ///
    /// # Errors
    /// [`Error::State`] for one that is not known, and for the last one.
    pub fn remove_peer(&mut self, identity: &str) -> Result<()> {
        self.may_remove_peer(identity)?;
        self.peers.retain(|peer| peer.identity != identity);
        Ok(())
    }

    /// Whether a peer can be forgotten.
    ///
    /// # Errors
    /// Those of [`State::remove_peer`].
    pub fn may_remove_peer(&self, identity: &str) -> Result<()> {
        if self.peers.iter().all(|peer| peer.identity != identity) {
            return Err(Error::State("that site is not a peer of this relationship".to_owned()));
        }
        if self.peers.len() == 1 {
            return Err(Error::State(
                "this is the only peer: without one nothing would be kept for anybody".to_owned(),
            ));
        }
        if self.replica.as_ref().is_some_and(|replica| replica.source == identity) {
            return Err(Error::State(
                "this site follows that one: `follow` another first".to_owned(),
            ));
        }
        Ok(())
    }
}

impl Source {
    /// Takes another peer in, durably; false when it is one already.
    ///
    /// # Errors
    /// When the disk fails; then it may be one after the next start.
    pub async fn add_peer(self: &Rc<Self>, identity: &str) -> Result<bool> {
        // The next reply is given without it: it waits for a mark.
        let added = self.store.change(|s| s.add_peer(identity));
        if added {
            self.marked_alone.set(false);
        }
        self.store.save().await?;
        let _one = self.lock_cuts().await;
        self.recount_owed().await?;
        Ok(added)
    }

    /// Forgets a peer, durably. Its session is to be ended before.
    ///
    /// # Errors
    /// Those of [`State::remove_peer`]; others when the disk fails.
    pub async fn remove_peer(self: &Rc<Self>, identity: &str) -> Result<()> {
        let before = self.store.with(|s| s.peers.clone());
        self.store.change(|s| s.remove_peer(identity))?;
        if let Some(stream) = self.streams.find(identity) {
            self.end_stream(&stream, End::Mode);
        }
        // Whoever waits for it waits no more.
        self.streams.forget_loss(identity);
        if let Err(e) = self.store.save().await {
            // It may be said again: until the record is there, it is a peer.
            let gone = before.into_iter().filter(|peer| peer.identity == identity);
            self.store.change(|s| s.peers.extend(gone));
            return Err(e);
        }
        self.store.change(forget_promotion);
        self.housekeep().await?;
        let _one = self.lock_cuts().await;
        self.recount_owed().await
    }
}
