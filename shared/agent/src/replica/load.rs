//! The verb `load`: through a running agent, or by a process of its own.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use media::KeySource;
use replication::replica::{LoadProgress, LoadReport, LoadRequest};
use serde::{Deserialize, Serialize};
use site::Problem;
use tokio::time::Instant;
use wire::Passphrase;

use super::ReplicaAgent;
use crate::problem::{of_replication, of_wire, refused};
use crate::status::{JobStatus, Progress};

/// What `load` is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadArguments {
    /// The media that are here.
    pub dirs: Vec<PathBuf>,
    /// A passphrase that opens the set.
    pub passphrase: Option<String>,
}

/// What `load` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadAnswer {
    /// The media set.
    pub set: String,
    /// Grains written now.
    pub loaded_grains: u64,
    /// Grains that were loaded before.
    pub already_grains: u64,
    /// Damage found, in words.
    pub damage: Vec<String>,
    /// Grains that it cost: they will be pulled.
    pub damaged_grains: u64,
    /// Grains that wait for media not given.
    pub waiting_grains: u64,
    /// Grains that the source could not read: they are on no medium, and pulled when it can.
    pub unreadable_grains: u64,
    /// Numbers of the media that were here.
    pub media_here: Vec<u16>,
    /// How many media the set has.
    pub media: u16,
    /// The fingerprint of what was loaded, equal to that of the set; none while some of it is missing.
    pub fingerprint: Option<String>,
    /// No consistent image before the first catch-up.
    pub fuzzy: bool,
}

impl From<LoadReport> for LoadAnswer {
    fn from(report: LoadReport) -> LoadAnswer {
        LoadAnswer {
            set: report.set.to_string(),
            loaded_grains: report.loaded_grains,
            already_grains: report.already_grains,
            damage: report.damage,
            damaged_grains: report.damaged_grains,
            waiting_grains: report.waiting_grains,
            unreadable_grains: report.unreadable_grains,
            media_here: report.media.0,
            media: report.media.1,
            fingerprint: report.fingerprint.map(|f| f.to_string()),
            fuzzy: report.fuzzy,
        }
    }
}

/// The present load, or the last one.
#[derive(Default)]
pub(super) struct LoadSlot {
    progress: Rc<LoadProgress>,
    dirs: Vec<PathBuf>,
    begun: Option<Instant>,
    took_seconds: f64,
    stage: &'static str,
    error: Option<String>,
    answer: Option<LoadAnswer>,
    received: Cell<u64>,
}

impl LoadSlot {
    fn start(&mut self, arguments: &LoadArguments) {
        *self = LoadSlot {
            dirs: arguments.dirs.clone(),
            begun: Some(Instant::now()),
            stage: "running",
            received: self.received.clone(),
            ..LoadSlot::default()
        };
    }

    /// Whether more was received over the link than at the last look.
    pub(super) fn note_received(&mut self, bytes: u64) -> bool {
        self.received.replace(bytes) != bytes
    }
}

impl ReplicaAgent {
    /// Begins to load in the background; status shows how far it is, and what came of it.
    pub(super) fn begin_load(self: &Rc<Self>, arguments: LoadArguments) -> Result<(), Problem> {
        if self.loading.get() {
            return Err(refused("busy", "another load is running"));
        }
        self.load.borrow_mut().start(&arguments);
        let agent = self.clone();
        tokio::task::spawn_local(async move {
            // What came of it is in the slot.
            drop(agent.load(arguments).await);
        });
        Ok(())
    }

    /// Loads what is there. Following stops meanwhile.
    pub async fn load(self: &Rc<Self>, arguments: LoadArguments) -> Result<LoadAnswer, Problem> {
        if self.loading.replace(true) {
            return Err(refused("busy", "another load is running"));
        }
        self.load.borrow_mut().start(&arguments);
        self.wake.notify_waiters();
        let outcome = self.load_alone(arguments).await;
        self.loading.set(false);
        self.wake.notify_waiters();
        outcome
    }

    async fn load_alone(self: &Rc<Self>, arguments: LoadArguments) -> Result<LoadAnswer, Problem> {
        let mut keys = vec![KeySource::Site(self.relationship.local_keys.clone())];
        if let Some(text) = arguments.passphrase {
            let passphrase = Passphrase::new(text).map_err(|e| of_wire(&e))?;
            keys.push(KeySource::Passphrase(passphrase));
        }
        let progress = self.load.borrow().progress.clone();
        self.events.note("loading media");
        let request = LoadRequest { dirs: arguments.dirs, keys };
        let outcome = self.replica.load(request, &progress).await;
        let mut slot = self.load.borrow_mut();
        slot.took_seconds = slot.begun.map_or(0.0, |b| b.elapsed().as_secs_f64());
        match outcome {
            Ok(report) => {
                let answer = LoadAnswer::from(report);
                slot.stage = "done";
                slot.answer = Some(answer.clone());
                self.events.note(format!(
                    "loaded {} grains of the set {}; {} damaged, {} wait for other media",
                    answer.loaded_grains, answer.set, answer.damaged_grains, answer.waiting_grains
                ));
                Ok(answer)
            }
            Err(e) => {
                let problem = of_replication(&e);
                slot.stage = "failed";
                slot.error = Some(problem.what.clone());
                self.events.note(format!("the load failed: {}", problem.what));
                Err(problem)
            }
        }
    }

    /// How far the load is: grains to load, loaded, bytes written.
    pub fn load_progress(&self) -> Progress {
        let slot = self.load.borrow();
        Progress {
            total_grains: slot.progress.total_grains.get(),
            done_grains: slot.progress.done_grains.get(),
            bytes: slot.progress.data_bytes.get(),
        }
    }

    pub(super) fn load_status(&self) -> Option<JobStatus> {
        let progress = self.load_progress();
        let slot = self.load.borrow();
        slot.begun?;
        let running = slot.stage == "running";
        let seconds = match slot.begun {
            Some(begun) if running => begun.elapsed().as_secs_f64(),
            _ => slot.took_seconds,
        };
        Some(JobStatus {
            kind: "load".to_owned(),
            stage: slot.stage.to_owned(),
            set: slot.answer.as_ref().map(|a| a.set.clone()).unwrap_or_default(),
            media: slot.dirs.iter().map(|p| p.display().to_string()).collect(),
            progress,
            seconds,
            error: slot.error.clone(),
            result: slot.answer.as_ref().and_then(|a| serde_json::to_value(a).ok()),
            ..JobStatus::default()
        })
    }
}
