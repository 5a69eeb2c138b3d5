//! A stream on its link, from the replica's side.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grain::{Content, CutId, Lineage, Span, SpanData};
use tokio::sync::Notify;

use super::super::Replica;
use crate::protocol::{Connection, Inbox, Message, body, unexpected};
use crate::source::digest;
use crate::{Error, Result};

/// What was received is made durable after this time at the latest.
const SYNC_EVERY: Duration = Duration::from_millis(200);
/// What is durable is brought into the base this often, or when this much waits.
const APPLY_EVERY: Duration = Duration::from_secs(1);
const APPLY_BYTES: u64 = 32 << 20;
/// An epoch fills this share of the journal at most: its predecessor is still being applied.
const EPOCH_SHARE: u64 = 4;

/// See the module's text.
pub(in crate::replica) struct Inlet<'a> {
    replica: &'a Rc<Replica>,
    connection: &'a Connection,
    /// The number of the stream's newest cut; 0 for the one that it follows.
    cut_number: Cell<u64>,
    flush_asked: Notify,
    moved: Notify,
}

/// Applies in the background until it is dropped.
struct Applier {
    stop: Rc<Cell<bool>>,
    wake: Rc<Notify>,
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.stop.set(true);
        self.wake.notify_one();
    }
}

impl Applier {
    /// In a task of its own, which is never broken off in the middle of a pass: a write of an older version
    /// must not be under way when a newer one begins.
    fn start(replica: &Rc<Replica>) -> Applier {
        let applier = Applier { stop: Rc::default(), wake: Rc::new(Notify::new()) };
        let (stop, wake, replica) = (applier.stop.clone(), applier.wake.clone(), replica.clone());
        tokio::task::spawn_local(async move {
            while !stop.get() {
                tokio::select! {
                    biased;
                    () = wake.notified() => {}
                    () = tokio::time::sleep(APPLY_EVERY) => {}
                }
                if !stop.get()
                    && let Err(error) = replica.apply_pass().await
                {
                    // What is in the journal stays there; whoever ends the session meets it again.
                    tracing::error!(%error, "the stream could not be brought into the volumes");
                }
            }
        });
        applier
    }
}

impl<'a> Inlet<'a> {
    pub(in crate::replica) fn new(
        replica: &'a Rc<Replica>,
        connection: &'a Connection,
    ) -> Inlet<'a> {
        let (flush_asked, moved) = (Notify::new(), Notify::new());
        Inlet { replica, connection, cut_number: Cell::new(0), flush_asked, moved }
    }

    /// Streams until the source ends it, and says why; nothing where this side wants it to end. Whatever
    /// ends it, the stream has to be parked afterwards.
    pub(in crate::replica) async fn run(
        &self,
        cut: CutId,
        inbox: &mut Inbox,
    ) -> Result<Option<String>> {
        self.replica.begin_stream(cut).await?;
        let epoch_bytes = self.replica.settings.journal.max_bytes / EPOCH_SHARE;
        self.connection.send(&Message::StreamReady { epoch_bytes }).await?;
        self.replica.stream_view.streaming.set(true);
        let applier = Applier::start(self.replica);
        tokio::select! {
            biased;
            outcome = self.take_in(inbox, &applier) => outcome.map(Some),
            outcome = self.confirm() => Err(outcome.err().unwrap_or(Error::Cancelled)),
            outcome = self.sync() => Err(outcome.err().unwrap_or(Error::Cancelled)),
            // A second look, or a repair, wants a catch-up.
            () = self.replica.verification.round_wanted() => Ok(None),
            // So does what a damaged record leaves missing.
            () = self.replica.lacks_some() => Ok(None),
        }
    }

    async fn take_in(&self, inbox: &mut Inbox, applier: &Applier) -> Result<String> {
        loop {
            let (message, payload) = inbox.next().await?;
            match message {
                Message::Write { number, sequence, span, digest, behind } => {
                    self.has_number(number, sequence)?;
                    let data = SpanData { span, content: Content::Data(payload) };
                    self.take(sequence, data, digest, behind, applier).await?;
                }
                Message::Clear { number, sequence, span, behind } => {
                    self.has_number(number, sequence)?;
                    let data = SpanData { span, content: Content::Zero };
                    self.take(sequence, data, [0; 32], behind, applier).await?;
                }
                Message::StreamCut { number, cut, unix_ms, floor, label } => {
                    self.cut(number, cut, unix_ms, label, &payload).await?;
                    self.connection.send(&Message::Committed { cut }).await?;
                    self.replica.note_floor(floor).await?;
                }
                Message::StreamFlush { .. } => self.flush_asked.notify_one(),
                Message::StreamEnd { text } => return Ok(text),
                // It ends the stream by itself when it is time.
                Message::Handover | Message::Hurry => {}
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn has_number(&self, number: u64, sequence: u64) -> Result<()> {
        if self.cut_number.get().checked_add(sequence) == Some(number) {
            return Ok(());
        }
        Err(Error::Peer(format!("number {number} of the stream at write {sequence}")))
    }

    async fn take(
        &self,
        sequence: u64,
        data: SpanData,
        digest: [u8; 32],
        behind: u64,
        applier: &Applier,
    ) -> Result<()> {
        self.replica.expects(sequence, data.span)?;
        self.check(&data, digest).await?;
        let view = &self.replica.stream_view;
        view.behind_bytes.set(behind);
        view.writes.set(view.writes.get() + 1);
        view.bytes.set(view.bytes.get() + data.span.bytes);
        loop {
            match self.replica.take_write(sequence, data.clone(), digest).await {
                Err(Error::Journal(e)) if e.is_full() => self.make_room(&e).await?,
                other => break other?,
            }
        }
        if self.replica.journal.waiting_bytes() > APPLY_BYTES {
            applier.wake.notify_one();
        }
        self.moved.notify_one();
        Ok(())
    }

    /// The bytes are those that were read at the source.
    async fn check(&self, data: &SpanData, expected: [u8; 32]) -> Result<()> {
        let Content::Data(bytes) = &data.content else { return Ok(()) };
        let Span { bytes: len, .. } = data.span;
        if bytes.len() as u64 != len {
            return Err(Error::Peer(format!("{} bytes for a write of {len}", bytes.len())));
        }
        if digest(&self.replica.ctx, bytes).await != expected {
            return Err(Error::Peer(format!(
                "the bytes of {:?} do not match the digest made at the source",
                data.span
            )));
        }
        Ok(())
    }

    /// The journal is full: brings what it has into the base. An error when that frees nothing.
    async fn make_room(&self, full: &journal::Error) -> Result<()> {
        let before = self.replica.journal.stats();
        self.replica.journal.sync().await?;
        self.replica.apply_pass().await?;
        let after = self.replica.journal.stats();
        if (after.index_entries, after.live_segments)
            == (before.index_entries, before.live_segments)
            && after.room_bytes <= before.room_bytes
        {
            return Err(Error::State(format!(
                "the journal is too small for an epoch of the stream ({full}); allow a larger one \
                 (--journal-max)"
            )));
        }
        Ok(())
    }

    async fn cut(
        &self,
        number: u64,
        cut: CutId,
        unix_ms: u64,
        label: Option<String>,
        payload: &Bytes,
    ) -> Result<()> {
        let sequence = self.replica.position().map_or(0, |at| at.sequence);
        self.has_number(number, sequence + 1)?;
        let lineage: Lineage = body(payload)?;
        let valid = lineage.validate(grain::attach::Facts::MAX_CUTS);
        valid.map_err(|e| Error::Peer(e.to_string()))?;
        self.replica.take_cut(cut, unix_ms, lineage, label).await?;
        self.cut_number.set(number);
        self.moved.notify_one();
        Ok(())
    }

    /// How far it is: received, durable.
    fn reached(&self) -> (u64, u64) {
        let base = self.cut_number.get();
        let cut = self.replica.stream.borrow().as_ref().map(|active| active.cut);
        match self.replica.journal.stream().filter(|stream| Some(stream.cut) == cut) {
            Some(stream) => (base + stream.written, base + stream.durable),
            None => (base, base),
        }
    }

    async fn confirm(&self) -> Result<()> {
        let mut told = (0, 0);
        loop {
            let now = self.reached();
            if now > told {
                told = now;
                let (received, durable) = now;
                self.connection.send(&Message::Received { received, durable }).await?;
                continue;
            }
            tokio::select! {
                biased;
                () = self.moved.notified() => {}
                () = self.replica.journal.stream_moves() => {}
            }
        }
    }

    async fn sync(&self) -> Result<()> {
        loop {
            tokio::select! {
                biased;
                () = self.flush_asked.notified() => {}
                () = tokio::time::sleep(SYNC_EVERY) => {}
            }
            let behind = self.replica.journal.stream().is_some_and(|s| s.appended > s.durable);
            if behind {
                self.replica.journal.sync().await?;
            }
        }
    }
}
