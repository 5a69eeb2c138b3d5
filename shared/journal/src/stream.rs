//! The stream: single writes of the source, which count one by one, in order, after the commit that
//! they follow.
//!
//! A stream record carries the number of that commit (the newest before it) and its sequence within the
//! epoch, from 1 on. It counts when it is durable: only then is it laid over older versions in the index,
//! so that nothing is given up for the sake of a record that a crash may take. What the stream of a
//! commit brought stays in the journal until a later commit ends the epoch, or [`Journal::end_stream`]
//! says that its owner has recorded it elsewhere.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use grain::{Content, CutId, Run, SessionId, Span, SpanData};

use crate::index::Place;
use crate::record::{Kind, MAX_PAYLOAD, RecordHeader};
use crate::state::State;
use crate::{Error, Journal};

/// How far the stream of an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamProgress {
    /// The cut that the stream follows.
    pub cut: CutId,
    /// The last sequence that was appended; 0 for none.
    pub appended: u64,
    /// The last one that stands in its file: it outlives the process.
    pub written: u64,
    /// The last one on stable storage: it counts.
    pub durable: u64,
}

/// A stream record that is not durable.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    pub span: Span,
    pub place: Place,
    pub zero: bool,
    /// One past it.
    end: Place,
    sequence: u64,
}

/// The stream under way.
pub(crate) struct OpenStream {
    commit: u64,
    cut: CutId,
    appended: u64,
    durable: u64,
    pending: VecDeque<Pending>,
}

impl OpenStream {
    pub(crate) fn new(commit: u64, cut: CutId, sequence: u64) -> OpenStream {
        let pending = VecDeque::new();
        OpenStream { commit, cut, appended: sequence, durable: sequence, pending }
    }

    /// Records in memory.
    pub(crate) fn pending(&self) -> u64 {
        self.pending.len() as u64
    }

    /// Whether it follows this commit.
    pub(crate) fn follows(&self, commit: u64) -> bool {
        self.commit == commit
    }

    /// A newer commit is there; everything before it is durable.
    pub(crate) fn follow(&mut self, commit: u64, cut: CutId) {
        debug_assert!(self.pending.is_empty());
        (self.commit, self.cut, self.appended, self.durable) = (commit, cut, 0, 0);
    }

    /// Takes out the oldest record that is durable now, with the commit that it follows.
    pub(crate) fn next_durable(&mut self, durable: Place) -> Option<(Pending, u64)> {
        let first = self.pending.front().copied().filter(|p| p.end <= durable)?;
        self.pending.pop_front();
        self.durable = first.sequence;
        Some((first, self.commit))
    }

    fn progress(&self, written: Place) -> StreamProgress {
        let there = self.pending.partition_point(|p| p.end <= written);
        let newest = there.checked_sub(1).and_then(|at| self.pending.get(at));
        StreamProgress {
            cut: self.cut,
            appended: self.appended,
            written: newest.map_or(self.durable, |p| p.sequence),
            durable: self.durable,
        }
    }
}

impl Journal {
    /// Begins a stream that follows `cut`, at which the owner stands: a commit of nothing names it in
    /// the log. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::Stream`] while another is under way, and those of [`Journal::commit`].
    pub async fn begin_stream(self: &Rc<Self>, cut: CutId) -> Result<(), Error> {
        let journal = self.clone();
        let begun = async move {
            let _log = journal.log.lock().await;
            if journal.state.borrow().stream.is_some() {
                return Err(Error::Stream("another stream is under way"));
            }
            journal.state.borrow().check()?;
            let (number, segment) = journal.write_commit(&[], cut, &Bytes::new(), true).await?;
            journal.state.borrow_mut().stream = Some(OpenStream::new(number, cut, 0));
            journal.install(&[], cut, number, segment);
            Ok(())
        };
        self.detached(begun).await
    }

    /// Appends the next write of the stream. Returns when it has its place in the log and not too much
    /// waits to be written; it counts once it is durable, after a [`Journal::sync`] that starts later.
    /// `sequence` counts up from 1 after each commit. `digest` is the BLAKE3 of the bytes (unused for
    /// zeros), which the caller has checked. The caller waits for one before it appends the next.
    ///
    /// # Errors
    /// [`Error::Stream`] without a stream, or out of order; [`Error::Full`],
    /// [`Error::TooManyRecords`] and [`Error::NoSpace`] append nothing and may be tried again once
    /// something was applied or committed; others name a mistake of the caller or the failure of the
    /// journal.
    pub async fn append_stream(
        self: &Rc<Self>,
        sequence: u64,
        data: &SpanData,
        digest: [u8; 32],
    ) -> Result<(), Error> {
        let (header, payload) = self.stream_record(sequence, data, digest)?;
        self.append_record(header, payload).await
    }

    /// What [`Journal::append_record`] does for the stream alone.
    pub(crate) fn admit_stream(
        &self,
        state: &mut State,
        header: RecordHeader,
        payload: Bytes,
    ) -> Result<(), Error> {
        let last = state.stream.as_ref().map(|stream| stream.appended);
        let last = last.ok_or(Error::Stream("no stream is under way"))?;
        if last.checked_add(1) != Some(header.sequence) {
            return Err(Error::Stream("a record out of order"));
        }
        let Some(span) = header.span(&self.geometry) else { return Ok(()) };
        let header = state.place(header, payload);
        let end = state.tail_place();
        let place = Place { segment: end.segment, offset: header.offset };
        state.streamed = header.sequence;
        if let Some(stream) = &mut state.stream {
            stream.appended = header.sequence;
            let (zero, sequence) = (header.is_zero(), header.sequence);
            stream.pending.push_back(Pending { span, place, zero, end, sequence });
        }
        Ok(())
    }

    fn stream_record(
        &self,
        sequence: u64,
        data: &SpanData,
        digest: [u8; 32],
    ) -> Result<(RecordHeader, Bytes), Error> {
        let span = data.span;
        let run = Run { volume: span.volume, first: span.start, count: span.bytes };
        let bad = |why| Err(Error::BadRecord { run, why });
        if !self.geometry.holds_span(span) {
            return bad("it is not in the geometry");
        }
        let (kind, payload) = match &data.content {
            Content::Zero => (Kind::StreamZero, Bytes::new()),
            Content::Data(bytes) if bytes.len() as u64 != span.bytes => {
                return bad("its content has another length");
            }
            Content::Data(bytes) => (Kind::StreamData, bytes.clone()),
        };
        let digest = if kind == Kind::StreamZero { [0; 32] } else { digest };
        let control = RecordHeader::control(kind, &[]);
        let session = SessionId::from_bytes([0; 16]);
        let payload_len = payload.len() as u32;
        let header =
            RecordHeader { session, sequence, run, payload: payload_len, digest, ..control };
        if payload.len() as u64 > MAX_PAYLOAD || header.stride() > self.config.capacity() {
            return bad("it is longer than a record may be");
        }
        Ok((header, payload))
    }

    /// How far the stream is; `None` without one.
    pub fn stream(&self) -> Option<StreamProgress> {
        let state = self.state.borrow();
        let written = state.written;
        state.stream.as_ref().map(|stream| stream.progress(written))
    }

    /// Waits until something has been written or synced, or the journal has failed.
    pub async fn stream_moves(&self) {
        self.changed.notified().await;
    }

    /// Makes the stream durable and ends it. What it brought counts on, but is given up once it is in
    /// the base, like anything else: its owner has to have recorded how far it came, and which grains
    /// it wrote, before. Without a stream nothing is done.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn end_stream(self: &Rc<Self>) -> Result<(), Error> {
        self.sync_tail().await?;
        let ended = self.state.borrow_mut().stream.take();
        debug_assert!(ended.is_none_or(|stream| stream.pending.is_empty()));
        self.collect().await
    }
}
