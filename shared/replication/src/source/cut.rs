//! Cuts at the source.

use std::rc::Rc;
use std::time::Duration;

use grain::{Cut, CutId, CutReason, GrainSet, LayerName};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::Source;
use crate::map::MapFile;
use crate::session::{CopySession, Ended};
use crate::state::ClosedLayer;
use crate::{Error, Result};

/// A cut that was made, and how long it kept writers waiting.
#[derive(Clone, Copy, Debug)]
pub struct CutPause {
    /// The cut.
    pub cut: Cut,
    /// Time from closing to opening the gate.
    pub pause: Duration,
}

/// What has to be durable before a cut counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Publish {
    /// It leaves the site: the base with everything before it.
    Synced,
    /// The same at a start, when it may not be known how far the epoch before went.
    Start {
        /// Its last sequence number.
        end_of_previous: Option<u64>,
    },
    /// It goes to peers that stream: its record alone (rule 6).
    InStream,
}

impl Source {
    /// Makes a cut and publishes it: on return the base is synced with everything before it, and its
    /// record is durable. `install` is called at the cut, while no write is under way, with the cut's
    /// id; the sessions that it returns see every write after the cut.
    pub async fn cut<F>(self: &Rc<Self>, reason: CutReason, install: F) -> Result<CutPause>
    where
        F: FnOnce(CutId) -> Vec<Rc<CopySession>>,
    {
        let one = self.lock_cuts().await;
        self.cut_locked(&one, reason, |cut, _| install(cut)).await
    }

    /// Keeps others from making a cut until it is dropped.
    pub(crate) async fn lock_cuts(&self) -> MutexGuard<'_, ()> {
        self.cutting.lock().await
    }

    /// [`Source::cut`] for who holds the lock already. `install` sees the layer that the cut closes,
    /// too.
    pub(crate) async fn cut_locked<F>(
        self: &Rc<Self>,
        one: &MutexGuard<'_, ()>,
        reason: CutReason,
        install: F,
    ) -> Result<CutPause>
    where
        F: FnOnce(CutId, &GrainSet) -> Vec<Rc<CopySession>>,
    {
        if self.stopping.get() {
            return Err(Error::State("the source is stopping".to_owned()));
        }
        self.cut_after(one, reason, Publish::Synced, install).await
    }

    /// The same, saying how it is published.
    pub(super) async fn cut_after<F>(
        self: &Rc<Self>,
        _one: &MutexGuard<'_, ()>,
        reason: CutReason,
        publish: Publish,
        install: F,
    ) -> Result<CutPause>
    where
        F: FnOnce(CutId, &GrainSet) -> Vec<Rc<CopySession>>,
    {
        self.tracker.prepare().await?;
        let id = CutId::new(self.ctx.unix_ms(), self.ctx.random());
        let begun = Instant::now();
        let closed = self.gate.close(self.settings.cut_limit).await?;
        let end_of_previous = match publish {
            Publish::Start { end_of_previous } => end_of_previous,
            Publish::Synced | Publish::InStream => Some(self.streams.sequence()),
        };
        let (cut, layer) = self.swap_at(id, reason, end_of_previous)?;
        let recording = self.cut_streams(cut);
        let sessions = layer.with_set(|written| install(id, written));
        let mut installed = self.installed(sessions);
        drop(closed);
        let pause = begun.elapsed();
        self.longest_pause_us.set(self.longest_pause_us.get().max(pause.as_micros() as u64));
        // The bits of the closed layer, the base under it, then the record that names both.
        self.tracker.settle().await?;
        if publish != Publish::InStream {
            self.sync_base().await?;
        }
        self.store.save().await?;
        recording.done();
        installed.sessions.clear();
        Ok(CutPause { cut, pause })
    }

    fn installed(&self, sessions: Vec<Rc<CopySession>>) -> Installed<'_> {
        let mut all = self.sessions.borrow_mut();
        all.retain(|s| s.ended().is_none() && !s.is_delivered());
        all.extend(sessions.iter().cloned());
        Installed { source: self, sessions }
    }

    /// The decision itself: no waiting, the gate is closed.
    pub(super) fn swap_at(
        &self,
        id: CutId,
        reason: CutReason,
        end_of_previous: Option<u64>,
    ) -> Result<(Cut, MapFile)> {
        let (old_at, old_map, new_at) = self.tracker.swap()?;
        let unix_ms = self.ctx.unix_ms();
        let grains = old_map.with_set(|set| {
            self.owed.borrow_mut().union_with(set);
            set.len()
        });
        let streaming = self.streaming();
        self.store.change(|s| {
            for peer in s.peers.iter_mut().filter(|p| streaming.contains(&p.identity)) {
                peer.published.push(id);
            }
            let parent = s.lineage.head().map(|c| c.id);
            let cut = Cut { id, parent, unix_ms, reason };
            s.lineage
                .push(cut, end_of_previous)
                .map_err(|e| Error::State(format!("the cut does not fit the lineage: {e}")))?;
            if reason == CutReason::Bookmark {
                self.record_bookmark(s, id, unix_ms);
            }
            match parent {
                Some(from) => s.layers.closed.push(ClosedLayer {
                    at: old_at,
                    name: LayerName::new(from, id),
                    grains,
                }),
                // Before the first cut nothing could be written.
                None => s.layers.free.push(old_at),
            }
            s.layers.open = Some(new_at);
            Ok((cut, old_map))
        })
    }
}

/// Sessions of a cut that is not published yet; they end with it if it never is, for nobody would take
/// from them and writers would wait for room.
struct Installed<'a> {
    source: &'a Source,
    sessions: Vec<Rc<CopySession>>,
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        for session in &self.sessions {
            session.end(Ended::Cancelled);
            self.source.remove_session(session);
        }
    }
}
