//! One dump, from its cut to its signed directory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use grain::{CutId, CutReason, GrainData, GrainSet, SetId};
use media::{CutFacts, FinishInfo, SetPlan, SetSummary, SetWriter};

use super::plan::{DumpRequest, SavedOptions};
use crate::pace::Rate;
use crate::session::{CopySession, Counters, Ended, OnWrite, Options, SideFile};
use crate::source::Source;
use crate::state::{SetRecord, SetStage};
use crate::{Error, Result};

/// Runs read and pushed to the media at the same time.
const WIDTH: usize = 4;

/// What the operator sees of a dump.
#[derive(Debug, Default)]
pub struct DumpProgress {
    /// Grains of the set.
    pub total_grains: Cell<u64>,
    /// Grains given to the media so far.
    pub done_grains: Cell<u64>,
    /// Bytes of data read so far.
    pub data_bytes: Cell<u64>,
    /// Of the copy session.
    pub session: Cell<Counters>,
    /// Bytes on each medium.
    pub medium_bytes: RefCell<Vec<u64>>,
    /// Grains that could not be read so far.
    pub unreadable_grains: Cell<u64>,
    /// True once the set is no point in time.
    pub fuzzy: Cell<bool>,
    /// How long the cut kept writers waiting, in microseconds.
    pub pause_us: Cell<u64>,
}

/// How a dump ended well.
#[derive(Clone, Debug)]
pub struct DumpEnd {
    /// What is on the media.
    pub summary: SetSummary,
    /// The cut that it holds.
    pub cut: CutId,
    /// Set when it is fuzzy.
    pub fuzzy_end: Option<CutId>,
    /// Grains that the disk did not give: they are not in the set, and named in its directory.
    pub unreadable: GrainSet,
}

/// A dump under way.
pub struct DumpJob {
    source: Rc<Source>,
    set: SetId,
    cut: CutId,
    session: Rc<CopySession>,
    request: DumpRequest,
    resumed: bool,
    cancelled: Cell<bool>,
    place: RefCell<Option<Place>>,
    /// For the operator.
    pub progress: Rc<DumpProgress>,
}

/// The one dump of a source, until it is dropped: a second one that is asked for while the first is
/// still being begun would copy into the same set, or be installed with nobody to take from it.
struct Place(Rc<Source>);

impl Place {
    fn take(source: &Rc<Source>) -> Result<Place> {
        if source.dumping.replace(true) {
            return Err(Error::State("a dump is under way already".to_owned()));
        }
        Ok(Place(source.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.dumping.set(false);
    }
}

impl Drop for DumpJob {
    /// Writers do not wait for a dump that nobody runs.
    fn drop(&mut self) {
        self.let_go();
    }
}

impl DumpJob {
    /// Makes the cut from which everything is preserved, and the record of the set. `freeze` and
    /// `thaw` are run around the cut by the caller.
    pub async fn begin(source: &Rc<Source>, request: DumpRequest) -> Result<Rc<DumpJob>> {
        let place = Place::take(source)?;
        refuse_second(source)?;
        let saved = &request.options.saved;
        let ctx = source.context();
        let set = SetId::new(ctx.unix_ms(), ctx.random());
        let options = session_options(source, saved, set, false).await?;
        let everything = GrainSet::full(source.volumes().geometry());
        let volumes = source.volumes().clone();
        let made = RefCell::new(None);
        let pause = source
            .cut(CutReason::Dump, |cut| {
                let session = CopySession::new(cut, everything, volumes, options);
                *made.borrow_mut() = Some(session.clone());
                vec![session]
            })
            .await?;
        let session = made.into_inner();
        let session = session.ok_or_else(|| Error::State("the cut was not made".to_owned()))?;
        let record = SetRecord {
            id: set,
            cut: pause.cut.id,
            end: None,
            stage: SetStage::Writing,
            media: request.media.clone(),
            unix_ms: pause.cut.unix_ms,
            options: saved.to_json()?,
            root_digest: None,
            fingerprint: None,
            unreadable_grains: 0,
            media_bytes: 0,
        };
        let job = DumpJob::new(place, set, pause.cut.id, session, request, false);
        job.progress.pause_us.set(pause.pause.as_micros() as u64);
        let saved = source.store().update(|s| s.sets.push(record)).await;
        if let Err(e) = saved {
            job.let_go();
            return Err(e);
        }
        Ok(job)
    }

    /// Takes up a dump that a crash broke off. What is not on the media yet is read live: the set is
    /// fuzzy.
    pub async fn resume(
        source: &Rc<Source>,
        set: SetId,
        request: DumpRequest,
    ) -> Result<Rc<DumpJob>> {
        let place = Place::take(source)?;
        let record = source.store().with(|s| s.sets.iter().find(|r| r.id == set).cloned());
        let record = record
            .filter(|r| r.stage == SetStage::Writing)
            .ok_or_else(|| Error::State(format!("there is no unfinished set {set}")))?;
        let options = session_options(source, &request.options.saved, set, true).await?;
        let everything = GrainSet::full(source.volumes().geometry());
        let volumes = source.volumes().clone();
        let session = CopySession::new(record.cut, everything, volumes, options);
        Ok(DumpJob::new(place, set, record.cut, session, request, true))
    }

    fn new(
        place: Place,
        set: SetId,
        cut: CutId,
        session: Rc<CopySession>,
        request: DumpRequest,
        resumed: bool,
    ) -> Rc<DumpJob> {
        let source = place.0.clone();
        let progress = Rc::new(DumpProgress::default());
        progress.total_grains.set(source.volumes().geometry().total_grains());
        progress.fuzzy.set(resumed);
        Rc::new(DumpJob {
            source,
            set,
            cut,
            session,
            request,
            resumed,
            cancelled: Cell::new(false),
            place: RefCell::new(Some(place)),
            progress,
        })
    }

    /// The set's id.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// Where it goes.
    pub fn media(&self) -> &[std::path::PathBuf] {
        &self.request.media
    }

    /// Asks it to stop and to remove what it wrote.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        self.session.end(Ended::Cancelled);
    }

    /// Runs it to its end. After a failure that was not asked for, what is finished on the media stays
    /// and the dump can be resumed.
    pub async fn run(self: &Rc<Self>) -> Result<DumpEnd> {
        let outcome = self.write().await;
        self.let_go();
        let outcome = self.ended(outcome).await;
        // Whoever keeps the job to show it keeps nobody from the next one.
        drop(self.place.take());
        outcome
    }

    async fn ended(&self, outcome: Result<DumpEnd>) -> Result<DumpEnd> {
        match outcome {
            Err(_) if self.cancelled.get() => {
                let ctx = self.source.context();
                media::remove_set(ctx, self.set, &self.request.media).await?;
                self.note(|record| record.stage = SetStage::Cancelled).await?;
                self.source.housekeep().await?;
                Err(Error::Cancelled)
            }
            Ok(end) => {
                self.note(|record| {
                    record.stage = SetStage::Finished;
                    record.end = end.fuzzy_end;
                    record.root_digest =
                        Some(data_encoding::HEXLOWER.encode(&end.summary.root_digest));
                    record.fingerprint = Some(end.summary.fingerprint);
                    record.unreadable_grains = end.unreadable.len();
                    record.media_bytes = end.summary.medium_bytes.iter().sum();
                })
                .await?;
                Ok(end)
            }
            Err(e) => Err(e),
        }
    }

    fn let_go(&self) {
        self.session.end(Ended::Cancelled);
        self.source.remove_session(&self.session);
    }

    async fn note(&self, change: impl FnOnce(&mut SetRecord)) -> Result<()> {
        let set = self.set;
        self.source
            .store()
            .update(|s| {
                if let Some(record) = s.sets.iter_mut().find(|r| r.id == set) {
                    change(record);
                }
            })
            .await
    }

    async fn write(self: &Rc<Self>) -> Result<DumpEnd> {
        let plan = self.set_plan()?;
        let ctx = self.source.context();
        let writer = if self.resumed {
            let (writer, done) = SetWriter::resume(ctx, plan).await?;
            self.session.drop_pending(&done);
            self.progress.done_grains.set(done.len());
            writer
        } else {
            SetWriter::create(ctx, plan).await?
        };
        let writer = Rc::new(writer);
        let copied = self.copy(&writer).await;
        let writer = Rc::into_inner(writer)
            .ok_or_else(|| Error::State("the media are still being written".to_owned()))?;
        // A writer that is dropped keeps what is finished on the media: it can be resumed.
        copied?;
        let fuzzy_end = if self.resumed || self.session.is_fuzzy() {
            Some(self.source.cut(CutReason::Dump, |_| Vec::new()).await?.cut.id)
        } else {
            None
        };
        let unreadable = self.session.unreadable();
        let info = FinishInfo { fuzzy_end, unreadable: unreadable.clone() };
        let summary = writer.finish(info).await?;
        Ok(DumpEnd { summary, cut: self.cut, fuzzy_end, unreadable })
    }

    /// Reads and pushes, several runs at a time.
    async fn copy(self: &Rc<Self>, writer: &Rc<SetWriter>) -> Result<()> {
        let rate = Rc::new(Rate::new(self.request.options.saved.rate_bytes));
        let mut lanes = tokio::task::JoinSet::new();
        for _ in 0..WIDTH {
            let (job, writer, rate) = (self.clone(), writer.clone(), rate.clone());
            lanes.spawn_local(async move { job.lane(&writer, &rate).await });
        }
        let mut outcome = Ok(());
        while let Some(ended) = lanes.join_next().await {
            let ended = match ended {
                Ok(ended) => ended,
                Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
                Err(_) => Err(Error::Cancelled),
            };
            if let Err(e) = ended
                && outcome.is_ok()
            {
                outcome = Err(e);
                // The others stop as well; what is on the media stays.
                self.session.end(Ended::Cancelled);
            }
        }
        outcome
    }

    async fn lane(&self, writer: &SetWriter, rate: &Rate) -> Result<()> {
        while let Some(parts) = self.session.next().await? {
            for data in parts {
                self.push(writer, rate, data).await?;
            }
        }
        Ok(())
    }

    async fn push(&self, writer: &SetWriter, rate: &Rate, data: GrainData) -> Result<()> {
        let bytes = data.content.bytes();
        rate.pass(bytes).await;
        self.source.pace().pass(bytes).await;
        let progress = &self.progress;
        let grains = data.run.count;
        writer.push(data).await?;
        progress.done_grains.set(progress.done_grains.get() + grains);
        progress.data_bytes.set(progress.data_bytes.get() + bytes);
        progress.session.set(self.session.counters());
        progress.unreadable_grains.set(self.session.unreadable().len());
        progress.fuzzy.set(self.resumed || self.session.is_fuzzy());
        *progress.medium_bytes.borrow_mut() = writer.counters().medium_bytes;
        Ok(())
    }

    fn set_plan(&self) -> Result<SetPlan> {
        let cut = self.cut;
        let state = self.source.store().with(|s| {
            let lineage = s.lineage.up_to(cut)?;
            Some((s.relationship, s.name.clone(), s.geometry.clone(), lineage))
        });
        let (relationship, relationship_name, geometry, lineage) =
            state.ok_or(Error::UnknownCut(cut))?;
        let unix_ms = lineage.head().map_or(0, |c| c.unix_ms);
        let encode = |e: wire::Error| Error::State(format!("the lineage: {e}"));
        let lineage = wire::codec::encode(&lineage).map_err(encode)?;
        let options = &self.request.options;
        Ok(SetPlan {
            set: self.set,
            relationship,
            relationship_name,
            geometry,
            cut: CutFacts { cut, unix_ms, lineage },
            basis: None,
            media: self.request.media.clone(),
            segment_bytes: options.saved.segment_bytes,
            queue_bytes: media::DEFAULT_QUEUE_BYTES,
            level: options.saved.level,
            sealing: options.saved.encrypt.then(|| options.recipients.clone()),
            recipient_names: options.saved.recipients.clone(),
            keys: options.keys.clone(),
            ticket: options.ticket.clone(),
        })
    }
}

fn refuse_second(source: &Source) -> Result<()> {
    let running = source
        .store()
        .with(|s| s.sets.iter().find(|set| set.stage == SetStage::Writing).map(|set| set.id));
    match running {
        Some(set) => Err(Error::State(format!(
            "the media set {set} is not finished; resume it or cancel it first"
        ))),
        None => Ok(()),
    }
}

async fn session_options(
    source: &Source,
    saved: &SavedOptions,
    set: SetId,
    fuzzy: bool,
) -> Result<Options> {
    let side = match saved.side_bytes {
        0 => None,
        bytes => {
            let path = saved.side_dir.join(format!("dump-{}.side", set.short()));
            Some(SideFile::create(source.context(), path, bytes).await?)
        }
    };
    Ok(Options {
        on_write: OnWrite::Preserve,
        buffer_bytes: saved.buffer_bytes,
        side,
        wait: saved.wait(),
        overflow: saved.preserve.overflow(),
        fuzzy,
    })
}
