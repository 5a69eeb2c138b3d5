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
use tokio::sync::Notify;

use super::Source;
use super::cut::Publish;
use crate::state::{Bookmark, State};
use crate::{Error, Result};

/// The longest name of a bookmark, in bytes.
pub const MAX_LABEL: usize = 255;
/// Bookmarks whose cuts the source keeps apart; the history of a replica keeps them as long as anything else.
const KEPT: usize = 64;

/// Bookmarks that are being made.
#[derive(Default)]
pub(super) struct Bookmarks {
    /// The name of the cut that is made next.
    next: RefCell<Option<String>>,
    /// Replicas whose next catch-up is to be one, and its name.
    due: RefCell<BTreeMap<String, String>>,
    asked: Notify,
    /// Who has got one.
    made: RefCell<Vec<(String, CutId)>>,
    moved: Notify,
}

/// What came of a bookmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bookmarked {
    /// By identity: the cut that is the bookmark there; none where it was not made in time.
    pub peers: Vec<(String, Option<CutId>)>,
}

/// Whether a bookmark may be called so.
pub fn check_label(label: &str) -> std::result::Result<(), String> {
    let fits = !label.trim().is_empty() && label.len() <= MAX_LABEL;
    if fits && !label.chars().any(char::is_control) {
        return Ok(());
    }
    Err(format!("a bookmark's name has 1 to {MAX_LABEL} bytes and no control characters"))
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
            self.bookmarks.made.borrow_mut().clear();
            let mut due = self.bookmarks.due.borrow_mut();
            let others = connected.into_iter().filter(|identity| !streaming.contains(identity));
            for identity in others {
                due.insert(identity.clone(), label.clone());
                peers.push((identity, None));
            }
        }
        self.bookmarks.asked.notify_waiters();
        // Who is late stays without: a name that comes later would name another instant.
        drop(tokio::time::timeout(wait, self.all_made(&mut peers)).await);
        let left = peers.iter().filter(|(_, cut)| cut.is_none());
        for (identity, _) in left {
            self.bookmarks.due.borrow_mut().remove(identity);
        }
        Ok(Bookmarked { peers })
    }

    async fn all_made(&self, peers: &mut [(String, Option<CutId>)]) {
        loop {
            let moved = self.bookmarks.moved.notified();
            for (identity, cut) in peers.iter_mut().filter(|(_, cut)| cut.is_none()) {
                let mut made = self.bookmarks.made.borrow_mut();
                if let Some(at) = made.iter().position(|(who, _)| who == identity) {
                    *cut = Some(made.swap_remove(at).1);
                }
            }
            if peers.iter().all(|(_, cut)| cut.is_some()) {
                return;
            }
            moved.await;
        }
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
        self.bookmarks.due.borrow().contains_key(identity)
    }

    /// The reason of the next cut for this replica. The cuts are locked by the caller.
    pub(super) fn reason_for(&self, identity: &str) -> CutReason {
        let label = self.bookmarks.due.borrow_mut().remove(identity);
        match label.is_some() {
            true => {
                *self.bookmarks.next.borrow_mut() = label;
                CutReason::Bookmark
            }
            false => CutReason::Cycle,
        }
    }

    /// The cut of this replica's bookmark was made.
    pub(super) fn bookmark_made(&self, identity: &str, cut: CutId) {
        self.bookmarks.made.borrow_mut().push((identity.to_owned(), cut));
        self.bookmarks.moved.notify_waiters();
    }

    /// In the record of a cut that is a bookmark: what people call it.
    pub(super) fn record_bookmark(&self, s: &mut State, cut: CutId, unix_ms: u64) {
        let Some(label) = self.bookmarks.next.borrow_mut().take() else { return };
        s.bookmarks.push(Bookmark { cut, label, unix_ms });
        let old = s.bookmarks.len().saturating_sub(KEPT);
        s.bookmarks.drain(..old);
    }
}
