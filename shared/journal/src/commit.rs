//! Ending sessions: the commit that makes them count, and the abort that does not.

use std::rc::Rc;

use bytes::Bytes;
use grain::{CutId, Run, SessionId, VolumeId};

use crate::index::RecordRef;
use crate::record::{
    Adopted, CommitPayload, Kind, MAX_BODY, RECORD_HEADER, RecordHeader, encode_abort, stride,
};
use crate::state::{LiveCommit, State};
use crate::{Error, Journal, Moment};

/// The longest part of a manifest.
const MANIFEST_PART: u64 = 256 << 10;
/// What a disk damages at a time, mostly.
const BLOCK: u64 = 4096;

impl Journal {
    /// Makes sessions count, all of them or none. `sessions` are in version order: where two of them
    /// have the same grain, the later one's bytes are newer. Returns when the commit is on stable
    /// storage: then it survives everything, before that it may be there after a crash or not.
    /// `body` is kept with it and given back by [`Journal::open`] until every grain of the commit has
    /// been applied. An empty list is a commit, too. Returns the commit's number.
    ///
    /// # Errors
    /// [`Error::UnknownSession`], [`Error::SessionEnded`], [`Error::BodyTooLong`], [`Error::Full`] and
    /// [`Error::NoSpace`] change nothing. After [`Error::Failed`] the next opening says whether the
    /// commit is there.
    pub async fn commit(
        self: &Rc<Self>,
        sessions: &[SessionId],
        cut: CutId,
        body: Bytes,
    ) -> Result<u64, Error> {
        let (journal, sessions) = (self.clone(), sessions.to_vec());
        self.detached(async move { journal.commit_whole(sessions, cut, body).await }).await
    }

    async fn commit_whole(
        self: Rc<Self>,
        sessions: Vec<SessionId>,
        cut: CutId,
        body: Bytes,
    ) -> Result<u64, Error> {
        let _log = self.log.lock().await;
        self.close_sessions(&sessions, body.len())?;
        let streaming = self.state.borrow().stream.is_some();
        let placed = self.write_commit(&sessions, cut, &body, streaming).await;
        match placed {
            Ok((number, segment)) => {
                self.install(&sessions, cut, number, segment);
                Ok(number)
            }
            Err(error) => {
                for open in self.state.borrow_mut().sessions.values_mut() {
                    open.committing = false;
                }
                Err(error)
            }
        }
    }

    /// Checks the list, and lets nothing be appended to its sessions from here on.
    fn close_sessions(&self, sessions: &[SessionId], body: usize) -> Result<(), Error> {
        let mut state = self.state.borrow_mut();
        state.check()?;
        let mut seen = std::collections::BTreeSet::new();
        for session in sessions {
            if state.ended.contains_key(session) || !seen.insert(*session) {
                return Err(Error::SessionEnded(*session));
            }
            if !state.sessions.contains_key(session) {
                return Err(Error::UnknownSession(*session));
            }
        }
        let limit = MAX_BODY.min(self.config.capacity() / 2);
        let payload = CommitPayload::len_for(sessions.len(), body);
        if body as u64 > limit || stride(payload) > self.config.capacity() {
            return Err(Error::BodyTooLong { bytes: body as u64, limit });
        }
        for session in sessions {
            if let Some(open) = state.sessions.get_mut(session) {
                open.committing = true;
            }
        }
        Ok(())
    }

    /// Manifests, sync, commit record, sync. Returns the commit's number and its segment.
    pub(crate) async fn write_commit(
        self: &Rc<Self>,
        sessions: &[SessionId],
        cut: CutId,
        body: &Bytes,
        stream_follows: bool,
    ) -> Result<(u64, u64), Error> {
        let mut adopted = Vec::with_capacity(sessions.len());
        for session in sessions {
            adopted.push(self.write_manifest(*session).await?);
        }
        self.sync_tail().await?;
        let payload = CommitPayload { sessions: adopted, body: body.to_vec() }.encode();
        let (number, run) = {
            let state = self.state.borrow();
            (state.progress.newest + 1, stream_at(&state, stream_follows))
        };
        let control = RecordHeader::control(Kind::Commit, &payload);
        let header = RecordHeader { cut, sequence: number, run, ..control };
        self.append_control(header, payload.clone()).await?;
        let segment = {
            let mut state = self.state.borrow_mut();
            state.progress.newest = number;
            state.tail_place().segment
        };
        // A commit is the one record that everything hangs on: one damaged block must not cost it.
        // The first copy is in the log; from here on a lack of room only costs the second.
        if let Err(error) = self.write_second_copy(header, payload).await {
            self.state.borrow().check()?;
            tracing::warn!(number, %error, "journal: no room for the second copy of a commit");
        }
        self.sync_tail().await?;
        Ok((number, segment))
    }

    /// Appends a commit record again, so that it begins in another block than the first ends in.
    async fn write_second_copy(
        self: &Rc<Self>,
        header: RecordHeader,
        payload: Vec<u8>,
    ) -> Result<(), Error> {
        let pad = {
            let state = self.state.borrow();
            let head = RECORD_HEADER as u64;
            let pad = (state.tail + head).next_multiple_of(BLOCK) - state.tail;
            state.fits(pad + header.stride()).then_some(vec![0; (pad - head) as usize])
        };
        if let Some(pad) = pad {
            self.append_control(RecordHeader::control(Kind::Pad, &pad), pad).await?;
        }
        self.append_control(header, payload).await.map(drop)
    }

    async fn write_manifest(self: &Rc<Self>, session: SessionId) -> Result<Adopted, Error> {
        let (parts, mut adopted) = {
            let state = self.state.borrow();
            let open = state.sessions.get(&session).ok_or(Error::UnknownSession(session))?;
            let limit = MANIFEST_PART.min(self.config.capacity() / 2);
            let parts = open.appended.encode_pages(limit as usize);
            let adopted = Adopted {
                session,
                records: open.records.len() as u64,
                grains: open.appended.len(),
                manifests: parts.len() as u32,
                disjoint: open.disjoint,
            };
            (parts, adopted)
        };
        if adopted.records == 0 {
            adopted.manifests = 0;
            return Ok(adopted);
        }
        for (number, part) in parts.into_iter().enumerate() {
            let control = RecordHeader::control(Kind::Manifest, &part);
            let header = RecordHeader { session, sequence: number as u64, ..control };
            self.append_control(header, part).await?;
        }
        Ok(adopted)
    }

    /// The commit is durable: its grains are the newest from here on.
    pub(crate) fn install(&self, sessions: &[SessionId], cut: CutId, number: u64, segment: u64) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let mut first_segment = segment;
        for session in sessions {
            let Some(open) = state.sessions.remove(session) else { continue };
            state.open_records -= open.records.len() as u64;
            state.ended.insert(*session, segment);
            let oldest = open.records.first().map_or(segment, |r| r.place.segment);
            first_segment = first_segment.min(oldest);
            for record in in_version_order(open.records) {
                state.index_copy(&self.geometry, &record, number);
            }
        }
        self.committed(state, number);
        state.commits.insert(number, LiveCommit { first_segment });
        state.streamed = 0;
        if let Some(stream) = &mut state.stream {
            // What comes from here on is of the epoch that this cut opens.
            stream.follow(number, cut);
        }
    }

    /// What comes from here on changes the image at this commit, to which somebody may want to go back.
    pub(crate) fn committed(&self, state: &mut State, number: u64) {
        if self.config.keep_points {
            state.index.split(Moment { commit: number, split: 0 });
        }
    }

    /// Ends sessions that will not be committed; their grains are forgotten. Sessions that are not
    /// open are passed over, so that it may be repeated. Durable when it returns.
    ///
    /// # Errors
    /// [`Error::SessionEnded`] while a commit of one of them is under way; [`Error::Full`] and
    /// [`Error::NoSpace`] change nothing; [`Error::Failed`].
    pub async fn abort(self: &Rc<Self>, sessions: &[SessionId]) -> Result<(), Error> {
        let (journal, sessions) = (self.clone(), sessions.to_vec());
        self.detached(async move { journal.abort_whole(sessions).await }).await
    }

    async fn abort_whole(self: Rc<Self>, sessions: Vec<SessionId>) -> Result<(), Error> {
        let _log = self.log.lock().await;
        let open: Vec<SessionId> = {
            let state = self.state.borrow();
            state.check()?;
            sessions.into_iter().filter(|s| state.sessions.contains_key(s)).collect()
        };
        for some in open.chunks(256) {
            let payload = encode_abort(some);
            let header = RecordHeader::control(Kind::Abort, &payload);
            self.append_control(header, payload).await?;
        }
        self.sync_tail().await?;
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let segment = state.tail_place().segment;
            for session in open {
                let Some(gone) = state.sessions.remove(&session) else { continue };
                state.open_records -= gone.records.len() as u64;
                state.ended.insert(session, segment);
            }
        }
        self.collect().await
    }
}

/// What a commit says of streams, in the fields of its header that are of no other use: how many writes
/// the one before it brought, and whether one follows it. So a write is missed whose header is damaged.
fn stream_at(state: &State, follows: bool) -> Run {
    Run { volume: VolumeId(0), first: state.streamed, count: u64::from(follows) }
}

/// By sequence, and where it is equal by place in the log.
pub(crate) fn in_version_order(mut records: Vec<RecordRef>) -> Vec<RecordRef> {
    records.sort_by_key(|record| (record.sequence, record.place));
    records
}
