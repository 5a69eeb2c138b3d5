//! The write path, flush, trim and zeroes.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use disk::FileKind;
use grain::{Content, Run, VolumeId};

use super::Source;
use super::stream::Tickets;
use crate::group_commit::GroupCommit;
use crate::track::{Marked, Ticket};
use crate::volumes::Volumes;
use crate::{Error, Result};

/// Trims and zeroes pass the gate in pieces of this size, so that a cut never waits long for one.
const ZERO_PIECE: u64 = 4 << 20;

/// What a write does to its range.
#[derive(Clone, Debug)]
pub enum Change {
    /// Puts these bytes there.
    Data(Bytes),
    /// Makes zeros.
    Zero {
        /// How many bytes.
        len: u64,
        /// Gives the space back.
        punch: bool,
        /// Fails rather than writing zeros.
        fast: bool,
    },
}

/// What came of a write that was tried without waiting.
#[must_use]
pub enum Written {
    /// It is done.
    Done,
    /// It is done here, and the reply has to wait for peers: [`Source::confirm`].
    Waits(Tickets),
    /// Nothing was promised: [`Source::write_on`] has to be used, at once.
    NotNow(Tried),
}

/// What a try without waiting left. The disk may hold a part of the write: it has to be done in the epoch
/// in which that part was written, so whoever holds this is inside the gate.
#[derive(Default)]
#[must_use]
pub struct Tried(Option<Ticket>);

/// Not even tried.
const NOT_NOW: Result<Written> = Ok(Written::NotNow(Tried(None)));

impl Source {
    fn run_of(&self, volume: VolumeId, offset: u64, len: u64) -> Run {
        let touched = self.volumes.geometry().grain.touched(offset, len);
        Run { volume, first: touched.start, count: touched.end - touched.start }
    }

    /// Writes inline if nothing has to be waited for.
    pub fn write_now(&self, volume: VolumeId, offset: u64, data: &[u8]) -> Result<Written> {
        let settled = self.marked_alone.get() && !self.streams.anybody_lost();
        if !settled || self.stopping.get() || self.switchover.borrow().is_some() {
            return NOT_NOW;
        }
        let Some(ticket) = self.gate.try_enter() else { return NOT_NOW };
        let range = offset..offset + data.len() as u64;
        let Some(locks) = self.locks.get(volume.index()) else { return NOT_NOW };
        if !locks.is_free(&range) {
            return NOT_NOW;
        }
        let run = self.run_of(volume, offset, data.len() as u64);
        // An error here is met again, and dealt with, on the waiting path.
        if !matches!(self.tracker.mark(run), Ok(Marked::Ready)) {
            return NOT_NOW;
        }
        if self.sessions.borrow().iter().any(|s| s.conflicts(run)) {
            return NOT_NOW;
        }
        let open = self.volumes.get(volume)?;
        match open.file.write_now(data, offset) {
            Ok(true) => {}
            Ok(false) => return Ok(Written::NotNow(Tried(Some(ticket)))),
            Err(e) => {
                self.write_failed();
                return Err(Error::io("write", &open.path)(e));
            }
        }
        let content = || Content::Data(Bytes::copy_from_slice(data));
        let tickets = self.stream_out(volume, offset, data.len() as u64, content);
        Ok(if tickets.is_empty() { Written::Done } else { Written::Waits(tickets) })
    }

    /// Waits for the peers that a reply has to wait for.
    pub async fn confirm(&self, tickets: Tickets) -> Result<()> {
        self.replicated(tickets, false).await?;
        // One of them may have gone meanwhile.
        self.mark_alone().await
    }

    /// Writes, waiting for whatever has to be waited for. The range was checked against the volume. The
    /// write goes on when the future is dropped: a client that goes away does not let its half-done
    /// write out of the gate.
    pub async fn write(
        self: Rc<Self>,
        volume: VolumeId,
        offset: u64,
        change: Change,
        fua: bool,
    ) -> Result<()> {
        self.write_on(Tried::default(), volume, offset, change, fua).await
    }

    /// The same after a try without waiting.
    pub async fn write_on(
        self: Rc<Self>,
        tried: Tried,
        volume: VolumeId,
        offset: u64,
        change: Change,
        fua: bool,
    ) -> Result<()> {
        let work = self.carry_out(tried, volume, offset, change, fua);
        let writing = tokio::task::spawn_local(work);
        writing.await.unwrap_or_else(|_| Err(Error::State("the source is stopping".to_owned())))
    }

    /// [`Source::write`] for who runs it in a task of its own.
    pub(super) async fn carry_out(
        self: Rc<Self>,
        tried: Tried,
        volume: VolumeId,
        offset: u64,
        change: Change,
        fua: bool,
    ) -> Result<()> {
        match change {
            Change::Data(bytes) => {
                self.write_piece(tried, volume, offset, Piece::Data(bytes, fua)).await
            }
            Change::Zero { len, punch, fast } => {
                let end = offset + len;
                let mut at = offset;
                while at < end {
                    // Pieces end at multiples, so that whole grains stay whole.
                    let next = (at / ZERO_PIECE + 1) * ZERO_PIECE;
                    let piece = Piece::Zero { len: next.min(end) - at, punch, fast };
                    self.write_piece(Tried::default(), volume, at, piece).await?;
                    at = next.min(end);
                }
                if fua { self.flush().await } else { Ok(()) }
            }
        }
    }

    async fn write_piece(
        self: &Rc<Self>,
        tried: Tried,
        volume: VolumeId,
        offset: u64,
        piece: Piece,
    ) -> Result<()> {
        let weight = piece.weight().min(self.settings.credit_bytes);
        // Who is inside the gate waits for nobody who may be outside of it.
        let _credits = match tried.0.is_some() {
            true => None,
            false => Some(
                self.credits
                    .acquire_many((weight >> 10).max(1) as u32)
                    .await
                    .map_err(|_| Error::State("the source is stopping".to_owned()))?,
            ),
        };
        let durable = matches!(piece, Piece::Data(_, true));
        let begun = tried.0.is_some();
        let written = self.write_inside(tried, volume, offset, piece).await;
        if begun && written.is_err() {
            // A part of it may be on the disk, and no stream has it.
            self.write_failed();
        }
        let tickets = written?;
        // Outside the gate: a cut never waits for the network.
        self.replicated(tickets, durable).await?;
        self.mark_alone().await
    }

    /// From the gate to the disk and into the streams.
    async fn write_inside(
        self: &Rc<Self>,
        tried: Tried,
        volume: VolumeId,
        offset: u64,
        piece: Piece,
    ) -> Result<Tickets> {
        let len = piece.len();
        let _ticket = match tried.0 {
            Some(ticket) => ticket,
            None => self.enter().await,
        };
        self.takes_writes()?;
        let locks = self
            .locks
            .get(volume.index())
            .ok_or_else(|| Error::State(format!("there is no volume {}", volume.0)))?;
        let _lock = locks.lock(offset..offset + len).await;
        let run = self.run_of(volume, offset, len);
        if !matches!(self.tracker.mark(run), Ok(Marked::Ready)) {
            self.tracker.recorded().await?;
        }
        // After the bits: a commit that withdraws the mark sees them and leaves a new one.
        self.mark_alone().await?;
        self.not_fenced()?;
        self.protect(run).await;
        self.write_base(volume, offset, &piece).await?;
        // Before the lock goes: whoever writes the same bytes next comes later in every stream.
        let content = || match piece {
            Piece::Data(bytes, _) => Content::Data(bytes),
            Piece::Zero { .. } => Content::Zero,
        };
        Ok(self.stream_out(volume, offset, len, content))
    }

    async fn enter(&self) -> Ticket {
        loop {
            self.role_is_settled().await;
            let ticket = self.gate.enter().await;
            // Asked for while the gate was closed for a cut.
            if self.switchover.borrow().is_none() {
                return ticket;
            }
        }
    }

    async fn write_base(
        self: &Rc<Self>,
        volume: VolumeId,
        offset: u64,
        piece: &Piece,
    ) -> Result<()> {
        let volume = self.volumes.get(volume)?;
        let outcome = match piece {
            Piece::Data(bytes, false) => volume.file.write_at(offset, bytes.clone()).await,
            Piece::Data(bytes, true) => volume.file.write_durable(offset, bytes.clone()).await,
            Piece::Zero { len, punch, fast: false } => volume.file.zero(offset, *len, *punch).await,
            Piece::Zero { len, punch, fast: true } => {
                volume.file.zero_fast(offset, *len, *punch).await
            }
        };
        let outcome = outcome.map_err(Error::io("write", &volume.path));
        let Err(e) = &outcome else { return Ok(()) };
        if !says_unsupported(e) {
            self.write_failed();
        }
        if matches!(piece, Piece::Data(_, true)) && !refused_for_space(e, volume.file.kind()) {
            // The kernel reports a lost write once: this report may be of earlier ones, too, which no
            // later sync would tell of.
            self.sync_failed.set(true);
            self.become_suspect(e).await;
        }
        outcome
    }

    fn takes_writes(&self) -> Result<()> {
        match self.stopping.get() {
            true => Err(Error::State("the source is stopping".to_owned())),
            false => self.not_fenced(),
        }
    }

    fn not_fenced(&self) -> Result<()> {
        match self.fenced.get() {
            true => Err(Error::State(
                "another site was promoted: this one takes no writes until the operator decided"
                    .to_owned(),
            )),
            false => Ok(()),
        }
    }

    /// Lets every copy session keep what this write is about to overwrite.
    async fn protect(&self, run: Run) {
        loop {
            let session = self.sessions.borrow().iter().find(|s| s.conflicts(run)).map(Rc::clone);
            match session {
                Some(session) => session.protect(run).await,
                None => return,
            }
        }
    }

    /// Reads inline if the data is at hand.
    pub fn read_now(&self, volume: VolumeId, buf: &mut [u8], offset: u64) -> Result<bool> {
        let volume = self.volumes.get(volume)?;
        volume.file.read_now(buf, offset).map_err(Error::io("read", &volume.path))
    }

    /// Reads.
    pub async fn read(&self, volume: VolumeId, offset: u64, len: usize) -> Result<Bytes> {
        let volume = self.volumes.get(volume)?;
        let read = volume.file.read_at(offset, len).await;
        Ok(read.map_err(Error::io("read", &volume.path))?.into())
    }

    /// Puts every write replied before the call onto stable storage, in sync mode at the peers, too.
    pub async fn flush(self: &Rc<Self>) -> Result<()> {
        // Asked for first, so that both sides sync at the same time.
        let tickets = self.flush_tickets();
        let waits = !tickets.is_empty();
        self.sync_base().await?;
        if waits || self.streams.anybody_lost() {
            self.replicated(tickets, true).await?;
            self.mark_alone().await?;
        }
        Ok(())
    }

    /// Puts every write that has ended before the call onto this side's stable storage.
    pub(super) async fn sync_base(self: &Rc<Self>) -> Result<()> {
        let head = self.head();
        let outcome = self.flusher.join().await;
        match &outcome {
            // Everything before `head` was done when the sync started: the gate was drained at it.
            Ok(()) => self.store.change(|s| {
                // The kernel tells of a page that it lost once. A sync that goes well after that, in another
                // process, says nothing about it.
                if s.run.lost_sync.is_some() {
                    return;
                }
                let place = |cut| s.lineage.index_of(cut);
                let now = head.and_then(place);
                if now > s.synced.and_then(place) || s.synced.is_none() {
                    s.synced = head;
                }
            }),
            Err(e) => self.become_suspect(e).await,
        }
        outcome
    }

    /// A base sync failed: what was written since the last good one may be lost.
    async fn become_suspect(self: &Rc<Self>, cause: &Error) {
        let words = format!("a sync of the volumes failed: {cause}");
        tracing::error!(%words, "the source is suspect");
        if let Err(e) = self.reopen_unsynced().await {
            tracing::error!(error = %e, "what may be lost could not be marked");
        }
        let boot = self.ctx.boot();
        let noted = self.store.update(|s| {
            s.suspect = s.suspect.take().or(Some(words));
            s.run.lost_sync = Some(boot);
        });
        let saved = noted.await;
        if let Err(e) = saved {
            tracing::error!(error = %e, "the state could not be saved");
        }
    }
}

/// The disk does not do what was asked for, and has done nothing.
fn says_unsupported(e: &Error) -> bool {
    matches!(e, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::Unsupported)
}

/// True when the file system had no room for a write, before anything was written. (A device that
/// runs out of room, being thinly provisioned, has lost it.)
fn refused_for_space(e: &Error, kind: FileKind) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let Error::Io { source, .. } = e else { return false };
    kind == FileKind::Regular && matches!(source.kind(), StorageFull | QuotaExceeded)
}

enum Piece {
    Data(Bytes, bool),
    Zero { len: u64, punch: bool, fast: bool },
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Piece::Data(bytes, _) => bytes.len() as u64,
            Piece::Zero { len, .. } => *len,
        }
    }

    /// Bytes of memory that it holds.
    fn weight(&self) -> u64 {
        match self {
            Piece::Data(bytes, _) => bytes.len() as u64,
            Piece::Zero { .. } => 0,
        }
    }
}

/// The group commit behind flush. After a sync has failed, every later one fails: the kernel reports
/// a lost write once, and a second sync that succeeds proves nothing.
pub(super) fn base_syncer(
    volumes: &Rc<Volumes>,
    failed: &Rc<std::cell::Cell<bool>>,
) -> GroupCommit {
    let (volumes, failed) = (volumes.clone(), failed.clone());
    GroupCommit::new(move || {
        let (volumes, failed) = (volumes.clone(), failed.clone());
        Box::pin(async move {
            if failed.get() {
                let words = std::io::Error::other("an earlier sync failed");
                let path = volumes.iter().next().map(|(_, v)| v.path.clone()).unwrap_or_default();
                return Err(Error::Io { what: "sync", path, source: Arc::new(words) });
            }
            let outcome = volumes.sync().await;
            failed.set(outcome.is_err());
            outcome
        })
    })
}
