//! One working session a replica: a new one ends the old one first (rule 12).
//!
//! A session takes its peer's place when it begins to work, not when it attaches: who attaches only to
//! show a plan disturbs nobody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

/// The places of all peers, by identity.
#[derive(Default)]
pub(super) struct Links {
    taken: RefCell<BTreeMap<String, Rc<Slot>>>,
}

/// One session, in its place or not.
#[derive(Default)]
pub(super) struct Slot {
    superseded: Notify,
    left: Notify,
}

impl Slot {
    /// Waits until a newer session wants the place.
    pub(super) async fn superseded(&self) {
        self.superseded.notified().await;
    }
}

/// The place, until it is dropped.
pub(super) struct Place {
    links: Rc<Links>,
    identity: String,
    slot: Rc<Slot>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.links.taken.borrow_mut();
        if taken.get(&self.identity).is_some_and(|slot| Rc::ptr_eq(slot, &self.slot)) {
            taken.remove(&self.identity);
        }
        drop(taken);
        self.slot.left.notify_waiters();
    }
}

impl Links {
    /// The identities of those that are served.
    pub(super) fn connected(&self) -> Vec<String> {
        self.taken.borrow().keys().cloned().collect()
    }

    /// Takes the place of `identity` for `slot`, after whoever holds it has left.
    pub(super) async fn take(self: &Rc<Self>, identity: &str, slot: &Rc<Slot>) -> Place {
        loop {
            let holder = self.taken.borrow().get(identity).cloned();
            let Some(holder) = holder else { break };
            // Made before the word is given, so that no leaving is overlooked.
            let left = holder.left.notified();
            holder.superseded.notify_one();
            left.await;
        }
        self.taken.borrow_mut().insert(identity.to_owned(), slot.clone());
        Place { links: self.clone(), identity: identity.to_owned(), slot: slot.clone() }
    }
}
