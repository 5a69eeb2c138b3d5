//! The [`Journal`]: sessions, appending, syncing, and what can be asked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use disk::Context;
use grain::{Content, CutId, Geometry, GrainData, GrainSet, Run, SessionId};
use tokio::sync::{Mutex, Notify};

use crate::index::RecordRef;
use crate::record::{Kind, MAX_PAYLOAD, RecordHeader};
use crate::state::{OpenSession, State};
use crate::writer::Tier;
use crate::{Config, Error};

/// The redo journal of a replica.
///
/// Calling contract: one owner, one thread, inside a `LocalSet` (writes and syncs run in tasks of
/// their own). Futures may be dropped: what they began runs to its end. After an error for which
/// [`Error::needs_reopen`] holds, every later call that writes gives the same error; reading what is
/// committed goes on.
pub struct Journal {
    pub(crate) ctx: Context,
    pub(crate) config: Config,
    pub(crate) geometry: Geometry,
    pub(crate) geometry_digest: [u8; 32],
    pub(crate) state: RefCell<State>,
    /// Held by who gives records their places, so that records stay whole and in order.
    pub(crate) log: Mutex<()>,
    /// Something in the state has changed.
    pub(crate) changed: Notify,
    /// A batch is out.
    pub(crate) applying: Rc<Cell<bool>>,
}

/// The grains that a session has in the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// On stable storage.
    pub durable: GrainSet,
    /// Appended, the durable ones among them.
    pub appended: GrainSet,
}

/// Figures for the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments that hold something needed, or are being written.
    pub live_segments: u64,
    /// Segments kept for recycling.
    pub spare_segments: u64,
    /// Bytes that all of them take on the file system.
    pub file_bytes: u64,
    /// See [`Journal::room`].
    pub room_bytes: u64,
    /// Sessions neither committed nor aborted.
    pub sessions: u64,
    /// Bytes that their records take.
    pub session_bytes: u64,
    /// Commits not wholly in the base.
    pub commits: u64,
    /// Bytes that count and are not in the base.
    pub waiting_bytes: u64,
    /// Records and pieces of records in memory.
    pub index_entries: u64,
    /// Bytes of records appended since the journal was opened.
    pub appended_bytes: u64,
    /// Syncs since then.
    pub syncs: u64,
    /// Grains found damaged when they were read, since then.
    pub damaged_grains: u64,
}

impl Journal {
    /// Begins a session, or goes on with one that was recovered.
    ///
    /// # Errors
    /// [`Error::SessionEnded`], [`Error::SessionCut`], and the failure of the journal.
    pub fn begin_session(&self, session: SessionId, cut: CutId) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        state.check()?;
        if state.ended.contains_key(&session) {
            return Err(Error::SessionEnded(session));
        }
        let open = state.sessions.entry(session).or_insert_with(|| OpenSession::new(cut));
        match (open.cut == cut, open.committing) {
            (false, _) => Err(Error::SessionCut { session, has: open.cut, asked: cut }),
            (true, true) => Err(Error::SessionEnded(session)),
            (true, false) => Ok(()),
        }
    }

    /// Appends grains of a session. Returns when the record has its place in the log and not too much
    /// waits to be written; it is durable after a [`Journal::sync`] that starts later. Of two records
    /// of a session with the same grains, the one with the larger `sequence` counts (the later one
    /// when they are equal). `digest` is the BLAKE3 of the bytes (unused for zeros), which the caller
    /// has checked.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooManyRecords`] and [`Error::NoSpace`] append nothing and may be
    /// tried again; others name a mistake of the caller or the failure of the journal.
    pub async fn append(
        self: &Rc<Self>,
        session: SessionId,
        sequence: u64,
        data: &GrainData,
        digest: [u8; 32],
    ) -> Result<(), Error> {
        let (header, payload) = self.copy_record(session, sequence, data, digest)?;
        self.append_record(header, payload).await
    }

    /// Appends a record of a session or of the stream.
    pub(crate) async fn append_record(
        self: &Rc<Self>,
        header: RecordHeader,
        payload: Bytes,
    ) -> Result<(), Error> {
        if self.append_now(header, &payload)? {
            return Ok(());
        }
        let journal = self.clone();
        self.detached(async move { journal.append_waiting(header, payload).await }).await
    }

    /// The quick way: no waiting for room, for others, or for the disk. False when it cannot be.
    fn append_now(self: &Rc<Self>, header: RecordHeader, payload: &Bytes) -> Result<bool, Error> {
        let Ok(_log) = self.log.try_lock() else { return Ok(false) };
        {
            let mut state = self.state.borrow_mut();
            let live = state.segments.len() as u64;
            let busy = state.draining || state.data_segments(&self.config) < live;
            if busy || !state.fits(header.stride()) {
                return Ok(false);
            }
            self.admit(&mut state, header, payload.clone())?;
        }
        self.pump();
        Ok(true)
    }

    async fn append_waiting(
        self: Rc<Self>,
        header: RecordHeader,
        payload: Bytes,
    ) -> Result<(), Error> {
        self.back_pressure().await?;
        {
            let _log = self.log.lock().await;
            self.reserve(header.stride(), Tier::Data).await?;
            self.admit(&mut self.state.borrow_mut(), header, payload)?;
        }
        self.pump();
        self.back_pressure().await
    }

    /// Gives a record its place, and its session or the stream the news.
    fn admit(&self, state: &mut State, header: RecordHeader, payload: Bytes) -> Result<(), Error> {
        state.check()?;
        if state.records() >= self.config.max_records {
            return Err(Error::TooManyRecords { records: state.records() });
        }
        match header.kind {
            Kind::StreamData | Kind::StreamZero => self.admit_stream(state, header, payload),
            _ => admit_copy(state, header, payload),
        }
    }

    fn copy_record(
        &self,
        session: SessionId,
        sequence: u64,
        data: &GrainData,
        digest: [u8; 32],
    ) -> Result<(RecordHeader, Bytes), Error> {
        let bad = |why| Err(Error::BadRecord { run: data.run, why });
        let run = data.run;
        if !run_fits(&self.geometry, run) {
            return bad("it is not in the geometry");
        }
        let range = self.geometry.byte_range(run.volume, run.first, run.count);
        let (kind, payload) = match &data.content {
            Content::Zero => (Kind::CopyZero, Bytes::new()),
            Content::Data(bytes) if bytes.len() as u64 != range.end - range.start => {
                return bad("its content has another length");
            }
            Content::Data(bytes) => (Kind::CopyData, bytes.clone()),
        };
        let cut = {
            let state = self.state.borrow();
            state.check()?;
            let open = state.sessions.get(&session).ok_or(Error::UnknownSession(session));
            match open {
                Err(_) if state.ended.contains_key(&session) => {
                    return Err(Error::SessionEnded(session));
                }
                open => open?.cut,
            }
        };
        let digest = if kind == Kind::CopyZero { [0; 32] } else { digest };
        let payload_len = payload.len() as u32;
        let control = RecordHeader::control(kind, &[]);
        let header =
            RecordHeader { session, cut, sequence, run, payload: payload_len, digest, ..control };
        if payload.len() as u64 > MAX_PAYLOAD || header.stride() > self.config.capacity() {
            return bad("it is longer than a record may be");
        }
        Ok((header, payload))
    }

    /// Makes everything appended before the call durable.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub async fn sync(self: &Rc<Self>) -> Result<(), Error> {
        self.sync_tail().await
    }

    /// What a session has brought so far; `None` when it is not open.
    pub fn received(&self, session: SessionId) -> Option<Received> {
        let state = self.state.borrow();
        let open = state.sessions.get(&session)?;
        Some(Received { durable: open.durable.clone(), appended: open.appended.clone() })
    }

    /// Bytes of records (128 bytes of header each) that can be appended before [`Error::Full`]. What
    /// commits need is already taken off, so the sessions that are open can always be committed.
    pub fn room(&self) -> u64 {
        self.state.borrow().data_room(&self.config)
    }

    /// Bytes of records that a new session may append when they hold `payload` bytes each, and are `records`
    /// at most. Unlike in [`Journal::room`], what its commit will need is taken off as well, and what its
    /// records leave at the end of each segment: a record does not go on in the next one.
    pub fn room_for(&self, payload: u64, records: u64) -> u64 {
        let stride = crate::record::stride(payload).min(self.config.capacity());
        self.state.borrow().room_for(&self.config, stride, records)
    }

    /// Bytes that count and are not in the base.
    pub fn waiting_bytes(&self) -> u64 {
        self.state.borrow().index.bytes()
    }

    /// Figures for the operator.
    pub fn stats(&self) -> Stats {
        let state = self.state.borrow();
        let spare_bytes: u64 = state.spares.iter().map(|s| s.bytes).sum();
        Stats {
            live_segments: state.segments.len() as u64,
            spare_segments: state.spares.len() as u64,
            file_bytes: state.live_bytes() + spare_bytes,
            room_bytes: state.data_room(&self.config),
            sessions: state.sessions.len() as u64,
            session_bytes: state.sessions.values().map(|s| s.bytes).sum(),
            commits: state.commits.len() as u64,
            waiting_bytes: state.index.bytes(),
            index_entries: state.records(),
            appended_bytes: state.counters.appended_bytes,
            syncs: state.counters.syncs,
            damaged_grains: state.counters.damaged_grains,
        }
    }

    /// The failure that stopped this journal, if one did.
    pub fn failure(&self) -> Option<Error> {
        self.state.borrow().failed.clone()
    }
}

/// Whether all grains of `run` are grains of the geometry.
pub(crate) fn run_fits(geometry: &Geometry, run: Run) -> bool {
    let end = run.first.checked_add(run.count);
    run.count > 0 && end.is_some_and(|end| end <= geometry.grains(run.volume))
}

fn admit_copy(state: &mut State, header: RecordHeader, payload: Bytes) -> Result<(), Error> {
    let id = header.session;
    match state.sessions.get(&id) {
        None if state.ended.contains_key(&id) => return Err(Error::SessionEnded(id)),
        None => return Err(Error::UnknownSession(id)),
        Some(open) if open.committing => return Err(Error::SessionEnded(id)),
        Some(_) => {}
    }
    let header = state.place(header, payload);
    let end = state.tail_place();
    let record = RecordRef::new(&header, end.segment);
    state.open_records += 1;
    if let Some(open) = state.sessions.get_mut(&id) {
        open.add(record, header.stride());
        open.undurable.push_back((end, record.run));
    }
    Ok(())
}
