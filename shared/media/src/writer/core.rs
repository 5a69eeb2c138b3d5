//! What the lanes of a writer share: the set's key, its counters, its first error.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use disk::Context;
use grain::fingerprint::{FingerprintPlan, FingerprintSum};
use grain::{Geometry, GrainSet, Run, SetId};
use tokio::sync::Semaphore;
use wire::SiteKeys;

use crate::directory::SegmentFacts;
use crate::error::MediaError;
use crate::plan::WriterCounters;
use crate::record::RecordPlan;
use crate::root_digest::RootSum;
use crate::seal::SetKey;

/// Memory is handed out in units of this many bytes.
pub(super) const UNIT_BYTES: u64 = 4096;

/// Shared by the writer and its lanes.
pub(super) struct Core {
    pub(super) ctx: Context,
    pub(super) set: SetId,
    pub(super) geometry: Geometry,
    pub(super) segment_bytes: u64,
    /// What the pool makes records after.
    pub(super) records: Arc<RecordPlan>,
    pub(super) key: Option<SetKey>,
    pub(super) keys: Rc<SiteKeys>,
    /// Memory for content, in units; closed when the writer stops.
    pub(super) memory: Arc<Semaphore>,
    pub(super) memory_units: u32,
    next_segment: Cell<u64>,
    stopped: RefCell<Option<MediaError>>,
    /// Grains that a caller has handed over.
    pub(super) accepted: RefCell<GrainSet>,
    /// Grains that are durable on their medium.
    pub(super) durable: RefCell<GrainSet>,
    pub(super) sum: RefCell<RootSum>,
    pub(super) fingerprint: Cell<FingerprintSum>,
    pub(super) finished: RefCell<Vec<SegmentFacts>>,
    pub(super) counters: RefCell<WriterCounters>,
}

impl Core {
    pub(super) fn new(
        ctx: Context,
        plan: &crate::plan::SetPlan,
        key: Option<SetKey>,
        next_segment: u64,
    ) -> Rc<Core> {
        let units = plan.queue_bytes.max(2 * crate::record::record_limit(plan.geometry.grain));
        let memory_units = u32::try_from(units.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX >> 4);
        let media = plan.media.len();
        Rc::new(Core {
            ctx,
            set: plan.set,
            geometry: plan.geometry.clone(),
            segment_bytes: plan.segment_bytes,
            records: Arc::new(RecordPlan {
                geometry: plan.geometry.clone(),
                level: plan.level,
                fingerprint: FingerprintPlan::of_cut(&plan.geometry, plan.cut.cut),
            }),
            key,
            keys: plan.keys.clone(),
            memory: Arc::new(Semaphore::new(memory_units as usize)),
            memory_units,
            next_segment: Cell::new(next_segment),
            stopped: RefCell::default(),
            accepted: RefCell::default(),
            durable: RefCell::default(),
            sum: RefCell::default(),
            fingerprint: Cell::default(),
            finished: RefCell::default(),
            counters: RefCell::new(WriterCounters {
                medium_bytes: vec![0; media],
                queued_bytes: vec![0; media],
                ..WriterCounters::default()
            }),
        })
    }

    /// A segment number that was never used in this set.
    pub(super) fn take_segment_number(&self) -> u64 {
        let number = self.next_segment.get();
        self.next_segment.set(number + 1);
        number
    }

    /// Stops everything; the first reason is kept.
    pub(super) fn stop(&self, reason: MediaError) {
        self.stopped.borrow_mut().get_or_insert(reason);
        self.memory.close();
    }

    /// The reason why the writer stopped, if it did.
    pub(super) fn stopped(&self) -> Option<MediaError> {
        self.stopped.borrow().as_ref().map(MediaError::again)
    }

    /// Fails when the writer has stopped.
    pub(super) fn check(&self) -> Result<(), MediaError> {
        self.stopped().map_or(Ok(()), Err)
    }

    /// A run is durable together with its segment.
    pub(super) fn settle(&self, facts: SegmentFacts, grains: &GrainSet, sum: &RootSum) {
        let mut durable = self.durable.borrow_mut();
        durable.union_with(grains);
        self.sum.borrow_mut().add(sum);
        let mut fingerprint = self.fingerprint.get();
        fingerprint.merge(facts.fingerprint);
        self.fingerprint.set(fingerprint);
        let mut counters = self.counters.borrow_mut();
        counters.segments += 1;
        counters.durable_grains = durable.len();
        self.finished.borrow_mut().push(facts);
    }

    /// Notes that a caller handed a run over; false if any of its grains was handed over before.
    pub(super) fn accept(&self, run: Run) -> bool {
        let mut accepted = self.accepted.borrow_mut();
        let new = !accepted.intersects(run);
        if new {
            accepted.insert_run(run);
        }
        new
    }
}
