//! Regions: which parts of the volumes may have bits that are not synced yet.
//!
//! Promise: a region is durable as active before the first write into it whose bit is not synced. It
//! is taken out again, lazily, only after everything set before was synced. What a power cut leaves
//! active counts as written (flagged *suspected*).
//!
//! Region bits become durable in groups: one small synced overwrite serves all who wait for it.
//!
//! One more bit says that layers are being synced. When such a sync fails, the kernel may drop the pages that it
//! could not write, and a process that dies before it wrote them elsewhere leaves a page cache in which
//! bits are missing. A start that finds this bit set therefore takes the active regions as after a power
//! cut, although the machine was never down.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use grain::{Geometry, GrainSet, Run, VolumeId};

use super::pool::MapPool;
use super::recover::REGIONS_FILE;
use crate::group_commit::GroupCommit;
use crate::map::{Layout, MapFile, MapKind};
use crate::{Error, Result};

/// A region is never smaller: 4 MiB.
pub const MIN_REGION_SHIFT: u32 = 22;
/// Regions are not chosen larger than 64 MiB unless the map would outgrow its 16 pages.
const USUAL_MAX_REGION_SHIFT: u32 = 26;
/// Regions that 16 pages of a map file can hold.
const MAX_REGIONS: u64 = 16 * 8 * 3968;

/// How many bytes a region has, as a power of two: about a thousandth of all volumes, between 4 and
/// 64 MiB, and more only where 16 pages would not hold them.
pub fn region_shift(geometry: &Geometry) -> u32 {
    let mut shift = (geometry.total_bytes() / 1024).max(1).ilog2();
    shift = shift.clamp(MIN_REGION_SHIFT, USUAL_MAX_REGION_SHIFT).max(geometry.grain.shift());
    while geometry.volumes.iter().map(|v| v.bytes.div_ceil(1 << shift)).sum::<u64>() > MAX_REGIONS {
        shift += 1;
    }
    shift
}

/// The layout of the region map: the regions of each volume, then the one bit of [`settling_bit`].
pub fn region_layout(geometry: &Geometry) -> Layout {
    let shift = region_shift(geometry);
    Layout::new(geometry.volumes.iter().map(|v| v.bytes.div_ceil(1 << shift)).chain([1]))
}

/// The bit of the region map that is set while layers are being synced.
pub fn settling_bit(geometry: &Geometry) -> Run {
    Run { volume: VolumeId(geometry.volumes.len() as u16), first: 0, count: 1 }
}

/// The grains that the active regions of `regions` cover.
pub fn grains_of_regions(geometry: &Geometry, regions: &GrainSet) -> GrainSet {
    let per_region = region_shift(geometry) - geometry.grain.shift();
    let mut grains = GrainSet::new();
    for run in regions.runs() {
        let total = geometry.grains(run.volume);
        let first = run.first << per_region;
        let end = (run.end() << per_region).min(total);
        if first < end {
            grains.insert_run(Run { volume: run.volume, first, count: end - first });
        }
    }
    grains
}

/// What a writer has to do before it may write.
#[derive(Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: all its regions are active and durable.
    Nothing,
    /// Join the group commit and wait.
    Wait,
}

/// The active regions in memory, and the map that makes them durable.
pub struct Regions {
    pool: MapPool,
    map: RefCell<MapFile>,
    /// Regions to grains, as a shift.
    per_region: u32,
    region_bytes: u64,
    counts: Vec<u64>,
    cap: u64,
    state: Rc<RefCell<State>>,
    generation: Cell<u64>,
    settling: Run,
    /// How many syncs of layers are under way.
    settlers: Cell<u32>,
}

#[derive(Default)]
struct State {
    /// Durable as active.
    active: GrainSet,
    /// Waited for, not yet durable.
    wanted: GrainSet,
    /// Generation in which the last bit of a region was set, for those active.
    touched: BTreeMap<(VolumeId, u64), u64>,
    /// How many regions ahead the next sequential activation of a volume takes.
    ahead: BTreeMap<VolumeId, u64>,
}

impl Regions {
    /// Regions of which none is active, in the place of the map that is there: whoever calls this has
    /// made durable what that one stands for. At most `crash_excess_bytes` are active at a time, but
    /// always at least 16 regions.
    pub async fn create(pool: &MapPool, crash_excess_bytes: u64) -> Result<Regions> {
        let geometry = pool.geometry();
        let shift = region_shift(&geometry);
        let path = pool.dir().join(REGIONS_FILE);
        let spec = pool.spec(MapKind::Regions);
        let map = MapFile::create(pool.context(), &path, spec, pool.new_id()).await?;
        pool.sync_names().await?;
        Ok(Regions {
            pool: pool.clone(),
            map: RefCell::new(map),
            per_region: shift - geometry.grain.shift(),
            region_bytes: 1 << shift,
            counts: geometry.volumes.iter().map(|v| v.bytes.div_ceil(1 << shift)).collect(),
            cap: (crash_excess_bytes >> shift).max(16),
            state: Rc::default(),
            generation: Cell::new(1),
            settling: settling_bit(&geometry),
            settlers: Cell::new(0),
        })
    }

    fn regions_of(&self, run: Run) -> std::ops::Range<u64> {
        run.first >> self.per_region..((run.end() - 1) >> self.per_region) + 1
    }

    /// Notes that bits of `run` are set or were found set. With `new_bits`, the regions must be
    /// active; without, only a pending activation matters (the bits themselves are synced, or their
    /// region is active, or somebody waits for it just now).
    pub fn need(&self, run: Run, new_bits: bool) -> Need {
        let mut state = self.state.borrow_mut();
        if !new_bits && state.wanted.is_empty() {
            return Need::Nothing;
        }
        let regions = self.regions_of(run);
        let mut need = Need::Nothing;
        for region in regions {
            if new_bits {
                state.touched.insert((run.volume, region), self.generation.get());
                if !state.active.contains(run.volume, region) {
                    need = Need::Wait;
                    self.want(&mut state, run.volume, region);
                }
            } else if state.wanted.contains(run.volume, region) {
                need = Need::Wait;
            }
        }
        need
    }

    /// Wants a region, and with it the next ones of a writer that goes forward.
    fn want(&self, state: &mut State, volume: VolumeId, region: u64) {
        state.wanted.insert(volume, region);
        let sequential = region > 0 && state.active.contains(volume, region - 1);
        let ahead = state.ahead.entry(volume).or_insert(0);
        *ahead = if sequential { (*ahead * 2).clamp(1, 16) } else { 0 };
        let last = self.counts.get(volume.index()).copied().unwrap_or(0);
        let end = (region + 1 + *ahead).min(last);
        for next in region + 1..end {
            if !state.active.contains(volume, next) {
                state.wanted.insert(volume, next);
            }
        }
    }

    /// True when more is active than the cap allows: bits should be synced and regions released.
    pub fn over_cap(&self) -> bool {
        let state = self.state.borrow();
        state.active.len() + state.wanted.len() > self.cap
    }

    /// The group commit by which wanted regions become durable.
    pub(crate) fn commit(self: &Rc<Self>) -> GroupCommit {
        let regions = self.clone();
        GroupCommit::new(move || {
            let regions = regions.clone();
            Box::pin(async move { regions.make_durable().await })
        })
    }

    async fn make_durable(&self) -> Result<()> {
        let batch = self.state.borrow().wanted.clone();
        let map = self.map.borrow().clone();
        map.union_with(&batch);
        if map.write_durable().await.is_err() {
            self.start_afresh(&batch).await?;
        }
        let mut state = self.state.borrow_mut();
        state.active.union_with(&batch);
        // What was wanted meanwhile stays wanted: it is the next batch's.
        state.wanted.subtract(&batch);
        Ok(())
    }

    /// The map could not be written or synced: everything active goes to a fresh file in its place. A
    /// failed sync is never tried again.
    async fn start_afresh(&self, batch: &GrainSet) -> Result<()> {
        let refuse = |e: Error| Error::TrackingFailed(e.to_string());
        let mut set = self.state.borrow().active.clone();
        set.union_with(batch);
        if self.settlers.get() > 0 {
            set.insert_run(self.settling);
        }
        let (ctx, path) = (self.pool.context(), self.pool.dir().join(REGIONS_FILE));
        let (spec, id) = (self.pool.spec(MapKind::Regions), self.pool.new_id());
        let map = MapFile::create_fresh(ctx, &path, spec, id, set).await.map_err(refuse)?;
        self.pool.sync_names().await.map_err(refuse)?;
        // What was released meanwhile is released here, too.
        let mut stale = map.with_set(GrainSet::clone);
        stale.subtract(batch);
        stale.subtract(&self.state.borrow().active);
        if self.settlers.get() > 0 {
            stale.remove_run(self.settling);
        }
        for run in stale.runs() {
            map.remove(run);
        }
        *self.map.borrow_mut() = map;
        Ok(())
    }

    /// Notes durably that layers are about to be synced.
    pub async fn begin_settling(&self) -> Result<()> {
        self.settlers.set(self.settlers.get() + 1);
        let map = self.map.borrow().clone();
        map.insert(self.settling);
        let noted = match map.write_durable().await {
            Ok(()) => Ok(()),
            Err(_) => self.start_afresh(&GrainSet::new()).await,
        };
        if noted.is_err() {
            self.end_settling(false);
        }
        noted
    }

    /// They are synced, or not. That they are is noted through the page cache, with the next release.
    pub fn end_settling(&self, synced: bool) {
        let left = self.settlers.get().saturating_sub(1);
        self.settlers.set(left);
        if synced && left == 0 {
            self.map.borrow().remove(self.settling);
        }
    }

    /// Opens a new generation and says which one ended: bits set from now on are not covered by a
    /// sync that starts now.
    pub fn next_generation(&self) -> u64 {
        let ended = self.generation.get();
        self.generation.set(ended + 1);
        ended
    }

    /// After all bits set up to generation `ended` were synced: releases the regions that were not
    /// touched since. The map is written through the page cache; a power cut may bring them back, and
    /// so may a failure to write it.
    pub fn release(&self, ended: u64) {
        let mut freed = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            for run in state.active.runs() {
                for region in run.first..run.end() {
                    let key = (run.volume, region);
                    if state.touched.get(&key).is_none_or(|g| *g <= ended) {
                        freed.push(key);
                    }
                }
            }
            for key in &freed {
                state.active.remove_run(Run { volume: key.0, first: key.1, count: 1 });
                state.touched.remove(key);
            }
        }
        let map = self.map.borrow();
        for (volume, first) in freed {
            map.remove(Run { volume, first, count: 1 });
        }
        if !matches!(map.write_now(), Ok(true)) {
            drop(map.flush());
        }
    }

    /// Bytes that a power cut now would make suspected.
    pub fn active_bytes(&self) -> u64 {
        self.state.borrow().active.len() * self.region_bytes
    }

    /// True when nothing is active.
    pub fn is_idle(&self) -> bool {
        let state = self.state.borrow();
        state.active.is_empty() && state.wanted.is_empty()
    }
}
