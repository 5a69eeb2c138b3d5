//! Starting and stopping a source.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use disk::Context;
use grain::lineage::unclean_start_union;
use grain::{CutReason, GrainSet, Layer};
use tokio::sync::{Mutex, Notify, Semaphore};

use super::backlog::Backlog;
use super::cut::Publish;
use super::stream::End;
use super::write::base_syncer;
use super::{Settings, Source};
use crate::Result;
use crate::map::{MapFile, MapKind};
use crate::pace::Pace;
use crate::seal;
use crate::state::{LayerRef, StateStore};
use crate::track::recover::note_settling;
use crate::track::{Gate, MapPool, Recovered, Regions, Tracker, recover};
use crate::volumes::Volumes;

impl Source {
    /// Starts the source of the relationship in `dir`: recovers what was written, makes a cut.
    pub async fn start(
        ctx: &Context,
        dir: &Path,
        store: &StateStore,
        settings: Settings,
    ) -> Result<Rc<Source>> {
        let (geometry, paths) = store.with(|s| (s.geometry.clone(), s.volumes.clone()));
        let volumes = Volumes::open(ctx, &geometry, &paths).await?;
        let pool = MapPool::open(ctx, dir, store).await?;
        let (volumes, backlog) = Backlog::open(ctx, &pool, store, volumes).await?;
        let volumes = Rc::new(volumes);
        let mut found = recover(&pool, store).await?;
        let sealed = store.with(|s| s.run.seal.clone());
        let clean = sealed.is_some();
        // Not one that was made, or promoted, a moment ago.
        let has_served =
            store.with(|s| s.lineage.head().is_some_and(|head| head.reason != CutReason::Promote));
        if let Some(seal) = sealed
            && let Err(e) = seal::check(&volumes, &seal).await
        {
            if !settings.accept_touched {
                return Err(e);
            }
            tracing::warn!(error = %e, "accepted: everything counts as written");
            found.written = GrainSet::full(&geometry);
        }
        if !clean {
            found.written.union_with(&unsynced_layers(&pool, store).await?);
        }
        let open = fresh_open_layer(&pool, store, &found).await?;
        if !found.power_cut {
            note_settling(&pool).await?;
            pool.sync_closed().await?;
        }
        let regions = Regions::create(&pool, settings.crash_excess_bytes).await?;
        let exact = settings.crash_excess_exact;
        let tracker = Tracker::new(pool, store.clone(), open, regions, exact);
        let sync_failed = Rc::new(Cell::new(false));
        let source = Rc::new(Source {
            ctx: ctx.clone(),
            store: store.clone(),
            flusher: base_syncer(&volumes, &sync_failed),
            sync_failed,
            locks: volumes.iter().map(|_| Default::default()).collect(),
            volumes,
            tracker,
            gate: Gate::default(),
            sessions: RefCell::default(),
            credits: Rc::new(Semaphore::new((settings.credit_bytes >> 10).max(1) as usize)),
            cutting: Mutex::new(()),
            owed: RefCell::default(),
            suspected: RefCell::new(found.suspected),
            marked_alone: Cell::new(false),
            longest_pause_us: Cell::new(0),
            stopping: Cell::new(false),
            stop_begun: Cell::new(false),
            fenced: Cell::new(false),
            dumping: Cell::new(false),
            links: Rc::default(),
            streams: Default::default(),
            mode_changed: Notify::new(),
            unclean: !clean && has_served,
            switchover: RefCell::default(),
            switchover_asked: Notify::new(),
            switchover_over: Notify::new(),
            bookmarks: Default::default(),
            backlog,
            pace: Rc::new(Pace::new(settings.pace)),
            settings,
        });
        source.begin(clean).await?;
        source.tracker.spawn_settling();
        source.work_off_backlog();
        Ok(source)
    }

    /// The start cut.
    async fn begin(self: &Rc<Self>, clean: bool) -> Result<()> {
        let sequence = self.store.change(|s| {
            s.run.begin(self.ctx.boot());
            if self.settings.accept_suspect {
                s.suspect = None;
            }
            s.run.sequence.take()
        });
        self.recount_owed().await?;
        // Where the epoch before really ended is not known after an unclean stop.
        let one = self.lock_cuts().await;
        let publish = Publish::Start { end_of_previous: sequence.filter(|_| clean) };
        self.cut_after(&one, CutReason::Start, publish, |_, _| Vec::new()).await?;
        Ok(())
    }

    /// Rule 6, when a base sync failed: ORs every layer since the last synced cut into the open layer.
    pub(super) async fn reopen_unsynced(self: &Rc<Self>) -> Result<()> {
        loop {
            let head = self.head();
            let again = unsynced_layers(self.tracker.pool(), &self.store).await?;
            // What a cut closed meanwhile has to be reopened, too.
            if self.head() == head {
                let mut waits = false;
                for run in again.runs() {
                    waits |= !matches!(self.tracker.mark(run), Ok(crate::track::Marked::Ready));
                }
                if waits {
                    self.tracker.recorded().await?;
                }
                return self.tracker.settle().await;
            }
        }
    }

    /// Stops cleanly: no more writes, everything synced, the volumes sealed.
    pub async fn stop(self: &Rc<Self>) -> Result<()> {
        self.stopping.set(true);
        self.stop_begun.set(true);
        self.end_streams(End::Stopping);
        let _one = self.lock_cuts().await;
        let closed = self.gate.close(self.settings.cut_limit).await?;
        let sessions: Vec<_> = self.sessions.borrow().clone();
        for session in sessions {
            session.end(crate::session::Ended::Cancelled);
        }
        self.tracker.settle().await?;
        self.sync_base().await?;
        // The seal is of what a power cut leaves. Where an earlier run lost a sync that is not known, and the
        // next start is one after an unclean stop.
        if self.store.with(|s| s.run.lost_sync.is_some()) {
            tracing::warn!("stopped without a seal: a sync of the volumes has failed");
            return Ok(());
        }
        let _rest = match &self.backlog {
            Some(backlog) => Some(backlog.rest().await),
            None => None,
        };
        let seal = seal::make(&self.ctx, &self.volumes).await?;
        let sequence = self.streams.sequence();
        self.store.update(|s| (s.run.seal, s.run.sequence) = (Some(seal), Some(sequence))).await?;
        // Who waited outside comes in now and is refused.
        drop(closed);
        Ok(())
    }
}

/// Rule 6: what stands in the closed layers since the last cut before which the base was synced.
async fn unsynced_layers(pool: &MapPool, store: &StateStore) -> Result<GrainSet> {
    let (lineage, closed, synced) =
        store.with(|s| (s.lineage.clone(), s.layers.closed.clone(), s.synced));
    let synced_at = synced.and_then(|cut| lineage.index_of(cut));
    let mut layers = Vec::new();
    for layer in closed {
        let to = lineage.index_of(layer.name.to);
        if to.is_none() || synced_at.is_none() || to > synced_at {
            let content = pool.read_map(layer.at, MapKind::Layer).await?;
            layers.push(Layer { name: layer.name, grains: content.set });
        }
    }
    Ok(unclean_start_union(&lineage, &layers, synced))
}

/// The layer to go on with: all that recovery found, in a file that nobody failed to sync before. One
/// record puts it in the place of the old one and frees the files that were taken together in it.
async fn fresh_open_layer(
    pool: &MapPool,
    store: &StateStore,
    found: &Recovered,
) -> Result<(LayerRef, MapFile)> {
    store.change(|s| {
        let table = &mut s.layers;
        table.next_file = table.next_file.max(found.next_file);
        // A file that was recycled just before a crash is still listed under its old id.
        table.free.retain(|f| found.unnamed.iter().all(|u| u.file != f.file));
    });
    let (at, map) = pool.create_with(MapKind::Layer, &found.written).await?;
    store
        .update(|s| {
            let old = s.layers.open.replace(at);
            let merged = found.unnamed.iter().copied().chain(old);
            for file in merged {
                if s.layers.free.iter().all(|f| f.file != file.file) {
                    s.layers.free.push(file);
                }
            }
        })
        .await?;
    Ok((at, map))
}
