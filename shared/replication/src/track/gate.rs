//! The gate: every write is inside it from before its bits are set until its base write is done.
//!
//! A cut closes the gate, waits until nobody is inside, swaps the open layer and opens it again:
//! every write is then wholly before or wholly after the cut. A [`Ticket`] belongs to the I/O and is
//! given back when the I/O is done, not when a client loses interest.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Error, Result};

#[derive(Default)]
struct Inner {
    closed: Cell<bool>,
    inside: Cell<u64>,
    drained: RefCell<Option<oneshot::Sender<()>>>,
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
}

/// See the module's text. Cheap to clone.
#[derive(Clone, Default)]
pub struct Gate {
    inner: Rc<Inner>,
}

/// The right to be inside the gate; leaves on drop.
pub struct Ticket {
    inner: Rc<Inner>,
}

/// A closed and drained gate; opens on drop.
pub struct Closed {
    inner: Rc<Inner>,
}

impl Gate {
    /// Goes in without waiting, if the gate is open.
    pub fn try_enter(&self) -> Option<Ticket> {
        if self.inner.closed.get() {
            return None;
        }
        self.inner.inside.set(self.inner.inside.get() + 1);
        Some(Ticket { inner: self.inner.clone() })
    }

    /// Waits until the gate is open and goes in.
    pub async fn enter(&self) -> Ticket {
        loop {
            if let Some(ticket) = self.try_enter() {
                return ticket;
            }
            let (send, receive) = oneshot::channel();
            self.inner.waiting.borrow_mut().push(send);
            // An error means that the gate was dropped with us waiting; the loop then ends us.
            if receive.await.is_err() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// How many are inside.
    pub fn inside(&self) -> u64 {
        self.inner.inside.get()
    }

    /// Closes the gate and waits until nobody is inside, at most `limit`; then gives up and opens
    /// again. Only one at a time may close; a second one gets an error.
    pub async fn close(&self, limit: Duration) -> Result<Closed> {
        if self.inner.closed.replace(true) {
            return Err(Error::State("another cut is being made".to_owned()));
        }
        let closed = Closed { inner: self.inner.clone() };
        if self.inner.inside.get() > 0 {
            let (send, receive) = oneshot::channel();
            *self.inner.drained.borrow_mut() = Some(send);
            if tokio::time::timeout(limit, receive).await.is_err() {
                self.inner.drained.borrow_mut().take();
                return Err(Error::CutTimeout(limit.as_millis() as u64));
            }
        }
        Ok(closed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let inside = self.inner.inside.get() - 1;
        self.inner.inside.set(inside);
        if inside == 0
            && let Some(drained) = self.inner.drained.borrow_mut().take()
        {
            // The cut may have given up meanwhile.
            drained.send(()).ok();
        }
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.inner.closed.set(false);
        for waiter in self.inner.waiting.borrow_mut().drain(..) {
            waiter.send(()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_cut_waits_for_those_inside_and_holds_those_outside() {
        let gate = Gate::default();
        let ticket = gate.try_enter().unwrap();
        let closing = gate.close(Duration::from_secs(1));
        tokio::pin!(closing);
        assert!(futures_util::poll!(&mut closing).is_pending());
        assert!(gate.try_enter().is_none());
        drop(ticket);
        let closed = closing.await.unwrap();
        let entering = gate.enter();
        tokio::pin!(entering);
        assert!(futures_util::poll!(&mut entering).is_pending());
        drop(closed);
        let _inside = entering.await;
        assert_eq!(gate.inside(), 1);
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn a_cut_that_cannot_drain_gives_up_and_reopens() {
        let gate = Gate::default();
        let _stuck = gate.try_enter().unwrap();
        let outcome = gate.close(Duration::from_millis(50)).await;
        assert!(matches!(outcome, Err(Error::CutTimeout(50))));
        assert!(gate.try_enter().is_some());
    }
}
