//! [`Link`]: what a connection's task and the [`Reply`](crate::Reply) handles of its commands share.
//!
//! Counts what is in flight, holds the outbox, and wakes the task when an answer came from elsewhere.
//! Lives as long as the last command in flight, which may be longer than the connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use tokio::sync::Notify;

use crate::encode::Style;
use crate::outbox::Outbox;
use crate::stats::Counters;

/// What all connections of a server share.
#[derive(Default)]
pub(crate) struct Commons {
    /// The server is being shut down: new commands are answered `ESHUTDOWN`.
    pub(crate) stopping: Cell<bool>,
    /// Connections with a task, or with commands in flight.
    pub(crate) connections: Cell<usize>,
    /// Told when `connections` falls and when `stopping` is set.
    pub(crate) changed: Notify,
}

/// The shared half of a connection.
pub(crate) struct Link {
    pub(crate) style: Style,
    /// Size of the export in bytes, as it was negotiated.
    pub(crate) size_bytes: u64,
    /// The longest variable part of a reply chunk, in bytes.
    pub(crate) max_payload: usize,
    pub(crate) outbox: RefCell<Outbox>,
    pub(crate) counters: Counters,
    pub(crate) commons: Rc<Commons>,
    in_flight: Cell<usize>,
    in_flight_bytes: Cell<u64>,
    /// Cleared when nobody will send the outbox any more.
    open: Cell<bool>,
    /// The task itself is submitting and will look at the outbox next.
    submitting: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Link {
    pub(crate) fn new(
        style: Style,
        size_bytes: u64,
        max_payload: usize,
        commons: Rc<Commons>,
    ) -> Link {
        Link {
            style,
            size_bytes,
            max_payload,
            outbox: RefCell::default(),
            counters: Counters::default(),
            commons,
            in_flight: Cell::new(0),
            in_flight_bytes: Cell::new(0),
            open: Cell::new(true),
            submitting: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.get()
    }

    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes.get()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// A command of `bytes` bytes begins.
    pub(crate) fn begin(&self, bytes: u64) {
        self.in_flight.set(self.in_flight.get() + 1);
        self.in_flight_bytes.set(self.in_flight_bytes.get() + bytes);
    }

    /// A command of `bytes` bytes was answered.
    pub(crate) fn end(&self, bytes: u64) {
        self.in_flight.set(self.in_flight.get() - 1);
        self.in_flight_bytes.set(self.in_flight_bytes.get() - bytes);
        self.wake();
    }

    /// Nobody will send what is answered from now on.
    pub(crate) fn close(&self) {
        self.open.set(false);
        self.outbox.borrow_mut().clear();
    }

    /// Marks the stretch in which answers need not wake the task.
    pub(crate) fn set_submitting(&self, submitting: bool) {
        self.submitting.set(submitting);
    }

    /// Whom to wake when something changes.
    pub(crate) fn park(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        match &mut *slot {
            Some(old) => old.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Makes the task look again, unless it is about to.
    pub(crate) fn wake(&self) {
        if self.submitting.get() {
            return;
        }
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
