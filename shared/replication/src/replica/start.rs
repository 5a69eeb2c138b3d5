//! Starting and stopping a replica.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use disk::Context;
use grain::GrainSet;
use journal::{Journal, Recovered, What};
use tokio::sync::{Mutex, Notify};

use super::commit::CommitBody;
use super::gather::Storing;
use super::missing::MissingMap;
use super::stream::StreamView;
use super::{Replica, Settings};
use crate::map::MapKind;
use crate::seal;
use crate::state::{LayerRef, StateStore};
use crate::track::MapPool;
use crate::volumes::Volumes;
use crate::{Error, Result};

impl Replica {
    /// Starts the replica of the relationship in `dir`: takes up what the journal and the maps hold.
    pub async fn start(
        ctx: &Context,
        dir: &Path,
        store: &StateStore,
        settings: Settings,
    ) -> Result<Rc<Replica>> {
        let (geometry, paths) = store.with(|s| (s.geometry.clone(), s.volumes.clone()));
        let volumes = Rc::new(Volumes::open(ctx, &geometry, &paths).await?);
        if let Some(sealed) = store.with(|s| s.run.seal.clone())
            && let Err(e) = seal::check(&volumes, &sealed).await
        {
            if !settings.accept_touched {
                return Err(e);
            }
            tracing::warn!(error = %e, "accepted; compare with the source");
        }
        let pool = MapPool::open(ctx, dir, store).await?;
        let state = store.with(|s| s.replica.clone()).unwrap_or_default();
        let damaged = MissingMap::open(&pool, state.damaged).await?;
        let unloaded = MissingMap::open(&pool, state.unloaded).await?;
        store.change(|s| {
            if let Some(replica) = &mut s.replica {
                (replica.damaged, replica.unloaded) = (damaged.at(), unloaded.at());
            }
        });
        let keep_points = settings.history.keeps_points(state.history.as_ref());
        let config = journal::Config { keep_points, ..settings.journal.clone() };
        let (journal, found) = Journal::open(ctx.clone(), config, geometry).await?;
        let replica = Rc::new(Replica {
            ctx: ctx.clone(),
            store: store.clone(),
            volumes,
            pool,
            settings,
            journal,
            damaged,
            damage_noted: Notify::new(),
            unloaded,
            pull: RefCell::new(None),
            in_step: Cell::new(false),
            base: Mutex::new(()),
            journal_was_full: Cell::new(false),
            following: Mutex::new(()),
            progress: Rc::default(),
            commit_unsaved: Cell::new(false),
            stopping: Cell::new(false),
            check_due: Cell::new(true),
            generation_taken: Cell::new(None),
            stream: RefCell::default(),
            parked_grains: RefCell::default(),
            stream_view: StreamView::default(),
            parking: Mutex::new(()),
            storing: Storing::default(),
            verification: Default::default(),
            past: Default::default(),
            leaves_backlog: Cell::new(false),
        });
        replica.take_up(found).await?;
        Ok(replica)
    }

    async fn take_up(self: &Rc<Self>, found: Recovered) -> Result<()> {
        self.free_unnamed(&found).await?;
        self.take_up_history().await?;
        // Commits whose record in the state was lost.
        let installed = self.store.with(|s| s.replica.as_ref().map_or(0, |r| r.commit_number));
        let whole = |c: &&journal::Commit| c.number > installed && !c.body.is_empty();
        for commit in found.commits.iter().filter(whole) {
            let body = CommitBody::decode(&commit.body)?;
            self.install_commit(body, commit.number).await?;
        }
        self.load_parked().await?;
        self.take_up_stream(found.stream.as_ref()).await?;
        self.take_up_pull(&found).await?;
        let mut lost = GrainSet::new();
        for damage in &found.damage {
            tracing::error!(%damage, "the journal is damaged");
            match (&damage.grains, self.written_in(&damage.what, &found).await?) {
                (Some(grains), _) => lost.union_with(grains),
                (None, Some(grains)) => lost.union_with(&grains),
                (None, None) => lost = GrainSet::full(self.volumes.geometry()),
            }
        }
        if !lost.is_empty() {
            self.note_damaged(&lost).await?;
            // Nobody knows which of the commits that wait to be applied lack something.
            let applied = found.commits.first().map_or(0, |commit| commit.number.saturating_sub(1));
            self.withdraw_after(applied).await?;
        }
        let boot = self.ctx.boot();
        self.store.update(|s| s.run.begin(boot)).await?;
        // A crash may have come between the commit and that.
        self.note_point().await?;
        match self.settings.apply_at_start {
            true => self.apply().await,
            false => Ok(()),
        }
    }

    /// Of a stream that lacks writes: the grains that were written in its epoch, where it was closed.
    async fn written_in(&self, what: &What, found: &Recovered) -> Result<Option<GrainSet>> {
        let What::Stream { commit } = what else { return Ok(None) };
        let Some(next) = found.commits.iter().find(|c| c.number == commit + 1) else {
            return Ok(None);
        };
        let body = CommitBody::decode(&next.body)?;
        let Some(layer) = body.layer else { return Ok(None) };
        Ok(Some(self.pool.read_map(layer.at, MapKind::Layer).await?.set))
    }

    /// Map files that no record names hold nothing that counts at a replica.
    /// What a commit in the journal names counts, though the state does not know of it.
    async fn free_unnamed(&self, found: &Recovered) -> Result<()> {
        let present = self.pool.present().await?;
        let bodies = found.commits.iter().filter(|commit| !commit.body.is_empty());
        let bodies: Vec<CommitBody> =
            bodies.map(|commit| CommitBody::decode(&commit.body)).collect::<Result<_>>()?;
        let committed = bodies.iter().filter_map(|body| Some(body.layer.as_ref()?.at.file));
        let committed: Vec<u32> = committed.collect();
        let mut named = committed.clone();
        named.extend(self.store.with(|s| {
            let replica = s.replica.as_ref();
            let pull = replica.and_then(|r| r.pull.as_ref());
            let streamed = replica.and_then(|r| r.streamed).map(|streamed| streamed.layer);
            let maps = replica.into_iter().flat_map(|r| [r.damaged, r.unloaded]).flatten();
            let maps = maps.chain(streamed);
            let pulls = pull.into_iter().flat_map(|p| [p.remaining, p.union]);
            let layers = s.layers.closed.iter().map(|c| c.at).chain(s.layers.free.iter().copied());
            maps.chain(pulls).chain(layers).map(|at| at.file).collect::<Vec<_>>()
        }));
        let stray = present.into_iter().filter(|file| !named.contains(file));
        let none = grain::LayerId::from_bytes([0; 16]);
        let stray: Vec<_> = stray.map(|file| LayerRef { file, id: none }).collect();
        self.store.change(|s| {
            let found = stray.iter().map(|at| at.file).chain(committed.iter().copied());
            let next = found.map(|file| file + 1).max().unwrap_or(0);
            s.layers.next_file = s.layers.next_file.max(next);
            s.layers.free.extend(stray);
            // One that was recycled for it is free no more.
            s.layers.free.retain(|at| !committed.contains(&at.file));
        });
        Ok(())
    }

    /// Stops cleanly: what is committed is in the base, synced and sealed. A load that runs ends; what
    /// it has struck stays loaded.
    pub async fn stop(self: &Rc<Self>) -> Result<()> {
        self.stopping.set(true);
        self.in_step.set(false);
        self.end_views("the agent stops");
        self.storing.over().await;
        self.park_stream().await?;
        self.suspend_pull().await?;
        self.apply().await?;
        // Nobody writes the base while it is sealed, nor afterwards.
        let _base = self.base.lock().await;
        // Whoever writes the base next must not find the journal laying old bytes over it.
        self.journal.settle().await?;
        // The seal is of what a power cut leaves. Where that is not known there is none, and the next
        // attach compares samples.
        if let Err(error) = self.sync_base(self.volumes.failed_syncs()).await {
            tracing::warn!(%error, "stopped without a seal");
        }
        if self.lost_a_sync() {
            return Ok(());
        }
        let seal = seal::make(&self.ctx, &self.volumes).await?;
        let path = self.store.path().to_owned();
        self.store.update(|s| s.run.seal = Some(seal)).await.map_err(|e| match e {
            Error::Io { source, .. } => Error::Io { what: "seal", path, source },
            other => other,
        })
    }
}
