//! What the sink takes from a copy session.
//!
//! Every future here may be dropped in the middle, as when a link breaks: what it had claimed is
//! pending again, what it had in hand is kept again, and those who wait for it look anew.

use grain::{Content, GrainData, GrainSet, Run, VolumeId};

use super::unreadable::Found;
use super::{CopySession, HOLE_GRAINS, OnWrite, PIECE_BYTES, SKIP_GRAINS, claim};
use crate::Result;
use crate::session::Ended;
use crate::session::store::Kept;

impl CopySession {
    /// The next runs for the sink: preserved ones first, then from the base in address order.
    /// `None` when everything was delivered.
    pub async fn next(&self) -> Result<Option<Vec<GrainData>>> {
        loop {
            if let Some(data) = self.next_preserved().await? {
                return Ok(Some(vec![data]));
            }
            let claimed = {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                self.alive(state)?;
                let most = match self.on_write {
                    OnWrite::Preserve => HOLE_GRAINS,
                    OnWrite::Skip => SKIP_GRAINS,
                };
                let found = state
                    .pending
                    .next_run(state.cursor, most)
                    .or_else(|| state.pending.next_run((VolumeId(0), 0), most));
                found.map(|run| {
                    state.cursor = (run.volume, run.end());
                    (run, claim(state, run))
                })
            };
            match claimed {
                Some((run, number)) => {
                    if let Some(found) = self.read(run, number).await?
                        && !found.data.is_empty()
                    {
                        return Ok(Some(found.data));
                    }
                }
                None => {
                    let news = self.news.notified();
                    if self.is_delivered() {
                        return Ok(None);
                    }
                    news.await;
                }
            }
        }
    }

    /// Reads what of `run` is still pending. What was preserved, or is just being preserved, comes by
    /// [`CopySession::next_preserved`]; what another one reads comes to that one.
    pub async fn take(&self, run: Run) -> Result<Vec<GrainData>> {
        let mut out = Vec::new();
        let mut from = run.first;
        while from < run.end() {
            let step = {
                let mut state = self.state.borrow_mut();
                let state = &mut *state;
                self.alive(state)?;
                let rest = Run { first: from, count: run.end() - from, ..run };
                match state.pending.next_run((run.volume, from), rest.count) {
                    Some(found) if found.volume == run.volume && found.first < run.end() => {
                        let count = found.count.min(run.end() - found.first);
                        let piece = Run { count, ..found };
                        Some((piece, claim(state, piece)))
                    }
                    _ => None,
                }
            };
            let Some((piece, number)) = step else { break };
            // A part of it may be pending again where nothing came.
            from = piece.first;
            if let Some(found) = self.read(piece, number).await? {
                from = found.end;
                out.extend(found.data);
            }
        }
        Ok(out)
    }

    /// Reads the start of a claimed run; the rest goes back to pending. `None` when it was spoiled.
    async fn read(&self, run: Run, number: u64) -> Result<Option<Found>> {
        // Gives the claim back when the sink goes away in the middle.
        let claimed = Claimed { session: self, number };
        let outcome = self.read_start(run, number).await;
        match outcome {
            Ok(found) => {
                let spoiled = self.finish_busy(number).is_none_or(|busy| busy.spoiled);
                if !spoiled {
                    self.note_unreadable(&found.unreadable);
                }
                self.news.notify_waiters();
                Ok((!spoiled).then_some(found))
            }
            // Nobody else will deliver this run: back to pending, for another try.
            Err(e) => {
                drop(claimed);
                Err(e)
            }
        }
    }

    async fn read_start(&self, run: Run, number: u64) -> Result<Found> {
        // Who cannot tell holes from data reads.
        let holes = self.volumes.hole_at(run).await.unwrap_or(0);
        let most = (PIECE_BYTES >> self.volumes.geometry().grain.shift()).max(1);
        let count = if holes > 0 { holes } else { run.count.min(most) };
        let start = Run { count, ..run };
        self.shrink(number, start);
        if holes > 0 {
            let data = vec![GrainData { run: start, content: Content::Zero }];
            return Ok(Found { data, unreadable: GrainSet::new(), end: start.end() });
        }
        self.read_readable(start).await
    }

    /// Gives the end of a claimed run back; those who waited for it look again.
    fn shrink(&self, number: u64, to: Run) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(busy) = state.busy.iter_mut().find(|b| b.number == number) else { return };
        let rest = Run { first: to.end(), count: busy.run.end() - to.end(), ..to };
        if rest.count == 0 {
            return;
        }
        busy.run = to;
        busy.waiters.clear();
        if busy.spoiled {
            return;
        }
        if state.ended.is_none() {
            state.pending.insert_run(rest);
        }
        if state.cursor.0 == rest.volume && state.cursor.1 == rest.end() {
            state.cursor = (rest.volume, rest.first);
        }
    }

    /// One preserved run, if there is any. What cannot be read back from the side file is lost to the
    /// session, which ends.
    pub async fn next_preserved(&self) -> Result<Option<GrainData>> {
        let kept = {
            let mut state = self.state.borrow_mut();
            self.alive(&state)?;
            let kept = state.store.take();
            state.in_hand += u64::from(kept.is_some());
            kept
        };
        let Some(kept) = kept else { return Ok(None) };
        // Puts it back when the sink goes away in the middle.
        let mut hand = InHand { session: self, kept: Some(kept) };
        let loaded = match &hand.kept {
            Some(kept) => kept.load().await,
            None => return Ok(None),
        };
        if let Some(kept) = hand.kept.take() {
            self.state.borrow_mut().store.unplace(kept.side_bytes());
        }
        drop(hand);
        if loaded.is_err() {
            self.end(Ended::ReadFailed);
        }
        self.room.notify_waiters();
        loaded.map(Some)
    }
}

/// A run that is being read; pending again if the read does not come to its end.
struct Claimed<'a> {
    session: &'a CopySession,
    number: u64,
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        let Some(busy) = self.session.finish_busy(self.number) else { return };
        if !busy.spoiled {
            self.session.state.borrow_mut().pending.insert_run(busy.run);
        }
        drop(busy);
        self.session.news.notify_waiters();
    }
}

/// A preserved run on its way to the sink; kept again if it does not get there.
struct InHand<'a> {
    session: &'a CopySession,
    kept: Option<Kept>,
}

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        let mut state = self.session.state.borrow_mut();
        state.in_hand -= 1;
        if let Some(kept) = self.kept.take() {
            state.store.put_back(kept);
        }
        drop(state);
        self.session.news.notify_waiters();
    }
}
