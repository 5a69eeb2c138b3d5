//! Appending: what the base holds goes into the log, is synced, and then shows.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use grain::{Content, Span, SpanData};

use crate::segment::digest_of;

use super::files::reserve;
use super::index::Entry;
use super::layout::Mark;
use super::record::{Kind, RECORD_HEADER, RecordHeader};
use super::spans::Spans;
use super::{Error, History, MAX_RECORD_BYTES, MAX_ZERO_BYTES, Moment, UNKNOWN};

/// Bytes that are written at a time.
const BUFFER: usize = 4 << 20;
/// A file grows by this many bytes at least, unless its segments are small.
const GROWTH: u64 = 1 << 20;

/// Records that are to be appended, with their payload.
pub(super) type Batch = VecDeque<(RecordHeader, Bytes)>;

impl History {
    /// Keeps what the base holds. When it returned, the records survive any crash; before, they show
    /// nowhere. What was already captured under `moment` is left out, and of `data` that overlaps itself
    /// the first counts. Does nothing for a moment that is withdrawn. Runs to its end even when the future
    /// is dropped.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: what was kept until then is kept, it may be tried again. [`Error::BadSpan`],
    /// [`Error::BadPoint`]; the failure of the history.
    pub async fn capture(
        self: &Rc<Self>,
        moment: Moment,
        data: Vec<SpanData>,
    ) -> Result<(), Error> {
        let history = self.clone();
        self.detached(async move { history.capture_all(moment, data).await }).await
    }

    async fn capture_all(&self, moment: Moment, data: Vec<SpanData>) -> Result<(), Error> {
        self.check_data(moment, &data)?;
        let _log = self.log.lock().await;
        self.state.borrow().check()?;
        let pieces = self.pieces(moment, &data);
        drop(data);
        let mut batch = Batch::with_capacity(pieces.len());
        for (span, payload) in pieces {
            let kind = if payload.is_empty() { Kind::SavedZero } else { Kind::SavedData };
            let mut header = RecordHeader::control(kind, moment.commit);
            (header.split, header.span) = (moment.split, span);
            if !payload.is_empty() {
                header.payload = payload.len() as u32;
                header.digest = digest_of(&self.ctx, &payload).await;
            }
            batch.push_back((header, payload));
        }
        self.append_durably(batch).await
    }

    fn check_data(&self, moment: Moment, data: &[SpanData]) -> Result<(), Error> {
        if moment.commit >= UNKNOWN - 1 {
            let why = "no commit has this number";
            return Err(Error::BadPoint { commit: moment.commit, why });
        }
        for SpanData { span, content } in data {
            let bad = |why| Err(Error::BadSpan { span: *span, why });
            if !self.geometry.holds_span(*span) {
                return bad("it is not in the geometry");
            }
            if matches!(content, Content::Data(bytes) if bytes.len() as u64 != span.bytes) {
                return bad("its content has another length");
            }
        }
        Ok(())
    }

    /// What of `data` has no record yet, cut to the size of records; zeros without payload.
    fn pieces(&self, moment: Moment, data: &[SpanData]) -> Vec<(Span, Bytes)> {
        let state = self.state.borrow();
        let (mut pieces, mut taken) = (Vec::new(), Spans::default());
        if moment.commit < state.oldest {
            return pieces;
        }
        for SpanData { span, content } in data {
            let missing = state.captured.missing(moment, *span);
            for part in missing.into_iter().flat_map(|part| taken.missing(part)) {
                let mut start = part.start;
                let most = match content {
                    Content::Zero => MAX_ZERO_BYTES,
                    Content::Data(_) => MAX_RECORD_BYTES,
                };
                while start < part.end() {
                    let bytes = most.min(part.end() - start);
                    let piece = Span { start, bytes, ..part };
                    let payload = match content {
                        Content::Zero => Bytes::new(),
                        Content::Data(data) => {
                            let from = (start - span.start) as usize;
                            data.slice(from..from + bytes as usize)
                        }
                    };
                    let zero = grain::is_zero(&payload);
                    pieces.push((piece, if zero { Bytes::new() } else { payload }));
                    start += bytes;
                }
            }
            taken.insert(*span);
        }
        pieces
    }

    /// Runs `work` to its end even when the caller goes away.
    pub(super) async fn detached<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> T {
        match tokio::task::spawn_local(work).await {
            Ok(value) => value,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The thread is being taken down; nobody will look at a result.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Appends records and syncs them; over several segments if need be. Call with the log locked.
    pub(super) async fn append_durably(&self, mut batch: Batch) -> Result<(), Error> {
        while !batch.is_empty() {
            self.append(&mut batch).await?;
            self.sync_current().await?;
        }
        Ok(())
    }

    /// Appends as many records as go into one segment, at least one. Call with the log locked.
    pub(super) async fn append(&self, batch: &mut Batch) -> Result<(), Error> {
        let Some((first, _)) = batch.front() else { return Ok(()) };
        if self.state.borrow().is_over(first.stride(), self.config.segment_bytes) {
            self.roll().await?;
        }
        let placed = self.place(batch);
        let done = self.write(&placed).await;
        if done.is_err() {
            placed.into_iter().rev().for_each(|record| batch.push_front(record));
            return done;
        }
        let mut state = self.state.borrow_mut();
        for (header, payload) in placed {
            state.tally = header.tally_after();
            state.current.tail = header.end();
            if header.kind.is_saved() {
                state.current.pending.push(Entry::of(&header));
            } else {
                let mut event = header.encode(&state.current.segment.nonce);
                event.extend_from_slice(&payload);
                state.current.events.push(event);
            }
        }
        Ok(())
    }

    /// Gives the records that fit their places.
    fn place(&self, batch: &mut Batch) -> Vec<(RecordHeader, Bytes)> {
        let state = self.state.borrow();
        let mut placed = Vec::new();
        let (mut offset, mut tally) = (state.current.tail, state.tally);
        while let Some((header, _)) = batch.front() {
            if !placed.is_empty() && offset + header.stride() > self.config.segment_bytes {
                break;
            }
            let Some((mut header, payload)) = batch.pop_front() else { break };
            (header.offset, header.tally, header.life) = (offset, tally, state.life);
            header.durable = state.current.durable;
            offset = header.end();
            tally = header.tally_after();
            placed.push((header, payload));
        }
        placed
    }

    async fn write(&self, placed: &[(RecordHeader, Bytes)]) -> Result<(), Error> {
        let (Some((first, _)), Some((last, _))) = (placed.first(), placed.last()) else {
            return Ok(());
        };
        self.make_room(last.end()).await?;
        let (segment, file) = {
            let state = self.state.borrow();
            (state.current.segment.clone(), state.current.file.clone())
        };
        let mut at = first.offset;
        let mut buffer = Vec::new();
        for (header, payload) in placed {
            buffer.extend_from_slice(&header.encode(&segment.nonce));
            buffer.extend_from_slice(payload);
            buffer
                .resize(buffer.len() + header.stride() as usize - RECORD_HEADER - payload.len(), 0);
            if buffer.len() >= BUFFER || header.offset == last.offset {
                let len = buffer.len() as u64;
                let written = file.write_at(at, std::mem::take(&mut buffer).into()).await;
                match written {
                    Ok(()) => at += len,
                    Err(e) if e.kind() == io::ErrorKind::StorageFull && at == first.offset => {
                        return Err(self.no_space(len));
                    }
                    Err(e) => return Err(self.fail("write", e)),
                }
            }
        }
        Ok(())
    }

    /// Makes room in the current segment up to `end`.
    pub(super) async fn make_room(&self, end: u64) -> Result<(), Error> {
        let (file, allocated) = {
            let state = self.state.borrow();
            (state.current.file.clone(), state.current.allocated)
        };
        if end <= allocated {
            return Ok(());
        }
        let step = GROWTH.min(self.config.segment_bytes / 4).max(4096);
        let len = end.next_multiple_of(step.next_multiple_of(4096));
        match reserve(&file, len).await {
            Ok(()) => self.state.borrow_mut().current.allocated = len,
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                return Err(self.no_space(len - allocated));
            }
            Err(e) => return Err(self.fail("allocate", e)),
        }
        Ok(())
    }

    /// Makes what was appended durable, and lets it show. Call with the log locked.
    pub(super) async fn sync_current(&self) -> Result<(), Error> {
        let (segment, file, tail, tally) = {
            let state = self.state.borrow();
            state.check()?;
            let current = &state.current;
            if current.durable == current.tail {
                return Ok(());
            }
            (current.segment.clone(), current.file.clone(), current.tail, state.tally)
        };
        file.sync_data().await.map_err(|e| self.fail("sync", e))?;
        let generation = self.publish(tail);
        // For the sake of what comes later: what this call promised holds already.
        let mark = Mark { generation, durable: tail, tally, next: [0; 16] };
        if let Err(error) = self.write_mark(&segment, &file, generation as usize, mark).await {
            self.fail("write of the mark", error);
        }
        Ok(())
    }

    /// What was appended before `durable` is on stable storage: it shows. Returns the generation of the
    /// mark that says so.
    pub(super) fn publish(&self, durable: u64) -> u64 {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.current.durable = durable;
        state.current.generation += 1;
        for entry in std::mem::take(&mut state.current.pending) {
            state.captured.insert(entry.moment(state.life), entry.span());
            state.current.add(entry, &self.geometry);
        }
        state.captured.trim();
        state.current.generation
    }

    /// Makes the points that were noted durable.
    ///
    /// # Errors
    /// The failure of the history.
    pub async fn sync(self: &Rc<Self>) -> Result<(), Error> {
        let history = self.clone();
        self.detached(async move {
            let _log = history.log.lock().await;
            history.sync_current().await
        })
        .await
    }
}

impl super::state::State {
    /// Whether a record of `bytes` belongs in the next segment.
    fn is_over(&self, bytes: u64, limit: u64) -> bool {
        self.current.tail + bytes > limit && self.current.tail > crate::layout::RECORDS_START
    }
}
