//! Giving way: a source becomes a replica of another site.
//!
//! What it wrote since the newest common cut gives way to the other's content. Its own layers are kept:
//! they say which grains have to be pulled. One record makes it a replica; before it this site is a
//! source, after it a replica, whatever crashes. It is the operator's word (rule 11): a catch-up that
//! breaks goes on without asking again.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use grain::{CutId, CutReason};

use super::Source;
use super::stream::End;
use crate::kept::{Aside, Why};
use crate::session::Ended;
use crate::state::{Loser, ReplicaState, Role, State};
use crate::{Error, Result};

impl Source {
    /// Makes this site a replica of the peer with `identity`, which has everything up to `common`. On
    /// return the record is durable: this object is of no use any more, and the site is to be started
    /// as a replica. `journal` is where its journal will be; what stands there is of an earlier life.
    ///
    /// # Errors
    /// [`Error::State`] when a dump runs or the peer is not known; others when the disk fails. Then the
    /// next start says which role this site has; until then no write is taken.
    pub async fn give_way(
        self: &Rc<Self>,
        identity: &str,
        common: CutId,
        journal: &Path,
    ) -> Result<CutId> {
        self.become_replica(identity, common, journal, None).await.map(|(cut, _)| cut)
    }

    /// The same; what was written here since `common` is put into a file in `dir` first, durable. Gives the
    /// path of its index.
    ///
    /// # Errors
    /// As [`Source::give_way`]; where the file cannot be written, the roles stay and writes go on.
    pub async fn give_way_keeping(
        self: &Rc<Self>,
        identity: &str,
        common: CutId,
        journal: &Path,
        dir: &Path,
    ) -> Result<PathBuf> {
        let how = Ending::Keeping(dir);
        let (_, kept) = self.become_replica(identity, common, journal, Some(how)).await?;
        kept.ok_or_else(|| Error::State("nothing was kept".to_owned()))
    }

    /// The same as the decision of a switchover: the peer has committed `cut`, and nothing was written
    /// since.
    pub(super) async fn relinquish(
        self: &Rc<Self>,
        identity: &str,
        cut: CutId,
        journal: &Path,
    ) -> Result<CutId> {
        let how = Ending::Relinquished;
        self.become_replica(identity, cut, journal, Some(how)).await.map(|(cut, _)| cut)
    }

    async fn become_replica(
        self: &Rc<Self>,
        identity: &str,
        common: CutId,
        journal: &Path,
        how: Option<Ending<'_>>,
    ) -> Result<(CutId, Option<PathBuf>)> {
        if self.dumping.get() {
            return Err(Error::State("a dump runs; let it finish or cancel it".to_owned()));
        }
        let (known, holds) = self
            .store
            .with(|s| (s.peers.iter().any(|p| p.identity == identity), s.lineage.contains(common)));
        if !known {
            return Err(Error::State("that site is not a peer of this relationship".to_owned()));
        }
        if !holds {
            return Err(Error::UnknownCut(common));
        }
        // Its journal will be that of a replica.
        self.in_the_volumes().await?;
        // Nothing is written from here on, whatever comes of it.
        self.stopping.set(true);
        let one = self.lock_cuts().await;
        self.tracker.prepare().await?;
        let closed = self.gate.close(self.settings.cut_limit).await?;
        for session in self.sessions.borrow().iter() {
            session.end(Ended::Cancelled);
        }
        let relinquished = matches!(how, Some(Ending::Relinquished));
        if relinquished && !self.open_layer().is_empty() {
            // Somebody was in the gate when it looked quiet: the roles stay.
            self.stopping.set(self.stop_begun.get());
            return Err(Error::State("something was written after the last catch-up".to_owned()));
        }
        // The base under the cut (rule 11), then its bits, then the one record of cut and role.
        self.tracker.settle().await?;
        self.sync_base().await?;
        let kept = match how {
            Some(Ending::Keeping(dir)) => match self.keep_since(common, dir).await {
                Ok(path) => Some(path),
                Err(e) => {
                    self.stopping.set(self.stop_begun.get());
                    return Err(e);
                }
            },
            _ => None,
        };
        clear(self, journal).await?;
        let id = CutId::new(self.ctx.unix_ms(), self.ctx.random());
        self.end_streams(End::Handover);
        self.swap_at(id, CutReason::Handover, Some(self.streams.sequence()))?;
        self.tracker.settle().await?;
        let grains = self.written_since(common).await?.len();
        let loser = Loser { common, grains, unix_ms: self.ctx.unix_ms() };
        self.store.change(|s| as_replica(s, identity, loser, relinquished));
        self.store.save().await?;
        drop((closed, one));
        Ok((id, kept))
    }

    async fn keep_since(&self, common: CutId, dir: &Path) -> Result<PathBuf> {
        let grains = self.written_since(common).await?;
        let aside = Aside { ctx: &self.ctx, store: &self.store, volumes: &self.volumes };
        aside.keep(Why { verb: "rejoin", cut: common }, &grains, Some(dir)).await
    }
}

/// What is particular about an end of this role.
enum Ending<'a> {
    /// It was handed over: nothing was written since the cut.
    Relinquished,
    /// What was written since is put into this directory.
    Keeping(&'a Path),
}

/// The decision itself: no waiting.
fn as_replica(s: &mut State, identity: &str, loser: Loser, relinquished: bool) {
    let addresses = s.peers.iter().find(|p| p.identity == identity).map(|p| p.addresses.clone());
    s.layers.free.extend(s.layers.open.take());
    s.layers.free.extend(s.run.suspected.take());
    s.layers.anchor = None;
    for peer in &mut s.peers {
        peer.published.clear();
        peer.alone = None;
    }
    s.role = Role::Replica;
    s.promoted = None;
    s.suspect = None;
    s.replica = Some(ReplicaState {
        source: identity.to_owned(),
        addresses: addresses.unwrap_or_default(),
        loser: Some(loser),
        relinquished,
        ..ReplicaState::default()
    });
}

/// Removes what an earlier life as a replica left in the journal's directory: its commits are in the
/// base, and were written over since.
async fn clear(source: &Source, journal: &Path) -> Result<()> {
    let storage = &source.ctx.storage;
    let there = storage.exists(journal).await.map_err(Error::io("look at", journal))?;
    if there.is_none() {
        return Ok(());
    }
    let entries = storage.list(journal).await.map_err(Error::io("list", journal))?;
    for entry in entries {
        let path = journal.join(&entry.name);
        storage.remove(&path).await.map_err(Error::io("remove", &path))?;
    }
    storage.sync_dir(journal).await.map_err(Error::io("sync", journal))
}
