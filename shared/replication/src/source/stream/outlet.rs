//! A stream on its link: what is queued goes out, what the peer confirms comes in, epochs end in time,
//! until something ends it. The replica then says how far it came, and a catch-up follows.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use grain::{Content, Position};
use tokio::time::Instant;

use super::super::Source;
use super::super::serve_link::digest;
use super::{End, Item, Stream, StreamSettings};
use crate::protocol::{Connection, Inbox, Message, unexpected};
use crate::{Error, Result};

/// How often age and epoch are looked at, when the epoch is not shorter.
const TICK: Duration = Duration::from_millis(250);
/// The pause after an overflow grows up to so many times.
const MOST_DOUBLINGS: u32 = 6;

/// What the operator sees of a stream.
#[derive(Debug, Default)]
pub struct StreamShown {
    /// It is in force, and what was queued before has been confirmed.
    pub mirroring: Cell<bool>,
    /// Bytes that the peer has not confirmed.
    pub backlog_bytes: Cell<u64>,
    /// How long the oldest of them has waited.
    pub age: Cell<Duration>,
    /// Writes sent since the start of the session.
    pub writes: Cell<u64>,
    /// Streams that ended because the peer was too slow.
    pub overflows: Cell<u64>,
    /// Why the last stream ended.
    pub ended: RefCell<Option<&'static str>>,
    /// No stream is tried before.
    not_before: Cell<Option<Instant>>,
    doublings: Cell<u32>,
}

impl StreamShown {
    /// Whether a stream may begin now: after an overflow there is a pause.
    pub(in crate::source) fn may_begin(&self) -> bool {
        self.not_before.get().is_none_or(|at| at <= Instant::now())
    }

    fn ended(&self, why: End, lived: Duration, settings: &StreamSettings) {
        self.mirroring.set(false);
        *self.ended.borrow_mut() = Some(why.words());
        if !matches!(why, End::Overflow | End::TooOld) {
            return;
        }
        self.overflows.set(self.overflows.get() + 1);
        // One that held for long was worth it.
        let pause = settings.pause * (1 << self.doublings.get());
        let doublings = if lived > pause * 10 { 0 } else { self.doublings.get() + 1 };
        self.doublings.set(doublings.min(MOST_DOUBLINGS));
        self.not_before.set(Some(Instant::now() + pause));
    }
}

/// See the module's text.
pub(in crate::source) struct Outlet<'a> {
    pub(in crate::source) source: &'a Rc<Source>,
    pub(in crate::source) connection: &'a Connection,
    pub(in crate::source) identity: &'a str,
    pub(in crate::source) settings: &'a StreamSettings,
    pub(in crate::source) shown: &'a StreamShown,
    pub(in crate::source) stream: Rc<Stream>,
}

/// Bytes after which the replica wants an epoch to end.
const DEFAULT_EPOCH_BYTES: u64 = 64 << 20;

impl Outlet<'_> {
    /// Runs until the stream has ended and the replica has said how far it came.
    pub(in crate::source) async fn run(&self, inbox: &mut Inbox) -> Result<Position> {
        let begun = Instant::now();
        let epoch_bytes = Cell::new(DEFAULT_EPOCH_BYTES);
        self.connection.send(&Message::Stream { cut: self.stream.follows() }).await?;
        let outcome = tokio::select! {
            biased;
            outcome = self.hear(inbox, &epoch_bytes) => outcome.map(|position| (End::Replica, position)),
            outcome = self.say() => Err(outcome.err().unwrap_or(Error::Cancelled)),
            outcome = self.watch(&epoch_bytes) => Err(outcome.err().unwrap_or(Error::Cancelled)),
            why = self.stream.over() => Ok((why, None)),
        };
        let why = match &outcome {
            Ok((why, _)) => *why,
            Err(_) => End::Link,
        };
        self.source.end_stream(&self.stream, why);
        let why = self.stream.why_ended().unwrap_or(why);
        self.shown.ended(why, begun.elapsed(), self.settings);
        tracing::info!(why = why.words(), "a stream ended");
        let (why, position) = outcome?;
        let end = Message::StreamEnd { text: why.words().to_owned() };
        self.connection.send(&end).await?;
        match position {
            Some(position) => Ok(position),
            None => self.last_words(inbox).await,
        }
    }

    /// Sends what is queued, in order.
    async fn say(&self) -> Result<()> {
        loop {
            if self.stream.overflowed() {
                self.source.end_stream(&self.stream, End::Overflow);
            }
            // Whoever waits for its end has it from here.
            if self.stream.has_ended() {
                std::future::pending::<()>().await;
            }
            while let Some((number, item, behind)) = self.stream.next() {
                self.send(number, item, behind).await?;
                self.flush().await?;
            }
            self.flush().await?;
            if !self.stream.overflowed() && !self.stream.has_ended() {
                self.stream.moved().await;
            }
        }
    }

    async fn flush(&self) -> Result<()> {
        match self.stream.next_durable() {
            Some(number) => self.connection.send(&Message::StreamFlush { number }).await,
            None => Ok(()),
        }
    }

    async fn send(&self, number: u64, item: Item, behind: u64) -> Result<()> {
        self.shown.writes.set(self.shown.writes.get() + 1);
        match item {
            Item::Write { sequence, span, content: Content::Data(data) } => {
                let digest = digest(self.source.context(), &data).await;
                let write = Message::Write { number, sequence, span, digest, behind };
                self.connection.send_with(&write, data).await
            }
            Item::Write { sequence, span, content: Content::Zero } => {
                self.connection.send(&Message::Clear { number, sequence, span, behind }).await
            }
            Item::Cut(record) => {
                let cut = record.cut.id;
                let store = self.source.store();
                let (lineage, label) = store.with(|s| (s.lineage.up_to(cut), s.label_of(cut)));
                let lineage = lineage.ok_or(Error::UnknownCut(cut))?;
                let (unix_ms, floor) = (record.cut.unix_ms, self.source.peer_floor());
                let message = Message::StreamCut { number, cut, unix_ms, floor, label };
                self.connection.send_body(&message, &lineage).await
            }
        }
    }

    /// Takes what the replica confirms. A position, when it ended the stream by itself.
    async fn hear(&self, inbox: &mut Inbox, epoch_bytes: &Cell<u64>) -> Result<Option<Position>> {
        loop {
            match inbox.next().await?.0 {
                Message::StreamReady { epoch_bytes: wanted } => {
                    epoch_bytes.set(wanted.clamp(1 << 20, DEFAULT_EPOCH_BYTES));
                }
                Message::Left { position } => return Ok(Some(position)),
                other => self.take(other).await?,
            }
        }
    }

    async fn take(&self, message: Message) -> Result<()> {
        match message {
            Message::Received { received, durable } => {
                // What comes after the end counts for nothing any more.
                if !self.stream.has_ended() && !self.stream.confirmed(received, durable) {
                    return Err(Error::Peer("it confirmed what was not sent".to_owned()));
                }
                self.show();
                Ok(())
            }
            Message::Committed { cut } => self.source.acknowledged(self.identity, cut).await,
            other => Err(unexpected(&other)),
        }
    }

    fn show(&self) {
        let (bytes, age) = self.stream.backlog();
        self.shown.backlog_bytes.set(bytes);
        self.shown.age.set(age);
        self.shown.mirroring.set(self.stream.is_mirroring());
    }

    /// After the end: what was under way, and how far the replica came.
    async fn last_words(&self, inbox: &mut Inbox) -> Result<Position> {
        loop {
            match inbox.next().await?.0 {
                Message::Left { position } => return Ok(position),
                Message::StreamReady { .. } => {}
                other => self.take(other).await?,
            }
        }
    }

    async fn watch(&self, epoch_bytes: &Cell<u64>) -> Result<()> {
        let tick = TICK.min(self.settings.epoch / 2).max(Duration::from_millis(10));
        loop {
            tokio::time::sleep(tick).await;
            self.show();
            if self.stream.is_too_old() {
                self.source.end_stream(&self.stream, End::TooOld);
            }
            if self.source.switchover_to(self.identity).is_some() {
                self.source.end_stream(&self.stream, End::Handover);
            }
            match self.source.cut_if_due(self.settings.epoch, epoch_bytes.get()).await {
                Ok(()) => {}
                // Writers that do not finish: the next tick tries again.
                Err(Error::CutTimeout(ms)) => tracing::warn!(ms, "no cut of the stream yet"),
                Err(e) => return Err(e),
            }
        }
    }
}
