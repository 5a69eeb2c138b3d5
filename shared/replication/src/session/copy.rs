//! [`CopySession`]: see the module's text.
//!
//! Contract: installed at the cut, while the gate is closed. A writer asks [`CopySession::conflicts`]
//! and, if so, waits for [`CopySession::protect`] inside the gate, before its base write. The sink
//! takes from [`CopySession::next`] or [`CopySession::take`] and [`CopySession::next_preserved`].

mod read;
mod unreadable;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use grain::{Content, CutId, GrainData, GrainSet, Run, VolumeId};
use tokio::sync::{Notify, oneshot};

use super::store::{SideFile, Store};
use crate::volumes::Volumes;
use crate::{Error, Result};

/// Bytes read in one piece.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
/// Grains whose holes are looked up in one piece.
const HOLE_GRAINS: u64 = 1 << 24;
/// More grains than this, and more than one of 64 of the volumes, that cannot be read are no bad places
/// any more but a broken disk, which ends the session. (Of the volumes, not of the set: a catch-up may
/// ask for nothing but the bad places that a dump left out.)
const LEAST_UNREADABLE: u64 = 16;
/// More than this are, whatever the size.
const MOST_UNREADABLE: u64 = 4096;
/// The same in a skipping session, where a write spoils all that is claimed at the moment.
const SKIP_GRAINS: u64 = 1024;

/// What a write to a grain that was not read yet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnWrite {
    /// Its content at the cut is kept for the sink.
    Preserve,
    /// The grain leaves the session.
    Skip,
}

/// What happens when there is no room to preserve for longer than the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Go on without preserving: the copy is no point in time any more.
    Fuzzy,
    /// Let the writers wait for as long as it takes.
    Throttle,
    /// End the session with an error.
    Abort,
    /// End the session; what was delivered stays useful.
    Partial,
}

/// The bounds of a session.
pub struct Options {
    /// What writes do.
    pub on_write: OnWrite,
    /// Bytes of preserved grains in memory at most.
    pub buffer_bytes: u64,
    /// Where preserved grains go beyond that.
    pub side: Option<SideFile>,
    /// How long a writer waits for room.
    pub wait: Duration,
    /// And then?
    pub overflow: Overflow,
    /// Nothing is preserved from the start: what a dump that broke off still lacks is read live.
    pub fuzzy: bool,
}

/// How a session ended, or why its content is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// There was no room to preserve.
    Overflow,
    /// Asked for.
    Cancelled,
    /// Too many reads of the base failed, or what was preserved cannot be read back.
    ReadFailed,
}

/// Figures for progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Grains not delivered yet, without those preserved.
    pub pending_grains: u64,
    /// Grains that were preserved for the sink.
    pub preserved_grains: u64,
    /// Preserved bytes waiting in memory.
    pub waiting_memory_bytes: u64,
    /// Preserved bytes waiting in the side file.
    pub waiting_side_bytes: u64,
    /// The most that ever waited in memory.
    pub memory_peak_bytes: u64,
    /// Grains that left the session because they were written.
    pub skipped_grains: u64,
}

struct Busy {
    run: Run,
    waiters: Vec<oneshot::Sender<()>>,
    /// Written meanwhile in a skipping session: the read is thrown away.
    spoiled: bool,
    number: u64,
}

struct State {
    pending: GrainSet,
    busy: Vec<Busy>,
    next_busy: u64,
    store: Store,
    /// Preserved runs that are being read back for the sink.
    in_hand: u64,
    skipped: GrainSet,
    /// Could not be read; of them, what the sink was not told yet.
    unreadable: GrainSet,
    untold: GrainSet,
    unreadable_limit: u64,
    preserved: u64,
    cursor: (VolumeId, u64),
    fuzzy: bool,
    ended: Option<Ended>,
}

/// See the module's text.
pub struct CopySession {
    cut: CutId,
    volumes: Rc<Volumes>,
    on_write: OnWrite,
    overflow: Overflow,
    wait: Duration,
    buffer_bytes: u64,
    state: RefCell<State>,
    /// Something was preserved, finished or ended: the sink looks again.
    news: Notify,
    /// The sink took something: there may be room.
    room: Notify,
}

fn overlap(a: Run, b: Run) -> bool {
    a.volume == b.volume && a.first < b.end() && b.first < a.end()
}

impl CopySession {
    /// A session over `set` at `cut`. The gate is closed while it is made and installed.
    pub fn new(cut: CutId, set: GrainSet, volumes: Rc<Volumes>, options: Options) -> Rc<Self> {
        let unreadable_limit = volumes.geometry().total_grains() / 64;
        let unreadable_limit = unreadable_limit.clamp(LEAST_UNREADABLE, MOST_UNREADABLE);
        Rc::new(CopySession {
            cut,
            volumes,
            on_write: options.on_write,
            overflow: options.overflow,
            wait: options.wait,
            buffer_bytes: options.buffer_bytes,
            state: RefCell::new(State {
                pending: set,
                busy: Vec::new(),
                next_busy: 0,
                store: Store::new(options.buffer_bytes, options.side),
                in_hand: 0,
                skipped: GrainSet::new(),
                unreadable: GrainSet::new(),
                untold: GrainSet::new(),
                unreadable_limit,
                preserved: 0,
                cursor: (VolumeId(0), 0),
                fuzzy: options.fuzzy,
                ended: None,
            }),
            news: Notify::new(),
            room: Notify::new(),
        })
    }

    /// The cut as of which it reads.
    pub fn cut(&self) -> CutId {
        self.cut
    }

    /// True when a write to `run` has to wait for [`CopySession::protect`].
    pub fn conflicts(&self, run: Run) -> bool {
        let state = self.state.borrow();
        // What is spoiled already needs no protection; its read is thrown away.
        if state.busy.iter().any(|b| !b.spoiled && overlap(b.run, run)) {
            return true;
        }
        state.ended.is_none() && !state.fuzzy && state.pending.intersects(run)
    }

    /// Waits until a write to `run` cannot take anything from the session any more. Never fails the
    /// write: a session that cannot preserve degrades as asked.
    pub async fn protect(&self, run: Run) {
        loop {
            let step = self.protect_step(run);
            match step {
                Step::Free => return,
                Step::Wait(waiter) => drop(waiter.await),
                Step::Preserve(piece, number) => self.preserve(piece, number).await,
            }
        }
    }

    fn protect_step(&self, run: Run) -> Step {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if self.on_write == OnWrite::Skip {
            let mut spoiled = Vec::new();
            for busy in &mut state.busy {
                if overlap(busy.run, run) && !busy.spoiled {
                    busy.spoiled = true;
                    spoiled.push(busy.run);
                }
            }
            let mut gone = GrainSet::new();
            gone.insert_run(run);
            gone.intersect_with(&state.pending);
            state.pending.subtract(&gone);
            state.skipped.union_with(&gone);
            state.skipped.extend(spoiled);
            return Step::Free;
        }
        if let Some(busy) = state.busy.iter_mut().find(|b| overlap(b.run, run)) {
            let (send, receive) = oneshot::channel();
            busy.waiters.push(send);
            return Step::Wait(receive);
        }
        if state.fuzzy || state.ended.is_some() {
            return Step::Free;
        }
        let most = (PIECE_BYTES >> self.volumes.geometry().grain.shift()).max(1);
        match state.pending.next_run((run.volume, run.first), most) {
            Some(found) if found.volume == run.volume && found.first < run.end() => {
                let count = found.count.min(run.end() - found.first);
                let piece = Run { count, ..found };
                let number = claim(state, piece);
                Step::Preserve(piece, number)
            }
            _ => Step::Free,
        }
    }

    async fn preserve(&self, piece: Run, number: u64) {
        match self.read_readable(piece).await {
            Ok(found) => {
                self.note_unreadable(&found.unreadable);
                for part in found.data.into_iter().flat_map(|data| self.parts(data)) {
                    let run = part.run;
                    if !self.keep(part).await {
                        // Read live later, if at all: the session is fuzzy or has ended.
                        self.state.borrow_mut().pending.insert_run(run);
                        continue;
                    }
                    self.state.borrow_mut().preserved += run.count;
                    self.news.notify_waiters();
                }
            }
            Err(e) => {
                tracing::error!(error = %e, "a grain could not be read to be preserved");
                self.end(Ended::ReadFailed);
            }
        }
        self.finish_busy(number);
        self.news.notify_waiters();
    }

    /// Data and zero runs, small enough that several fit into the buffer.
    fn parts(&self, part: GrainData) -> Vec<GrainData> {
        let grain = self.volumes.geometry().grain.bytes();
        let most = (self.buffer_bytes / 4 / grain).max(1);
        let Content::Data(bytes) = part.content else { return vec![part] };
        let mut parts = Vec::new();
        let mut done = 0;
        while done < part.run.count {
            let count = most.min(part.run.count - done);
            let run = Run { first: part.run.first + done, count, ..part.run };
            let from = (done * grain) as usize;
            let to = bytes.len().min(((done + count) * grain) as usize);
            parts.push(GrainData { run, content: Content::Data(bytes.slice(from..to)) });
            done += count;
        }
        parts
    }

    /// Stores one preserved run: memory, side file, wait, overflow. False when it was not stored.
    async fn keep(&self, data: GrainData) -> bool {
        let deadline = tokio::time::Instant::now() + self.wait;
        let mut data = data;
        loop {
            // Made before the look, so that room made meanwhile is not overlooked.
            let room = self.room.notified();
            let place = {
                let mut state = self.state.borrow_mut();
                if state.ended.is_some() || state.fuzzy {
                    return false;
                }
                data = match state.store.keep(data) {
                    Ok(()) => return true,
                    Err(back) => back,
                };
                let Content::Data(bytes) = &data.content else { return false };
                state.store.side_place(bytes.len() as u64)
            };
            if let (Some(place), Content::Data(bytes)) = (place, &data.content) {
                let len = place.len;
                match place.file.write_at(place.offset, bytes.clone()).await {
                    Ok(()) => {
                        self.state.borrow_mut().store.placed(data.run, place);
                        return true;
                    }
                    Err(e) => {
                        tracing::warn!(error = %e, path = %place.path.display(), "side file");
                        self.state.borrow_mut().store.unplace(len);
                    }
                }
            }
            self.news.notify_waiters();
            if self.overflow == Overflow::Throttle {
                room.await;
            } else if tokio::time::timeout_at(deadline, room).await.is_err() {
                self.overflowed();
            }
        }
    }

    fn overflowed(&self) {
        match self.overflow {
            Overflow::Fuzzy | Overflow::Throttle => {
                self.state.borrow_mut().fuzzy = true;
                // The other writers that wait for room need not wait longer.
                self.room.notify_waiters();
            }
            Overflow::Abort | Overflow::Partial => self.end(Ended::Overflow),
        }
    }

    /// Takes a claim off; dropping what it gives wakes those who wait for it.
    fn finish_busy(&self, number: u64) -> Option<Busy> {
        let mut state = self.state.borrow_mut();
        let at = state.busy.iter().position(|b| b.number == number)?;
        Some(state.busy.swap_remove(at))
    }

    /// True when something preserved waits for the sink.
    pub fn has_preserved(&self) -> bool {
        !self.state.borrow().store.is_empty()
    }

    /// Waits until something was preserved, delivered or ended.
    pub async fn changed(&self) {
        self.news.notified().await;
    }

    fn alive(&self, state: &State) -> Result<()> {
        match state.ended {
            None => Ok(()),
            Some(Ended::Cancelled) => Err(Error::Cancelled),
            Some(Ended::Overflow) => {
                Err(Error::State("no room was left to preserve what was overwritten".to_owned()))
            }
            Some(Ended::ReadFailed) => {
                Err(Error::State("a grain could not be read to be preserved".to_owned()))
            }
        }
    }

    /// True when nothing is pending, busy or waiting.
    pub fn is_delivered(&self) -> bool {
        let state = self.state.borrow();
        let nothing_left = state.pending.is_empty() && state.busy.is_empty();
        nothing_left && state.store.is_empty() && state.in_hand == 0
    }

    /// Ends the session: writers wait no more, the sink gets an error.
    pub fn end(&self, why: Ended) {
        let mut state = self.state.borrow_mut();
        state.ended.get_or_insert(why);
        drop(state);
        self.news.notify_waiters();
        self.room.notify_waiters();
    }

    /// Takes grains out that the sink has already.
    pub fn drop_pending(&self, done: &GrainSet) {
        self.state.borrow_mut().pending.subtract(done);
    }

    /// How it ended, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.state.borrow().ended
    }

    /// True when grains were read live: the copy is no point in time.
    pub fn is_fuzzy(&self) -> bool {
        self.state.borrow().fuzzy
    }

    /// What left the session because it was written.
    pub fn skipped(&self) -> GrainSet {
        self.state.borrow().skipped.clone()
    }

    /// Figures for progress.
    pub fn counters(&self) -> Counters {
        let state = self.state.borrow();
        let (waiting_memory_bytes, waiting_side_bytes) = state.store.waiting();
        Counters {
            pending_grains: state.pending.len(),
            preserved_grains: state.preserved,
            waiting_memory_bytes,
            waiting_side_bytes,
            memory_peak_bytes: state.store.memory_peak,
            skipped_grains: state.skipped.len(),
        }
    }
}

enum Step {
    Free,
    Wait(oneshot::Receiver<()>),
    Preserve(Run, u64),
}

fn claim(state: &mut State, run: Run) -> u64 {
    state.pending.remove_run(run);
    let number = state.next_busy;
    state.next_busy += 1;
    state.busy.push(Busy { run, waiters: Vec::new(), spoiled: false, number });
    number
}
