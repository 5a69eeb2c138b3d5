//! The replica role: the site that receives the volumes.
//!
//! The base holds the replica at one committed cut; what a catch-up brings goes to the journal first
//! and counts only with its commit. A replica that is not consistent anyway takes a catch-up directly
//! into the base and is shown as inconsistent until the commit.

mod apply;
mod check;
mod commit;
mod facts;
mod follow;
mod gather;
mod generation;
mod load;
mod missing;
mod past;
mod promote;
mod pull;
mod receive;
mod resume;
mod start;
mod stream;
mod verify;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use disk::Context;
use grain::{CutId, GrainSet};
use journal::Journal;
use tokio::sync::{Mutex, Notify};

use crate::Result;
use crate::state::{SeedRecord, State, StateStore};
use crate::track::{LayerKeeper, MapPool};
use crate::volumes::Volumes;

pub use follow::{FollowEnd, FollowSettings, ask, follow};
pub use load::{LoadProgress, LoadReport, LoadRequest};
pub use past::{
    At, Drill, DrillCounts, HistorySettings, HistoryStatus, PastPoint, Retain, Seen, View, Writable,
};
pub use promote::Standing;
pub use pull::PullProgress;
pub use stream::StreamView;
pub use verify::{VerifyJob, VerifyRequest};

use gather::Storing;
use missing::MissingMap;
use pull::ActivePull;
use stream::ActiveStream;

/// Bounds and choices of a replica.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The journal's directory, sizes and limits.
    pub journal: journal::Config,
    /// What is kept of the past.
    pub history: HistorySettings,
    /// What waits in the journal is in the volumes when the start ends. A process that only promotes does not
    /// wait for that.
    pub apply_at_start: bool,
    /// A promotion does not wait until more bytes than this have come from the journal into the volumes: the
    /// source serves them from there.
    pub promote_past: u64,
    /// A catch-up that the journal cannot hold goes straight into the base of a consistent replica.
    pub allow_direct: bool,
    /// Bytes of layer files kept at most for what is no longer needed.
    pub layer_history_bytes: u64,
    /// Start although the volumes were changed while nobody watched; only a comparison can then bring
    /// the replica back.
    pub accept_touched: bool,
}

/// The states of a replica (DESIGN.md section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing was loaded yet.
    Empty,
    /// A media set is being loaded, or waits for its next medium.
    Loading,
    /// No usable point in time.
    Inconsistent,
    /// Exactly the source at a named cut.
    Consistent,
    /// Consistent, connected and in step.
    Current,
}

impl Condition {
    /// That of a replica which follows nobody, with grains that wait for their medium or that are
    /// damaged, or none.
    pub fn at_rest(s: &State, waits: bool, lacks: bool) -> Condition {
        let replica = s.replica.as_ref();
        let direct = replica.and_then(|r| r.pull.as_ref()).is_some_and(|p| p.direct);
        let fuzzy = replica.and_then(|r| r.fuzzy_end).is_some();
        let differs = replica.and_then(|r| r.seed.as_ref()).is_some_and(SeedRecord::differs);
        if s.lineage.head().is_none() {
            Condition::Empty
        } else if waits {
            Condition::Loading
        } else if direct || fuzzy || differs || lacks {
            Condition::Inconsistent
        } else {
            Condition::Consistent
        }
    }

    /// The word for people.
    pub fn name(self) -> &'static str {
        match self {
            Condition::Empty => "empty",
            Condition::Loading => "loading",
            Condition::Inconsistent => "inconsistent",
            Condition::Consistent => "consistent",
            Condition::Current => "current",
        }
    }
}

/// See the module's text.
pub struct Replica {
    ctx: Context,
    store: StateStore,
    volumes: Rc<Volumes>,
    pool: MapPool,
    settings: Settings,
    journal: Rc<Journal>,
    damaged: MissingMap,
    /// Told when something was added to `damaged`.
    damage_noted: Notify,
    unloaded: MissingMap,
    pull: RefCell<Option<ActivePull>>,
    /// Set while connected and in step.
    in_step: Cell<bool>,
    /// Load, pull and apply change the base one after the other.
    base: Mutex<()>,
    /// The journal took no more in the middle of a catch-up: the next estimate counts everything.
    journal_was_full: Cell<bool>,
    /// Held by the one session with the source.
    following: Mutex<()>,
    progress: Rc<PullProgress>,
    /// A commit is durable in the journal and not in the state.
    commit_unsaved: Cell<bool>,
    /// No load goes on: the volumes are about to be sealed.
    stopping: Cell<bool>,
    /// The next attach compares samples.
    check_due: Cell<bool>,
    /// When the fingerprint of a commit was last taken in this run.
    generation_taken: Cell<Option<tokio::time::Instant>>,
    stream: RefCell<Option<ActiveStream>>,
    /// What a stream that has ended wrote after the newest cut.
    parked_grains: RefCell<GrainSet>,
    stream_view: StreamView,
    /// Who stores grains of a catch-up.
    storing: Storing,
    /// Held by who ends a stream or an epoch of it.
    parking: Mutex<()>,
    verification: verify::Verification,
    /// A promotion leaves what waits in the journal where it is.
    leaves_backlog: Cell<bool>,
    past: past::Past,
}

impl Replica {
    /// The durable state.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// The base volumes.
    pub fn volumes(&self) -> &Rc<Volumes> {
        &self.volumes
    }

    /// Clock, randomness, disk.
    pub fn context(&self) -> &Context {
        &self.ctx
    }

    /// The newest committed cut.
    pub fn head(&self) -> Option<CutId> {
        self.store.with(|s| s.lineage.head().map(|c| c.id))
    }

    /// Grains damaged on the media, which will be pulled.
    pub fn damaged(&self) -> GrainSet {
        self.damaged.set()
    }

    /// Of them, what the source could not read at the last catch-up. It may also name grains that a
    /// consistent replica waits for.
    pub fn unreadable(&self) -> GrainSet {
        let runs = self.store.with(|s| s.replica.as_ref().map(|r| r.unreadable.clone()));
        runs.unwrap_or_default().into_iter().collect()
    }

    /// Nothing is missing that another catch-up would bring.
    fn lacks_only_unreadable(&self) -> bool {
        self.damaged.is_empty() || self.damaged.set().is_subset(&self.unreadable())
    }

    /// Grains on media that were not loaded yet.
    pub fn unloaded(&self) -> GrainSet {
        self.unloaded.set()
    }

    /// The journal's figures.
    pub fn journal_stats(&self) -> journal::Stats {
        self.journal.stats()
    }

    /// Progress of the catch-up.
    pub fn progress(&self) -> &Rc<PullProgress> {
        &self.progress
    }

    /// The state shown.
    pub fn condition(&self) -> Condition {
        let (waits, lacks) = (!self.unloaded.is_empty(), !self.damaged.is_empty());
        match self.store.with(|s| Condition::at_rest(s, waits, lacks)) {
            Condition::Consistent if self.in_step.get() => Condition::Current,
            other => other,
        }
    }

    /// Its session was dropped where it stood: it is connected to nobody. The next session takes up what was
    /// under way.
    pub fn is_left(&self) {
        self.in_step.set(false);
        self.stream_view.streaming.set(false);
    }

    /// Another source: samples are compared before anything of it is believed.
    pub fn distrust_source(&self) {
        self.check_due.set(true);
    }

    /// True when the base and what is committed in the journal are exactly one cut.
    pub fn is_consistent(&self) -> bool {
        matches!(self.condition(), Condition::Consistent | Condition::Current)
    }

    /// Makes durable what was written to the base since [`Volumes::failed_syncs`] gave `failed`. That a sync
    /// failed is recorded, for the page cache outlives this process.
    async fn sync_base(&self, failed: u64) -> Result<()> {
        let synced = self.volumes.sync_since(failed).await;
        if synced.is_err() && !self.lost_a_sync() {
            let boot = self.ctx.boot();
            self.store.change(|s| s.run.lost_sync = Some(boot));
            drop(self.store.save().await);
        }
        synced
    }

    /// A sync of the base has failed since the machine was booted: a page that reads well may never have
    /// reached the disk, and never will unless it is written again.
    fn lost_a_sync(&self) -> bool {
        self.store.with(|s| s.run.lost_sync.is_some())
    }

    pub(crate) fn keeper(&self) -> LayerKeeper<'_> {
        LayerKeeper {
            pool: &self.pool,
            store: &self.store,
            history_bytes: self.settings.layer_history_bytes,
        }
    }
}
