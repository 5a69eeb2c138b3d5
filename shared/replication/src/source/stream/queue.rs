//! One peer's stream: what is queued, what the peer has confirmed, and who waits for that. Plain state,
//! changed by methods that do not wait.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use grain::{Content, CutId, Span};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{CutRecord, StreamSettings};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer confirms more slowly than is written.
    Overflow,
    /// A write was not confirmed in time.
    TooOld,
    /// The link broke, or the session ended.
    Link,
    /// The replica ended it, or did not begin.
    Replica,
    /// A write failed on this side's disk.
    WriteFailed,
    /// A cut could not be made durable.
    CutFailed,
    /// The peer's mode does not stream any more.
    Mode,
    /// The role goes to the peer.
    Handover,
    /// The source stops.
    Stopping,
}

impl End {
    /// Whether writes that were waiting have lost their peer, rather than been released from it.
    pub(crate) fn is_a_loss(self) -> bool {
        !matches!(self, End::Mode | End::Handover | End::Stopping)
    }

    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            End::Overflow => "the queue is full: the peer confirms more slowly than is written",
            End::TooOld => "a write was not confirmed in time",
            End::Link => "the link ended",
            End::Replica => "the replica did not take it (any more)",
            End::WriteFailed => "a write failed on the source's disk",
            End::CutFailed => "a cut could not be recorded",
            End::Mode => "the mode was changed",
            End::Handover => "the role is handed over",
            End::Stopping => "the source stops",
        }
    }
}

/// What is queued.
#[derive(Clone)]
pub(crate) enum Item {
    /// A write, by its sequence number in the epoch.
    Write { sequence: u64, span: Span, content: Content },
    /// An epoch ends here.
    Cut(Rc<CutRecord>),
}

impl Item {
    fn bytes(&self) -> u64 {
        match self {
            Item::Write { content: Content::Data(data), .. } => data.len() as u64 + 128,
            Item::Write { .. } | Item::Cut(_) => 128,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The cut that it follows is not committed at the peer.
    Waiting,
    InForce,
    Ended(End),
}

type Waiters = BTreeMap<u64, Vec<oneshot::Sender<()>>>;

/// See the module's text.
pub(crate) struct Stream {
    identity: String,
    follows: CutId,
    settings: StreamSettings,
    sync: Cell<bool>,
    phase: Cell<Phase>,
    queue: RefCell<VecDeque<(u64, Item)>>,
    /// Not confirmed: number, bytes, since when.
    unconfirmed: RefCell<VecDeque<(u64, u64, Instant)>>,
    unconfirmed_bytes: Cell<u64>,
    overflowed: Cell<bool>,
    last: Cell<u64>,
    received: Cell<u64>,
    durable: Cell<u64>,
    asked_durable: Cell<u64>,
    told_durable: Cell<u64>,
    /// What was queued when it came into force: once that is durable at the peer, it has everything.
    backlog: Cell<u64>,
    wait_received: RefCell<Waiters>,
    wait_durable: RefCell<Waiters>,
    changed: Notify,
    over: Notify,
}

impl Stream {
    pub(crate) fn new(
        identity: String,
        follows: CutId,
        sync: bool,
        settings: StreamSettings,
    ) -> Rc<Stream> {
        Rc::new(Stream {
            identity,
            follows,
            settings,
            sync: Cell::new(sync),
            phase: Cell::new(Phase::Waiting),
            queue: RefCell::default(),
            unconfirmed: RefCell::default(),
            unconfirmed_bytes: Cell::new(0),
            overflowed: Cell::new(false),
            last: Cell::new(0),
            received: Cell::new(0),
            durable: Cell::new(0),
            asked_durable: Cell::new(0),
            told_durable: Cell::new(0),
            backlog: Cell::new(u64::MAX),
            wait_received: RefCell::default(),
            wait_durable: RefCell::default(),
            changed: Notify::new(),
            over: Notify::new(),
        })
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn is_of(&self, identity: &str) -> bool {
        self.identity == identity
    }

    /// The cut after which it begins.
    pub(crate) fn follows(&self) -> CutId {
        self.follows
    }

    pub(crate) fn is_sync(&self) -> bool {
        self.sync.get()
    }

    pub(crate) fn set_sync(&self, sync: bool) {
        if sync == self.sync.replace(sync) {
            return;
        }
        match sync {
            // What was answered without waiting comes first.
            true if self.is_in_force() => {
                self.backlog.set(self.last.get());
                self.ask_durable(self.last.get());
            }
            true => {}
            // Nobody has to wait any more.
            false => self.wake_all(),
        }
    }

    pub(crate) fn is_in_force(&self) -> bool {
        self.phase.get() == Phase::InForce
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.why_ended().is_some()
    }

    pub(crate) fn why_ended(&self) -> Option<End> {
        match self.phase.get() {
            Phase::Ended(why) => Some(why),
            _ => None,
        }
    }

    /// In force, and the peer has what was queued before, durably: replies to that did not wait for it.
    pub(crate) fn is_mirroring(&self) -> bool {
        self.is_in_force() && self.durable.get() >= self.backlog.get()
    }

    /// The peer has committed the cut that it follows.
    pub(crate) fn come_into_force(&self) {
        if self.phase.get() == Phase::Waiting {
            self.phase.set(Phase::InForce);
            self.backlog.set(self.last.get());
            self.ask_durable(self.last.get());
            let now = Instant::now();
            for (_, _, since) in self.unconfirmed.borrow_mut().iter_mut() {
                // It could not be confirmed before.
                *since = now;
            }
        }
    }

    /// The number of the newest item.
    pub(crate) fn last(&self) -> u64 {
        self.last.get()
    }

    /// Queues an item; one that does not fit is dropped, and [`Stream::overflowed`] says so from then on.
    pub(crate) fn push(&self, item: Item) {
        if self.has_ended() {
            return;
        }
        let (number, bytes) = (self.last.get() + 1, item.bytes());
        self.last.set(number);
        self.unconfirmed_bytes.set(self.unconfirmed_bytes.get() + bytes);
        if self.unconfirmed_bytes.get() > self.settings.queue_bytes {
            self.overflowed.set(true);
        }
        if self.overflowed() {
            // Nothing after a gap counts; what is queued is let go.
            self.queue.borrow_mut().clear();
            self.changed.notify_one();
            return;
        }
        self.unconfirmed.borrow_mut().push_back((number, bytes, Instant::now()));
        self.queue.borrow_mut().push_back((number, item));
        self.changed.notify_one();
    }

    /// More waited than may, and something was dropped: whatever is confirmed later, it is at its end.
    pub(crate) fn overflowed(&self) -> bool {
        self.overflowed.get()
    }

    /// A write has waited too long.
    pub(crate) fn is_too_old(&self) -> bool {
        let unconfirmed = self.unconfirmed.borrow();
        let oldest = unconfirmed.front().map(|(_, _, since)| since.elapsed());
        self.is_in_force() && oldest.is_some_and(|age| age > self.settings.age_limit)
    }

    /// The next item, and the bytes behind it.
    pub(crate) fn next(&self) -> Option<(u64, Item, u64)> {
        if self.overflowed() {
            return None;
        }
        let mut queue = self.queue.borrow_mut();
        if let Some((_, Item::Cut(cut))) = queue.front()
            && !cut.is_durable()
        {
            return None;
        }
        let (number, item) = queue.pop_front()?;
        Some((number, item, self.unconfirmed_bytes.get()))
    }

    /// A number that the peer is to make durable and has not been told.
    pub(crate) fn next_durable(&self) -> Option<u64> {
        let asked = self.asked_durable.get();
        let sent = self.queue.borrow().front().map_or(self.last.get(), |(number, _)| number - 1);
        (asked > self.told_durable.get() && asked <= sent).then(|| {
            self.told_durable.set(sent);
            sent
        })
    }

    /// A flush needs everything up to `number` to be durable at the peer.
    pub(crate) fn ask_durable(&self, number: u64) {
        self.asked_durable.set(self.asked_durable.get().max(number));
        self.changed.notify_one();
    }

    /// The peer has confirmed. False when that cannot be.
    pub(crate) fn confirmed(&self, received: u64, durable: u64) -> bool {
        let sent = self.queue.borrow().front().map_or(self.last.get(), |(number, _)| number - 1);
        if received > sent || durable > received || durable < self.durable.get() {
            return false;
        }
        self.received.set(self.received.get().max(received));
        self.durable.set(durable);
        let mut unconfirmed = self.unconfirmed.borrow_mut();
        while let Some((number, bytes, _)) = unconfirmed.front().copied()
            && number <= received
        {
            self.unconfirmed_bytes.set(self.unconfirmed_bytes.get() - bytes);
            unconfirmed.pop_front();
        }
        wake(&self.wait_received, received);
        wake(&self.wait_durable, durable);
        true
    }

    /// Bytes that the peer has not confirmed, and how long the oldest of them has waited.
    pub(crate) fn backlog(&self) -> (u64, std::time::Duration) {
        let unconfirmed = self.unconfirmed.borrow();
        let age = unconfirmed.front().map(|(_, _, since)| since.elapsed());
        (self.unconfirmed_bytes.get(), age.unwrap_or_default())
    }

    /// Waits until something is to be sent, or it has ended. For one caller at a time.
    pub(crate) async fn moved(&self) {
        self.changed.notified().await;
    }

    /// Waits for its end.
    pub(crate) async fn over(&self) -> End {
        loop {
            let over = self.over.notified();
            if let Some(why) = self.why_ended() {
                return why;
            }
            over.await;
        }
    }

    /// Wakes who waits in [`Stream::moved`].
    pub(crate) fn nudge(&self) {
        self.changed.notify_one();
    }

    /// Waits until the peer has everything up to `number`. An error says that the stream ended before.
    pub(crate) async fn reached(&self, number: u64, durable: bool) -> Result<(), ()> {
        let (at, waiters) = match durable {
            true => (&self.durable, &self.wait_durable),
            false => (&self.received, &self.wait_received),
        };
        if at.get() >= number {
            return Ok(());
        }
        if self.has_ended() {
            return Err(());
        }
        if durable {
            self.ask_durable(number);
        }
        let (send, receive) = oneshot::channel();
        waiters.borrow_mut().entry(number).or_default().push(send);
        receive.await.ok();
        if at.get() >= number || !self.is_sync() { Ok(()) } else { Err(()) }
    }

    /// False when it had ended already.
    pub(crate) fn end(&self, why: End) -> bool {
        if self.has_ended() {
            return false;
        }
        self.phase.set(Phase::Ended(why));
        self.queue.borrow_mut().clear();
        self.unconfirmed.borrow_mut().clear();
        self.wake_all();
        self.changed.notify_one();
        self.over.notify_waiters();
        true
    }

    fn wake_all(&self) {
        wake(&self.wait_received, u64::MAX);
        wake(&self.wait_durable, u64::MAX);
    }
}

fn wake(waiters: &RefCell<Waiters>, up_to: u64) {
    let mut waiters = waiters.borrow_mut();
    while let Some(entry) = waiters.first_entry().filter(|entry| *entry.key() <= up_to) {
        for waiter in entry.remove() {
            // Who went away does not need to know.
            waiter.send(()).ok();
        }
    }
}
