//! Streaming at the source: every write goes to the peers that stream, in the order in which it hit the
//! disk, across all volumes.
//!
//! A stream begins at a cut, while the gate is closed: everything after that cut is in it. It queues until
//! the peer has committed the cut that it follows; from then on it is *in force*, and in sync mode writes
//! wait for it. It is bounded in bytes and age. When it ends, for whatever reason, nothing is lost by it:
//! the layers know what was written, and a catch-up follows.

mod cut;
mod outlet;
mod queue;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grain::{Content, Span, VolumeId};
use tokio::time::Instant;

use super::Source;
use crate::state::{Mode, OnLinkLoss};
use crate::{Error, Result};

use cut::CutRecord;
pub(super) use outlet::Outlet;
pub use outlet::StreamShown;
use queue::Item;
pub(super) use queue::{End, Stream};

/// Bytes of a streamed write at most; larger ones go in pieces, each with a number of its own.
const PIECE_BYTES: u64 = 1 << 20;

/// Bounds of a stream towards a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// Bytes that the peer may not have confirmed; beyond, the stream ends and a catch-up follows.
    pub queue_bytes: u64,
    /// How long it may take to confirm a write; beyond, likewise.
    pub age_limit: Duration,
    /// Time from one cut of the stream to the next.
    pub epoch: Duration,
    /// A catch-up of no more than this is followed by a stream.
    pub from_bytes: u64,
    /// The pause after a stream that overflowed before the next is tried; it doubles with each up to 64
    /// times as long.
    pub pause: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        StreamSettings {
            queue_bytes: 64 << 20,
            age_limit: Duration::from_secs(30),
            epoch: Duration::from_secs(10),
            from_bytes: 256 << 20,
            pause: Duration::from_secs(2),
        }
    }
}

/// All streams of a source.
#[derive(Default)]
pub(super) struct Streams {
    live: RefCell<Vec<Rc<Stream>>>,
    /// Writes of the present epoch so far, streamed or not (rule 8).
    sequence: Cell<u64>,
    /// Bytes of them.
    epoch_bytes: Cell<u64>,
    /// When the present epoch began.
    epoch_began: Cell<Option<Instant>>,
    /// Peers that were lost in sync mode, and when.
    lost: RefCell<Vec<(String, Instant)>>,
    changed: tokio::sync::Notify,
}

/// What a reply waits for: of each stream in sync mode the number that it has to have reached.
#[derive(Default)]
#[must_use]
pub struct Tickets(Vec<(Rc<Stream>, u64)>);

impl Tickets {
    /// Whether nothing has to be waited for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Streams {
    /// Writes of the present epoch.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// A stream of this peer is in force.
    pub(super) fn in_force(&self, identity: &str) -> bool {
        self.find(identity).is_some_and(|stream| stream.is_in_force())
    }

    pub(super) fn find(&self, identity: &str) -> Option<Rc<Stream>> {
        let live = self.live.borrow();
        live.iter().find(|stream| stream.is_of(identity) && !stream.has_ended()).cloned()
    }

    /// A stream begins; the gate is closed.
    pub(super) fn hold(&self, stream: Rc<Stream>) {
        self.live.borrow_mut().push(stream);
    }

    /// Whether writes wait for a peer that was lost.
    pub(super) fn anybody_lost(&self) -> bool {
        !self.lost.borrow().is_empty()
    }

    /// Writes wait for this peer to come back.
    pub(super) fn is_lost(&self, identity: &str) -> bool {
        self.lost_since(identity).is_some()
    }

    fn lost_since(&self, identity: &str) -> Option<Instant> {
        let lost = self.lost.borrow();
        lost.iter().find(|(of, _)| of == identity).map(|(_, since)| *since)
    }

    pub(super) fn forget_loss(&self, identity: &str) {
        self.lost.borrow_mut().retain(|(of, _)| of != identity);
        self.changed.notify_waiters();
    }
}

impl Source {
    /// A write has hit the disk: counts it, and gives it to every stream. `content` is asked for only when
    /// somebody streams. No waiting: whoever writes the same bytes next comes later.
    pub(super) fn stream_out(
        &self,
        volume: VolumeId,
        start: u64,
        bytes: u64,
        content: impl FnOnce() -> Content,
    ) -> Tickets {
        let streams = &self.streams;
        if bytes == 0 {
            return Tickets::default();
        }
        let first = streams.sequence.get() + 1;
        let live = streams.live.borrow();
        let content = if live.is_empty() { Content::Zero } else { content() };
        let pieces = match &content {
            Content::Zero => 1,
            Content::Data(_) => bytes.div_ceil(PIECE_BYTES),
        };
        streams.sequence.set(streams.sequence.get() + pieces);
        streams.epoch_bytes.set(streams.epoch_bytes.get() + bytes);
        let mut tickets = Vec::new();
        for stream in live.iter().filter(|stream| !stream.has_ended()) {
            for (sequence, (span, content)) in
                (first..).zip(pieces_of(volume, start, bytes, &content))
            {
                stream.push(Item::Write { sequence, span, content });
            }
            if stream.is_sync() && stream.is_in_force() {
                tickets.push((stream.clone(), stream.last()));
            }
        }
        Tickets(tickets)
    }

    /// A write failed on its way to the disk: what is there now nobody knows, and no stream has it. Its
    /// bits are set, so that a catch-up brings it.
    pub(super) fn write_failed(&self) {
        self.end_streams(End::WriteFailed);
    }

    /// The peer has committed the cut that its stream follows: writes are given to it from here on, and one
    /// that waited for its return goes on.
    pub(super) fn come_into_force(&self, stream: &Rc<Stream>) {
        stream.come_into_force();
        self.streams.forget_loss(stream.identity());
    }

    /// Ends all streams.
    pub(super) fn end_streams(&self, why: End) {
        let live: Vec<_> = self.streams.live.borrow().clone();
        for stream in live {
            self.end_stream(&stream, why);
        }
    }

    /// Ends a stream: from here on its peer counts as not streaming. Idempotent.
    pub(super) fn end_stream(&self, stream: &Rc<Stream>, why: End) {
        let was_in_force = stream.is_in_force();
        self.streams.live.borrow_mut().retain(|other| !Rc::ptr_eq(other, stream));
        if !stream.end(why) {
            return;
        }
        let blocks = matches!(
            self.mode_of(stream.identity()),
            Mode::Sync { on_link_loss: OnLinkLoss::Block { .. } }
        );
        if was_in_force && blocks && why.is_a_loss() {
            let entry = (stream.identity().to_owned(), Instant::now());
            self.streams.lost.borrow_mut().push(entry);
        }
        self.marked_alone.set(false);
        self.streams.changed.notify_waiters();
    }

    /// Whether this peer mirrors in sync mode now: what was answered is in its journal, and what was flushed
    /// is durable there.
    pub fn mirrors_in_sync(&self, identity: &str) -> bool {
        let stream = self.streams.find(identity);
        stream.is_some_and(|stream| stream.is_sync() && stream.is_mirroring())
    }

    /// Waits until the peers have what a reply promises: in their journals, or there durably.
    pub(super) async fn replicated(&self, tickets: Tickets, durable: bool) -> Result<()> {
        for (stream, number) in tickets.0 {
            if stream.reached(number, durable).await.is_err() {
                self.without(stream.identity()).await?;
            }
        }
        if self.streams.anybody_lost() {
            let lost: Vec<String> =
                self.streams.lost.borrow().iter().map(|(of, _)| of.clone()).collect();
            for identity in lost {
                self.without(&identity).await?;
            }
        }
        Ok(())
    }

    /// What a flush has to wait for, beside this side's disk.
    pub(super) fn flush_tickets(&self) -> Tickets {
        let live = self.streams.live.borrow();
        let waits = live.iter().filter(|s| s.is_sync() && s.is_in_force());
        let asked = waits.map(|stream| {
            stream.ask_durable(stream.last());
            (stream.clone(), stream.last())
        });
        Tickets(asked.collect())
    }

    /// A reply is to be given although the peer has not confirmed it: at once, or when the peer has come
    /// back, as its mode says.
    async fn without(&self, identity: &str) -> Result<()> {
        loop {
            let changed = self.streams.changed.notified();
            let Mode::Sync { on_link_loss: OnLinkLoss::Block { limit_ms } } =
                self.mode_of(identity)
            else {
                return Ok(());
            };
            // A later stream in force follows a cut that has everything written before it.
            let Some(since) = self.streams.lost_since(identity) else { return Ok(()) };
            if self.streams.in_force(identity) {
                return Ok(());
            }
            let until = since + Duration::from_millis(limit_ms);
            if tokio::time::timeout_at(until, changed).await.is_err() {
                return Err(Error::State(format!(
                    "the peer has not come back within {} s: the write is not acknowledged (on-link-loss \
                     is block)",
                    limit_ms / 1000
                )));
            }
        }
    }

    pub(super) fn mode_of(&self, identity: &str) -> Mode {
        self.store.with(|s| {
            let peer = s.peers.iter().find(|p| p.identity == identity);
            peer.map(|p| p.mode).unwrap_or_default()
        })
    }

    /// Sets how a peer is kept; durable on return, in effect at once. Idempotent.
    ///
    /// # Errors
    /// [`Error::State`] for an identity that is no peer; others when the disk fails.
    pub async fn set_mode(&self, identity: &str, mode: Mode) -> Result<()> {
        let known = self.store.change(|s| {
            let peer = s.peers.iter_mut().find(|p| p.identity == identity);
            peer.map(|p| p.mode = mode).is_some()
        });
        if !known {
            return Err(Error::State("that site is not a peer of this relationship".to_owned()));
        }
        self.store.save().await?;
        if !matches!(mode, Mode::Sync { on_link_loss: OnLinkLoss::Block { .. } }) {
            self.streams.forget_loss(identity);
            self.marked_alone.set(false);
        }
        if let Some(stream) = self.streams.find(identity) {
            stream.set_sync(mode.is_sync());
            if !mode.streams() {
                self.end_stream(&stream, End::Mode);
            }
        }
        self.streams.changed.notify_waiters();
        self.mode_changed.notify_waiters();
        Ok(())
    }
}

/// A write in pieces of at most [`PIECE_BYTES`]; zeros are one.
fn pieces_of(
    volume: VolumeId,
    start: u64,
    bytes: u64,
    content: &Content,
) -> impl Iterator<Item = (Span, Content)> {
    let step = match content {
        Content::Zero => bytes,
        Content::Data(_) => PIECE_BYTES,
    };
    let slice = |from: u64, len: u64| match content {
        Content::Zero => Content::Zero,
        Content::Data(data) => Content::Data(part(data, from, len)),
    };
    (0..bytes).step_by(step as usize).map(move |from| {
        let len = step.min(bytes - from);
        (Span { volume, start: start + from, bytes: len }, slice(from, len))
    })
}

fn part(data: &Bytes, from: u64, len: u64) -> Bytes {
    let end = (from + len).min(data.len() as u64);
    data.slice(from as usize..end as usize)
}
