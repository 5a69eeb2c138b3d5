//! The tracker: which grains were written since the last cut, on stable storage in time.
//!
//! Contract for a writer, inside the gate: [`Tracker::mark`] first; when it says [`Marked::Wait`],
//! wait for [`Tracker::recorded`]; only then write the base. After that, either the grain's bit is on
//! stable storage, or it is in the page cache and its region is durable as active. Bits of a layer are
//! never cleared.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use grain::{GrainSet, Run};

use super::pool::MapPool;
use super::regions::{Need, Regions};
use crate::group_commit::GroupCommit;
use crate::map::{MapFile, MapKind};
use crate::state::{LayerRef, StateStore};
use crate::{Error, Result};

/// How often bits are synced and regions released while there is something to sync.
const SETTLE_EVERY: Duration = Duration::from_secs(5);

/// Stands for the boot id in the state while it is not known which bits are on stable storage: no machine
/// has it.
const UNSURE_BOOT: &str = "a sync of the map files failed";

/// What [`Tracker::mark`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Marked {
    /// The base may be written.
    Ready,
    /// Wait for [`Tracker::recorded`] first.
    Wait,
}

struct Layer {
    at: LayerRef,
    map: MapFile,
}

/// See the module's text.
pub struct Tracker {
    pool: MapPool,
    store: StateStore,
    open: RefCell<Layer>,
    spare: RefCell<Option<(LayerRef, MapFile)>>,
    /// Layers that were closed and whose bits are not known to be synced.
    closing: RefCell<Vec<Layer>>,
    regions: Rc<Regions>,
    activation: GroupCommit,
    /// Every bit is synced before its write (`crash-excess = exact`).
    exact: Cell<bool>,
    unsettled: Cell<bool>,
    replacing: tokio::sync::Mutex<()>,
}

impl Tracker {
    /// A tracker over an open layer and an empty region map.
    pub(crate) fn new(
        pool: MapPool,
        store: StateStore,
        open: (LayerRef, MapFile),
        regions: Regions,
        exact: bool,
    ) -> Rc<Self> {
        let regions = Rc::new(regions);
        let activation = regions.commit();
        Rc::new(Tracker {
            pool,
            store,
            open: RefCell::new(Layer { at: open.0, map: open.1 }),
            spare: RefCell::default(),
            closing: RefCell::default(),
            regions,
            activation,
            exact: Cell::new(exact),
            unsettled: Cell::new(true),
            replacing: tokio::sync::Mutex::new(()),
        })
    }

    /// Notes that the grains of `run` are about to be written.
    pub fn mark(&self, run: Run) -> Result<Marked> {
        let open = self.open.borrow();
        let new = open.map.insert(run) > 0;
        if new {
            self.unsettled.set(true);
        }
        if self.exact.get() {
            // An old bit counts only when it is synced, too: who set it may still wait for that.
            return Ok(if open.map.is_synced() { Marked::Ready } else { Marked::Wait });
        }
        let need = self.regions.need(run, new);
        let written = open.map.write_now()?;
        if written && need == Need::Nothing { Ok(Marked::Ready) } else { Ok(Marked::Wait) }
    }

    /// Waits until what was marked before is recorded as promised.
    pub async fn recorded(self: &Rc<Self>) -> Result<()> {
        let map = self.open.borrow().map.clone();
        if self.exact.get() {
            return match map.sync().await {
                Ok(()) => Ok(()),
                Err(_) => self.replace(&map).await,
            };
        }
        if self.regions.over_cap() {
            self.settle().await?;
        }
        let activated = self.activation.join();
        if map.flush().await.is_err() {
            self.replace(&map).await?;
        }
        activated.await
    }

    /// A map whose write or sync failed is given up: everything known goes to a fresh file. A failed
    /// sync is never tried again on the same file, for the kernel may have dropped what it held.
    async fn replace(self: &Rc<Self>, failed: &MapFile) -> Result<()> {
        let _one = self.replacing.lock().await;
        if !self.holds(failed) {
            return Ok(());
        }
        // Until then not even a process that is killed leaves its bits for sure: pages whose sync failed may
        // be read from the disk again. The next start is to take the active regions as after a power cut.
        self.store.change(|s| s.run.boot = UNSURE_BOOT.to_owned());
        let replaced = self.write_afresh(failed).await;
        if replaced.is_err() {
            drop(self.store.save().await);
        }
        replaced
    }

    async fn write_afresh(&self, failed: &MapFile) -> Result<()> {
        let refuse = |e: Error| Error::TrackingFailed(e.to_string());
        tracing::warn!(path = %failed.path().display(), "a map failed: it is written afresh");
        let (at, map) = self.pool.create(MapKind::Layer).await.map_err(refuse)?;
        loop {
            let set = failed.with_set(GrainSet::clone);
            map.union_with(&set);
            map.sync().await.map_err(refuse)?;
            // Marks that came meanwhile went into the old map; take them along without waiting.
            if failed.with_set(|now| *now == set) {
                break;
            }
        }
        self.put_in_place(failed, at, map);
        if !self.has_failed() {
            let boot = self.pool.context().boot();
            self.store.change(|s| s.run.boot = boot);
        }
        self.store.save().await.map_err(refuse)
    }

    /// Whether bits stand in a map that failed and was not written afresh.
    fn has_failed(&self) -> bool {
        let failed = |layer: &Layer| layer.map.has_failed();
        failed(&self.open.borrow()) || self.closing.borrow().iter().any(failed)
    }

    fn holds(&self, map: &MapFile) -> bool {
        let is = |layer: &Layer| layer.map.id() == map.id();
        is(&self.open.borrow()) || self.closing.borrow().iter().any(is)
    }

    /// Wherever `failed` stands by now, for a cut may have closed it meanwhile: `map` takes its place,
    /// here and in the state.
    fn put_in_place(&self, failed: &MapFile, at: LayerRef, map: MapFile) {
        let mut open = self.open.borrow_mut();
        let mut closing = self.closing.borrow_mut();
        let mut layers = closing.iter_mut().chain(std::iter::once(&mut *open));
        let Some(layer) = layers.find(|layer| layer.map.id() == failed.id()) else { return };
        let old = std::mem::replace(layer, Layer { at, map }).at;
        self.pool.distrust(old.file);
        self.store.change(|s| {
            let table = &mut s.layers;
            if table.open == Some(old) {
                table.open = Some(at);
            } else if let Some(closed) = table.closed.iter_mut().find(|c| c.at == old) {
                closed.at = at;
            } else {
                // It was merged into another one meanwhile.
                table.free.push(at);
                return;
            }
            table.free.push(old);
        });
    }

    /// Prepares the file that the next cut's layer will use.
    pub async fn prepare(&self) -> Result<()> {
        if self.spare.borrow().is_none() {
            let spare = self.pool.create(MapKind::Layer).await?;
            *self.spare.borrow_mut() = Some(spare);
        }
        Ok(())
    }

    /// Swaps the open layer for the prepared one; the gate is closed. Gives the layer that was open,
    /// and the new one's file. The caller records both.
    pub fn swap(&self) -> Result<(LayerRef, MapFile, LayerRef)> {
        let (at, map) = self
            .spare
            .borrow_mut()
            .take()
            .ok_or_else(|| Error::State("no file is prepared for the next layer".to_owned()))?;
        let old = self.open.replace(Layer { at, map });
        let (old_at, old_map) = (old.at, old.map.clone());
        self.closing.borrow_mut().push(old);
        self.unsettled.set(true);
        Ok((old_at, old_map, at))
    }

    /// Syncs all bits that are set now and releases the regions that this covers.
    pub async fn settle(self: &Rc<Self>) -> Result<()> {
        self.regions.begin_settling().await?;
        let settling = Settling { regions: self.regions.clone(), synced: Cell::new(false) };
        // Taken at one instant: every bit of the generation that ends is in one of these maps, also
        // when a cut comes meanwhile.
        let ended = self.regions.next_generation();
        let closing: Vec<MapFile> = self.closing.borrow().iter().map(|l| l.map.clone()).collect();
        let open = self.open.borrow().map.clone();
        self.unsettled.set(false);
        for map in closing.iter().chain([&open]) {
            if map.sync().await.is_err()
                && let Err(e) = self.replace(map).await
            {
                self.unsettled.set(true);
                return Err(e);
            }
        }
        // One that was replaced has another id and goes with the next time.
        self.closing.borrow_mut().retain(|l| closing.iter().all(|c| c.id() != l.map.id()));
        settling.synced.set(true);
        drop(settling);
        self.regions.release(ended);
        Ok(())
    }

    /// True when every closed layer is on stable storage.
    pub fn is_settled(&self) -> bool {
        self.closing.borrow().is_empty()
    }

    /// Settles every few seconds as long as the tracker lives.
    pub fn spawn_settling(self: &Rc<Self>) -> tokio::task::JoinHandle<()> {
        let weak = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SETTLE_EVERY).await;
                let Some(tracker) = weak.upgrade() else { return };
                if (tracker.unsettled.get() || !tracker.regions.is_idle())
                    && let Err(e) = tracker.settle().await
                {
                    tracing::error!(error = %e, "tracking data could not be synced");
                }
            }
        })
    }

    /// Looks at what was written since the last cut.
    pub fn with_open<T>(&self, look: impl FnOnce(&GrainSet) -> T) -> T {
        self.open.borrow().map.with_set(look)
    }

    /// Bytes that a power cut now would make suspected.
    pub fn excess_bytes(&self) -> u64 {
        self.regions.active_bytes()
    }

    /// The files.
    pub fn pool(&self) -> &MapPool {
        &self.pool
    }
}

/// A sync of layers under way, which ends however its owner ends.
struct Settling {
    regions: Rc<Regions>,
    synced: Cell<bool>,
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.regions.end_settling(self.synced.get());
    }
}
