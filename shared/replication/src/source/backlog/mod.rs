//! The backlog of a promotion: what counts and still waits in the journal when this site becomes the source.
//!
//! It is not waited for. Applications are served at once through files ([`through`]) that lay what waits over
//! the base; a write to a grain that waits has it brought into the base first, durably, and the rest follows in
//! the background ([`work`]). Which grains wait stands in a map on disk: set by the promotion, struck when the
//! base has them, synced, and before anything newer is written over them. After a crash what was struck is not
//! brought in again, so nothing old comes over anything new. The map is kept twice, for where it cannot be
//! read nobody could tell the one from the other.

mod through;
mod work;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use disk::Context;
use grain::{Geometry, GrainSet, Run};
use journal::Journal;
use tokio::sync::{Mutex, MutexGuard, Notify};

use crate::map::{MapFile, MapKind};
use crate::state::{BacklogRecord, StateStore};
use crate::track::MapPool;
use crate::volumes::Volumes;
use crate::{Error, Result};

/// See the module's text.
pub(crate) struct Backlog {
    store: StateStore,
    geometry: Geometry,
    /// The volumes themselves.
    base: Volumes,
    journal: Rc<Journal>,
    maps: Vec<MapFile>,
    /// Grains whose newest content is in the journal.
    waits: RefCell<GrainSet>,
    /// Of them those that the journal does not give any more.
    lost: RefCell<GrainSet>,
    /// Of them those that somebody waits for.
    asked: RefCell<GrainSet>,
    /// Why it does not get on, if it does not.
    failed: RefCell<Option<Error>>,
    over: Cell<bool>,
    /// Something was asked for, or made whole by a write.
    news: Notify,
    /// Fewer wait, or it failed.
    moved: Notify,
    /// Held while grains are brought into the base.
    one: Mutex<()>,
}

impl Backlog {
    /// Lays the backlog that the state names, if it names one, over the volumes.
    pub(super) async fn open(
        ctx: &Context,
        pool: &MapPool,
        store: &StateStore,
        base: Volumes,
    ) -> Result<(Volumes, Option<Rc<Backlog>>)> {
        let Some(record) = store.with(|s| s.backlog.clone()) else { return Ok((base, None)) };
        let (maps, waits) = open_maps(pool, &record).await?;
        let geometry = base.geometry().clone();
        let config = journal::Config::at_rest(record.journal);
        let (journal, found) = Journal::open(ctx.clone(), config, geometry.clone()).await?;
        let mut lost = GrainSet::new();
        for damage in &found.damage {
            tracing::error!(%damage, "the journal is damaged");
            match &damage.grains {
                Some(grains) => lost.union_with(grains),
                None => lost.union_with(&waits),
            }
        }
        lost.intersect_with(&waits);
        let backlog = Rc::new(Backlog {
            store: store.clone(),
            geometry,
            base,
            journal,
            maps,
            waits: RefCell::new(waits),
            lost: RefCell::new(lost),
            asked: RefCell::default(),
            failed: RefCell::default(),
            over: Cell::new(false),
            news: Notify::new(),
            moved: Notify::new(),
            one: Mutex::new(()),
        });
        let over = |volume, base| through::Through::over(&backlog, volume, base);
        Ok((backlog.base.with_files(over), Some(backlog)))
    }

    /// Bytes of grains that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.waits.borrow().bytes(&self.geometry)
    }

    /// Bytes of grains that cannot be read any more until they are written anew.
    pub(super) fn lost_bytes(&self) -> u64 {
        self.lost.borrow().bytes(&self.geometry)
    }

    fn run_of(&self, volume: grain::VolumeId, offset: u64, len: u64) -> Run {
        self.geometry.touched_by(grain::Span { volume, start: offset, bytes: len })
    }

    fn waits_in(&self, run: Run) -> bool {
        !self.over.get() && self.waits.borrow().intersects(run)
    }

    /// The grains of a run that cannot be read.
    fn lost_in(&self, run: Run) -> GrainSet {
        let mut lost: GrainSet = [run].into_iter().collect();
        lost.intersect_with(&self.lost.borrow());
        lost
    }

    /// Waits until what can be read of these grains is in the base.
    async fn bring(&self, run: Run) -> Result<()> {
        loop {
            let moved = self.moved.notified();
            let mut left: GrainSet = [run].into_iter().collect();
            left.intersect_with(&self.waits.borrow());
            left.subtract(&self.lost.borrow());
            if left.is_empty() {
                return Ok(());
            }
            if let Some(error) = self.failed.borrow().clone() {
                return Err(error);
            }
            self.asked.borrow_mut().union_with(&left);
            self.news.notify_one();
            moved.await;
        }
    }

    /// The journal does not give what waits in these grains any more.
    fn found_lost(&self, run: Run) {
        let mut lost: GrainSet = [run].into_iter().collect();
        lost.intersect_with(&self.waits.borrow());
        self.lost.borrow_mut().union_with(&lost);
        self.moved.notify_waiters();
    }

    /// Strikes grains that are in the base, synced: on return, whatever crashes, the journal is not asked
    /// for them again.
    async fn strike(&self, grains: &GrainSet) -> Result<()> {
        for map in &self.maps {
            for run in grains.runs() {
                map.remove(run);
            }
            map.sync().await?;
        }
        self.waits.borrow_mut().subtract(grains);
        self.lost.borrow_mut().subtract(grains);
        self.asked.borrow_mut().subtract(grains);
        self.moved.notify_waiters();
        self.news.notify_one();
        Ok(())
    }

    /// Waits until all is in the base, and nothing of it in the state any more.
    ///
    /// # Errors
    /// [`Error::State`] where the journal does not give all of it any more; why it does not get on.
    pub(super) async fn ended(&self) -> Result<()> {
        loop {
            let moved = self.moved.notified();
            if self.over.get() {
                return Ok(());
            }
            if let Some(error) = self.failed.borrow().clone() {
                return Err(error);
            }
            if !self.lost.borrow().is_empty() && *self.lost.borrow() == *self.waits.borrow() {
                let first = self.lost.borrow().runs().next().map(|run| self.base.place(run));
                let detail = format!(
                    "{} bytes that waited in the journal cannot be read any more, {} first; what is \
                     written there anew, whole grains at a time, counts",
                    self.lost_bytes(),
                    first.unwrap_or_default()
                );
                return Err(Error::State(detail));
            }
            moved.await;
        }
    }

    /// Waits until nothing is being brought in; nobody begins again while what it gives is held, nor when the
    /// source stops.
    pub(super) async fn rest(&self) -> MutexGuard<'_, ()> {
        let resting = self.one.lock().await;
        self.news.notify_one();
        resting
    }
}

/// Either copy says what waits; what one of them has struck is in the base. A copy with damage says nothing.
async fn open_maps(pool: &MapPool, record: &BacklogRecord) -> Result<(Vec<MapFile>, GrainSet)> {
    let mut maps = Vec::new();
    let mut waits: Option<GrainSet> = None;
    let mut damaged = None;
    for at in record.maps {
        let (map, content) = match pool.open_map(at, MapKind::Missing).await {
            Ok(opened) => opened,
            Err(e @ Error::Corrupt { .. }) => {
                damaged = Some(e);
                continue;
            }
            Err(e) => return Err(e),
        };
        if content.damaged_sectors > 0 {
            let detail = "the map of what a promotion left in the journal is damaged";
            damaged = Some(Error::corrupt(map.path(), detail));
            continue;
        }
        match &mut waits {
            Some(waits) => waits.intersect_with(&content.set),
            None => waits = Some(content.set),
        }
        // A process that was killed may have struck grains whose bits only the page cache has.
        map.sync().await?;
        maps.push(map);
    }
    if let Some(damaged) = &damaged {
        tracing::error!(error = %damaged, "one copy is damaged");
    }
    match (waits, damaged) {
        (Some(waits), _) => Ok((maps, waits)),
        (None, damaged) => Err(damaged
            .unwrap_or_else(|| Error::State("no map says what waits in the journal".to_owned()))),
    }
}
