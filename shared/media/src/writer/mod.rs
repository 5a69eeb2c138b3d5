//! Writing a media set: one lane a medium, shortest queue first, bounded memory.
//!
//! ```text
//! create / resume -> push ... push -> finish      (or cancel, or a crash and resume)
//! ```
//!
//! Contract: grains come in any order, each at most once. What [`SetWriter::durable`] names survives
//! a crash and is kept by [`SetWriter::resume`]. Only [`SetWriter::finish`] makes a set: it writes the
//! signed directory last. All tasks run on the caller's `LocalSet`.

mod behind;
mod core;
mod finish;
mod lane;
mod open_segment;
mod prepare;
mod remove;
mod resume;

use std::rc::Rc;

use disk::Context;
use grain::{Content, GrainData, GrainSet, Run, SetId};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use self::core::{Core, UNIT_BYTES};
use self::lane::{Lane, Piece};
use crate::error::MediaError;
use crate::label::Label;
use crate::part::PartWriter;
use crate::plan::{FinishInfo, SetPlan, SetSummary, WriterCounters};
use crate::record::{check_run, record_limit};

pub use remove::remove_set;

/// A medium of the set being written.
struct Target {
    dir: std::path::PathBuf,
    label: Label,
    part: Rc<Mutex<PartWriter>>,
    queue: Option<mpsc::UnboundedSender<Piece>>,
    lane: Option<JoinHandle<()>>,
}

/// Writes one media set; see the top of the module.
pub struct SetWriter {
    core: Rc<Core>,
    plan: SetPlan,
    targets: Vec<Target>,
    /// The wrapped key, the same on every medium.
    envelope: Option<Vec<u8>>,
}

impl SetWriter {
    /// Begins a set on empty media. A directory that is not there is made; one that holds files of
    /// another set is refused by name.
    pub async fn create(ctx: &Context, plan: SetPlan) -> Result<SetWriter, MediaError> {
        prepare::create(&open_to_carriers(ctx, &plan), plan).await
    }

    /// Takes up a set whose writing was interrupted: `plan.set` is its id, `plan.media` all its
    /// directories in any order. Finished segments count (they are returned), others are removed, and
    /// segment numbers go on above every one that was seen.
    pub async fn resume(ctx: &Context, plan: SetPlan) -> Result<(SetWriter, GrainSet), MediaError> {
        resume::resume(&open_to_carriers(ctx, &plan), plan).await
    }

    /// The set being written.
    pub fn set(&self) -> SetId {
        self.core.set
    }

    /// Starts the lanes.
    fn start(&mut self) {
        for target in &mut self.targets {
            let (queue, pieces) = mpsc::unbounded_channel();
            let (dir, medium) = (target.dir.clone(), target.label.medium);
            let lane = Lane::new(self.core.clone(), dir, medium, target.part.clone());
            target.lane = Some(tokio::task::spawn_local(lane.run(pieces)));
            target.queue = Some(queue);
        }
    }

    /// Takes a run, as large as it may be. Waits while memory is full. An error of any medium comes
    /// out here (with its path) and ends the writing. A push that was begun must be waited for: a run
    /// half taken makes [`SetWriter::finish`] fail.
    pub async fn push(&self, data: GrainData) -> Result<(), MediaError> {
        self.core.check()?;
        self.check_data(&data)?;
        if !self.core.accept(data.run) {
            let why = format!("grains of {:?} were pushed twice", data.run);
            return Err(MediaError::Bug(why));
        }
        match &data.content {
            Content::Zero => {
                self.core.counters.borrow_mut().zero_grains += data.run.count;
                self.enqueue(data).await
            }
            Content::Data(bytes) => {
                self.core.counters.borrow_mut().bytes_in += bytes.len() as u64;
                let grain = self.core.geometry.grain;
                let step = record_limit(grain) / grain.bytes();
                for first in (data.run.first..data.run.end()).step_by(step as usize) {
                    let count = step.min(data.run.end() - first);
                    let from = (first - data.run.first) * grain.bytes();
                    let to = (from + count * grain.bytes()).min(bytes.len() as u64);
                    let content = Content::Data(bytes.slice(from as usize..to as usize));
                    let run = Run { volume: data.run.volume, first, count };
                    self.enqueue(GrainData { run, content }).await?;
                }
                Ok(())
            }
        }
    }

    fn check_data(&self, data: &GrainData) -> Result<(), MediaError> {
        let bug = |what: &str| Err(MediaError::Bug(format!("{what}: {:?}", data.run)));
        if check_run(&data.run, &self.core.geometry).is_err() {
            return bug("a run outside its volume was pushed");
        }
        let Run { volume, first, count } = data.run;
        let range = self.core.geometry.byte_range(volume, first, count);
        match &data.content {
            Content::Data(bytes) if bytes.len() as u64 != range.end - range.start => {
                bug("a run was pushed with too many or too few bytes")
            }
            _ => Ok(()),
        }
    }

    async fn enqueue(&self, data: GrainData) -> Result<(), MediaError> {
        let bytes = data.content.bytes();
        let units = (bytes.div_ceil(UNIT_BYTES) as u32).clamp(1, self.core.memory_units);
        let Ok(memory) = self.core.memory.clone().acquire_many_owned(units).await else {
            self.core.check()?;
            return Err(MediaError::Stopped("cancelled".into()));
        };
        let shortest = {
            let counters = self.core.counters.borrow();
            let queued = counters.queued_bytes.iter().zip(&counters.medium_bytes);
            // Equal queues: the medium with less on it, so that zero runs are spread too.
            queued.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(i, _)| i)
        };
        if let Some(queued) = self.core.counters.borrow_mut().queued_bytes.get_mut(shortest) {
            *queued += bytes;
        }
        let queue = self.targets.get(shortest).and_then(|target| target.queue.as_ref());
        let sent = queue.is_some_and(|queue| queue.send(Piece { data, memory }).is_ok());
        if sent {
            return Ok(());
        }
        self.core.check()?;
        Err(MediaError::Stopped("the medium is not being written".into()))
    }

    /// The grains that are durable on the media: a crash does not lose them.
    pub fn durable(&self) -> GrainSet {
        self.core.durable.borrow().clone()
    }

    /// Progress.
    pub fn counters(&self) -> WriterCounters {
        self.core.counters.borrow().clone()
    }

    /// Writes what is left, then the signed directory; when it returns the set is complete and
    /// durable.
    pub async fn finish(mut self, info: FinishInfo) -> Result<SetSummary, MediaError> {
        self.wait_for_lanes().await?;
        finish::finish(&self, info).await
    }

    async fn wait_for_lanes(&mut self) -> Result<(), MediaError> {
        for target in &mut self.targets {
            target.queue = None;
        }
        for target in &mut self.targets {
            if let Some(lane) = target.lane.take()
                && let Err(error) = lane.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        self.core.check()
    }

    /// Stops and removes every file of this set from the media.
    pub async fn cancel(mut self) -> Result<(), MediaError> {
        self.core.stop(MediaError::Stopped("cancelled".into()));
        for target in &mut self.targets {
            target.queue = None;
            if let Some(lane) = target.lane.take() {
                lane.abort();
                // Aborted is what it shall be.
                drop(lane.await);
            }
        }
        let dirs: Vec<_> = self.plan.media.clone();
        remove_set(&self.core.ctx, self.core.set, &dirs).await
    }
}

/// What is sealed may be read by whoever carries the disks, who then can check them without being
/// root. What is not stays private.
fn open_to_carriers(ctx: &Context, plan: &SetPlan) -> Context {
    if plan.sealed() { ctx.readable_by_others() } else { ctx.clone() }
}

impl Drop for SetWriter {
    fn drop(&mut self) {
        for target in &self.targets {
            if let Some(lane) = &target.lane {
                lane.abort();
            }
        }
    }
}
