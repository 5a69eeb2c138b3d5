//! Bookmarks: an instant that people have named, as a cut that every replica which is connected comes to hold
//! and keeps in its history under that name.
//!
//! Where writes stream the cut is made now, in the stream. A replica that is kept in cycles is asked for a
//! catch-up at once, and the bookmark is that one's cut.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use grain::{CutId, CutReason};
use journal::history::MAX_LABEL_BYTES;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::Source;
use super::cut::Publish;
use crate::state::{Bookmark, State};
use crate::{Error, Result};

/// Bookmarks whose cuts the source keeps apart; the history of a replica keeps them as long as anything else.
const KEPT: usize = 64;

/// Bookmarks that are being made.
#[derive(Default)]
pub(super) struct Bookmarks {
    /// The name of the cut that is made next.
    next: RefCell<Option<String>>,
    /// Replicas whose next catch-up is to be one.
    due: RefCell<BTreeMap<String, Due>>,
    asked: Notify,
}

/// A bookmark that the next catch-up of a replica is to be.
pub(super) struct Due {
    label: String,
    /// Told the cut; gone when nobody waits for it any more.
    made: oneshot::Sender<CutId>,
}

impl Due {
    /// The cut was made.
    pub(super) fn made(self, cut: CutId) {
        // Who asked may have gone away.
        self.made.send(cut).ok();
    }
}

/// What came of a bookmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmarked {
    /// By identity: the cut that is the bookmark there; none where it was not made in time.
    pub peers: Vec<(String, Option<CutId>)>,
}

/// Whether a bookmark may be called so.
pub fn check_label(label: &str) -> std::result::Result<(), String> {
    let fits = !label.trim().is_empty() && label.len() <= MAX_LABEL_BYTES;
    if fits && !label.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("a bookmark's name has 1 to {MAX_LABEL_BYTES} bytes and no control characters"))
}

impl State {
    /// What people call this cut.
    pub fn label_of(&self, cut: CutId) -> Option<String> {
        let found = self.bookmarks.iter().rev().find(|bookmark| bookmark.cut == cut);
        found.map(|bookmark| bookmark.label.clone())
    }
}

impl Source {
    /// Marks an instant for all replicas that are connected; waits at most so long for those in cycles.
    ///
    /// # Errors
    /// [`Error::State`] when no replica is connected, or the name is none; those of a cut.
    pub async fn bookmark(self: &Rc<Self>, label: String, wait: Duration) -> Result<Bookmarked> {
        check_label(&label).map_err(Error::State)?;
        let connected = self.links.connected();
        if connected.is_empty() {
            return Err(Error::State(
                "no replica is connected: a bookmark is a point in the history of replicas"
                    .to_owned(),
            ));
        }
        let mut peers = Vec::new();
        let mut waits = Vec::new();
        {
            let one = self.lock_cuts().await;
            let streaming = self.streaming();
            if !streaming.is_empty() {
                *self.bookmarks.next.borrow_mut() = Some(label.clone());
                let made = self
                    .cut_after(&one, CutReason::Bookmark, Publish::InStream, |_, _| Vec::new())
                    .await;
                self.bookmarks.next.borrow_mut().take();
                let cut = made?.cut.id;
                peers.extend(streaming.iter().map(|identity| (identity.clone(), Some(cut))));
            }
            for identity in connected.into_iter().filter(|other| !streaming.contains(other)) {
                let (made, cut) = oneshot::channel();
                let due = Due { label: label.clone(), made };
                self.bookmarks.due.borrow_mut().insert(identity.clone(), due);
                waits.push((identity, cut));
            }
        }
        self.bookmarks.asked.notify_waiters();
        // Who is late stays without: a name that comes later would name another instant.
        let until = Instant::now() + wait;
        for (identity, cut) in waits {
            let cut = tokio::time::timeout_at(until, cut).await;
            peers.push((identity, cut.ok().and_then(|made| made.ok())));
        }
        Ok(Bookmarked { peers })
    }

    /// Waits until the next catch-up of this replica is to be a bookmark.
    pub(super) async fn bookmark_due(&self, identity: &str) {
        loop {
            let asked = self.bookmarks.asked.notified();
            if self.is_bookmark_due(identity) {
                return;
            }
            asked.await;
        }
    }

    pub(super) fn is_bookmark_due(&self, identity: &str) -> bool {
        let due = self.bookmarks.due.borrow();
        due.get(identity).is_some_and(|due| !due.made.is_closed())
    }

    /// The bookmark that the next cut for this replica is to be. The cuts are locked by the caller, who makes it
    /// with the reason [`CutReason::Bookmark`].
    pub(super) fn take_bookmark(&self, identity: &str) -> Option<Due> {
        let due = self.bookmarks.due.borrow_mut().remove(identity);
        let due = due.filter(|due| !due.made.is_closed())?;
        *self.bookmarks.next.borrow_mut() = Some(due.label.clone());
        Some(due)
    }

    /// In the record of a cut that is a bookmark: what people call it.
    pub(super) fn record_bookmark(&self, s: &mut State, cut: CutId, unix_ms: u64) {
        let Some(label) = self.bookmarks.next.borrow_mut().take() else { return };
        s.bookmarks.push(Bookmark { cut, label, unix_ms });
        let old = s.bookmarks.len().saturating_sub(KEPT);
        s.bookmarks.drain(..old);
    }
}
