//! The verb `dump` in the daemon: begin, resume, cancel, and what is shown of it.

use std::path::PathBuf;
use std::rc::Rc;

use grain::SetId;
use replication::dump::{DumpJob, DumpOptions, DumpRequest, Preserve, SavedOptions};
use replication::state::SetStage;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use site::Problem;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use wire::{Passphrase, Recipient, Ticket, TicketContent};

use super::SourceAgent;
use super::freeze::FreezeArguments;
use crate::problem::{of_relationship, of_replication, of_wire, refused};
use crate::status::{JobStatus, Progress};

/// What `dump` is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DumpArguments {
    /// One directory a medium; not needed to resume.
    pub to: Vec<PathBuf>,
    /// Further recipients: `grainhaul1...` or `age1...`.
    pub recipients: Vec<String>,
    /// A passphrase that may open the set, too.
    pub passphrase: Option<String>,
    /// False leaves the content unencrypted.
    pub encrypt: bool,
    /// The zstd level; none stores raw.
    pub level: Option<i32>,
    /// Bytes read a second at most; 0 for no limit.
    pub rate_bytes: u64,
    /// Largest size of a segment file.
    pub segment_bytes: u64,
    /// Preserved grains in memory at most.
    pub buffer_bytes: u64,
    /// Size of the side file; 0 for none.
    pub side_bytes: u64,
    /// Where the side file goes.
    pub side_dir: Option<PathBuf>,
    /// How long a writer waits for room.
    pub preserve_wait_ms: u64,
    /// And then?
    pub preserve: Preserve,
    /// Around the cut.
    #[serde(flatten)]
    pub freeze: FreezeArguments,
    /// Take up the unfinished set.
    pub resume: bool,
}

/// The present dump, or the last one.
#[derive(Default)]
pub(super) struct DumpSlot {
    job: Option<Rc<DumpJob>>,
    begun: Option<Instant>,
    took_seconds: f64,
    stage: &'static str,
    error: Option<String>,
    result: Option<Value>,
    task: Option<JoinHandle<()>>,
}

impl SourceAgent {
    fn is_dumping(&self) -> bool {
        self.dump.borrow().task.is_some()
    }

    fn dump_request(&self, arguments: &DumpArguments) -> Result<DumpRequest, Problem> {
        let mut recipients: Vec<Recipient> = Vec::new();
        for peer in self.relationship.peers().map_err(|e| of_relationship(&e))? {
            recipients.push(Recipient::Site(peer));
        }
        let mut names: Vec<String> =
            self.source.store().with(|s| s.peers.iter().map(|p| p.identity.clone()).collect());
        for text in &arguments.recipients {
            recipients.push(text.parse().map_err(|e| of_wire(&e))?);
            names.push(text.clone());
        }
        if let Some(text) = &arguments.passphrase {
            let passphrase = Passphrase::new(text.clone()).map_err(|e| of_wire(&e))?;
            recipients.push(Recipient::Passphrase(passphrase));
        }
        if arguments.encrypt && recipients.is_empty() {
            return Err(refused("no-recipient", "nobody but this site could open the media").todo(
                "Give --recipient or --passphrase-file, name a peer at `init`, or use \
                 --no-encryption.",
            ));
        }
        let saved = SavedOptions {
            segment_bytes: arguments.segment_bytes,
            level: arguments.level,
            encrypt: arguments.encrypt,
            recipients: names,
            buffer_bytes: arguments.buffer_bytes,
            side_bytes: arguments.side_bytes,
            side_dir: arguments.side_dir.clone().unwrap_or_else(|| self.side_dir()),
            preserve_wait_ms: arguments.preserve_wait_ms,
            preserve: arguments.preserve,
            rate_bytes: arguments.rate_bytes,
        };
        self.request(arguments.to.clone(), saved, recipients)
    }

    fn request(
        &self,
        media: Vec<PathBuf>,
        saved: SavedOptions,
        recipients: Vec<Recipient>,
    ) -> Result<DumpRequest, Problem> {
        let keys = self.relationship.local_keys.clone();
        let content = self.source.store().with(|s| TicketContent {
            relationship: s.relationship,
            name: s.name.clone(),
            geometry: s.geometry.clone(),
            addresses: Vec::new(),
            primary: keys.identity(),
        });
        let ticket = Ticket::sign(content, &keys).and_then(|t| t.to_text());
        let ticket = ticket.map_err(|e| of_wire(&e))?;
        Ok(DumpRequest { media, options: DumpOptions { saved, recipients, keys, ticket } })
    }

    /// Begins or resumes a dump; it goes on after the answer.
    pub async fn begin_dump(self: &Rc<Self>, arguments: DumpArguments) -> Result<Value, Problem> {
        if self.is_dumping() {
            return Err(refused("busy", "a dump is running already")
                .todo("Watch it with `status`, or cancel it with `dump NAME --cancel`."));
        }
        let unfinished = self.unfinished_set();
        let job = if arguments.resume {
            let (set, media, saved) = unfinished
                .ok_or_else(|| refused("nothing-to-resume", "there is no unfinished dump"))?;
            self.resume_job(set, media, saved, arguments.passphrase.as_deref()).await?
        } else {
            let request = self.dump_request(&arguments)?;
            self.begin_frozen(request, &arguments).await?
        };
        let set = job.set();
        self.run_dump(job);
        Ok(json!({ "set": set.to_string() }))
    }

    /// The cut, between freeze and thaw.
    async fn begin_frozen(
        &self,
        request: DumpRequest,
        arguments: &DumpArguments,
    ) -> Result<Rc<DumpJob>, Problem> {
        let frozen = self.freeze(&arguments.freeze).await?;
        let job = DumpJob::begin(&self.source, request).await;
        self.thaw(frozen).await?;
        job.map_err(|e| of_replication(&e))
    }

    async fn resume_job(
        &self,
        set: SetId,
        media: Vec<PathBuf>,
        saved: SavedOptions,
        passphrase: Option<&str>,
    ) -> Result<Rc<DumpJob>, Problem> {
        let mut recipients = Vec::new();
        for text in &saved.recipients {
            recipients.push(text.parse().map_err(|e| of_wire(&e))?);
        }
        if let Some(text) = passphrase {
            let passphrase = Passphrase::new(text.to_owned()).map_err(|e| of_wire(&e))?;
            recipients.push(Recipient::Passphrase(passphrase));
        }
        let request = self.request(media, saved, recipients)?;
        DumpJob::resume(&self.source, set, request).await.map_err(|e| of_replication(&e))
    }

    fn run_dump(self: &Rc<Self>, job: Rc<DumpJob>) {
        self.events.note(format!("dump {} has begun", job.set().short()));
        let (agent, running) = (self.clone(), job.clone());
        let task = tokio::task::spawn_local(async move {
            let outcome = running.run().await;
            agent.dump_ended(outcome);
        });
        *self.dump.borrow_mut() = DumpSlot {
            job: Some(job),
            begun: Some(Instant::now()),
            stage: "running",
            task: Some(task),
            ..DumpSlot::default()
        };
    }

    fn dump_ended(&self, outcome: replication::Result<replication::dump::DumpEnd>) {
        let mut slot = self.dump.borrow_mut();
        slot.task = None;
        slot.took_seconds = slot.begun.map_or(0.0, |b| b.elapsed().as_secs_f64());
        match outcome {
            Ok(end) => {
                slot.stage = "done";
                let volumes = self.source.volumes();
                let places: Vec<_> =
                    end.unreadable.runs().take(8).map(|run| volumes.place(run)).collect();
                for place in &places {
                    self.events.note(format!("could not be read and is on no medium: {place}"));
                }
                slot.result = Some(json!({
                    "unreadable_grains": end.unreadable.len(),
                    "unreadable_places": places,
                    "set": end.summary.set.to_string(),
                    "cut": end.cut.to_string(),
                    "fuzzy": end.fuzzy_end.is_some(),
                    "fingerprint": end.summary.fingerprint.to_string(),
                    "grains": end.summary.grains,
                    "data_grains": end.summary.data_grains,
                    "segments": end.summary.segments,
                    "medium_bytes": end.summary.medium_bytes,
                }));
                self.events.note(format!("dump {} is finished", end.summary.set.short()));
            }
            Err(replication::Error::Cancelled) => {
                slot.stage = "cancelled";
                self.events.note("the dump was cancelled");
            }
            Err(e) => {
                slot.stage = "failed";
                let problem = of_replication(&e);
                self.events.note(format!("the dump failed: {}", problem.what));
                slot.error = Some(problem.what);
            }
        }
    }

    /// The unfinished set of the state.
    fn unfinished_set(&self) -> Option<(SetId, Vec<PathBuf>, SavedOptions)> {
        let record = self
            .source
            .store()
            .with(|s| s.sets.iter().find(|set| set.stage == SetStage::Writing).cloned())?;
        let saved = SavedOptions::from_json(&record.options).ok()?;
        Some((record.id, record.media, saved))
    }

    /// A dump that a crash or a stop broke off is taken up when the source starts again.
    pub(super) fn take_up_dump(self: &Rc<Self>) {
        let Some((set, media, saved)) = self.unfinished_set() else { return };
        let agent = self.clone();
        tokio::task::spawn_local(async move {
            agent.events.note(format!("the dump {} was broken off: going on", set.short()));
            match agent.resume_job(set, media, saved, None).await {
                Ok(job) => agent.run_dump(job),
                Err(problem) => {
                    agent.events.note(format!(
                        "the dump {} cannot go on: {}; `dump NAME --resume` tries again, `dump \
                         NAME --cancel` gives it up",
                        set.short(),
                        problem.what
                    ));
                }
            }
        });
    }

    /// Cancels the running dump, or clears up the unfinished one.
    pub async fn cancel_dump(self: &Rc<Self>) -> Result<Value, Problem> {
        let job = self.dump.borrow().job.clone().filter(|_| self.is_dumping());
        if let Some(job) = job {
            job.cancel();
            return Ok(json!({ "cancelled": job.set().to_string() }));
        }
        let Some((set, media, _)) = self.unfinished_set() else {
            return Ok(json!({ "cancelled": Value::Null }));
        };
        media_gone(&self.ctx, set, &media).await?;
        self.source
            .store()
            .update(|s| {
                if let Some(record) = s.sets.iter_mut().find(|r| r.id == set) {
                    record.stage = SetStage::Cancelled;
                }
            })
            .await
            .map_err(|e| of_replication(&e))?;
        self.source.housekeep().await.map_err(|e| of_replication(&e))?;
        Ok(json!({ "cancelled": set.to_string() }))
    }

    /// A stop of the agent leaves a running dump to be resumed.
    pub async fn interrupt_dump(&self) {
        let task = self.dump.borrow_mut().task.take();
        if let Some(task) = task {
            task.abort();
            // Aborted is what it shall be.
            drop(task.await);
        }
    }

    /// The job as status shows it.
    pub(super) fn dump_status(&self) -> Option<JobStatus> {
        let slot = self.dump.borrow();
        let job = slot.job.as_ref()?;
        let progress = &job.progress;
        let counters = progress.session.get();
        let seconds = match slot.task {
            Some(_) => slot.begun.map_or(0.0, |b| b.elapsed().as_secs_f64()),
            None => slot.took_seconds,
        };
        Some(JobStatus {
            kind: "dump".to_owned(),
            stage: slot.stage.to_owned(),
            set: job.set().to_string(),
            media: job.media().iter().map(|p| p.display().to_string()).collect(),
            progress: Progress {
                total_grains: progress.total_grains.get(),
                done_grains: progress.done_grains.get(),
                bytes: progress.data_bytes.get(),
            },
            medium_bytes: progress.medium_bytes.borrow().clone(),
            preserved_grains: counters.preserved_grains,
            fuzzy: progress.fuzzy.get(),
            seconds,
            error: slot.error.clone(),
            result: slot.result.clone(),
        })
    }
}

async fn media_gone(ctx: &disk::Context, set: SetId, media: &[PathBuf]) -> Result<(), Problem> {
    media::remove_set(ctx, set, media).await.map_err(|e| crate::problem::of_media(&e))
}
