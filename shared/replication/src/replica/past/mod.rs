//! What a replica was before: its history, the points that one can go back to, and views of them.
//!
//! Before something that counts is brought into the base, what the base held there goes to the undo log of
//! the journal's crate, and the journal keeps apart what came before and after every commit. So the replica
//! as it was at a commit, or at the moment of a look, is what the undo log has from then on, over what the
//! journal had of the time before, over the base. [`View`] reads it so, while the mirroring goes on.
//!
//! A history that misses something that was overwritten would show a past that never was. So whoever writes
//! the base by another way first ends the history, durably; a record in the state says which one is whole.

mod back;
mod capture;
mod drill;
mod overlay;
mod points;
mod view;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use grain::HistoryId;
use journal::history::{Config, History, Opened};
use tokio::time::Instant;

use super::Replica;
use crate::state::{HistoryRecord, State};
use crate::{Error, Result};

pub use drill::{Drill, DrillCounts, Writable};
pub(super) use points::check_name;
pub use points::{At, PastPoint};
pub use view::{Seen, View};

use view::Looking;

/// After a history had to be given up, the next one is not begun sooner.
const PAUSE: Duration = Duration::from_secs(60);
/// How often it is looked what is too old.
const TRIM_EVERY: Duration = Duration::from_secs(10);
/// Bytes of a segment of the undo log, for a history without limit and for the smallest one.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 256 << 10..=256 << 20;

/// How long one can go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retain {
    /// A history that is there is kept and goes on; none is begun. For processes that only look.
    #[default]
    AsFound,
    /// None is kept.
    Nothing,
    /// At least so long, as far as it takes no more than so many bytes.
    Up {
        /// The most bytes.
        bytes: u64,
        /// How long.
        age: Duration,
    },
}

/// Where the undo log is, and how long one can go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// Its directory. Nothing else may live in it.
    pub dir: PathBuf,
    /// How long.
    pub retain: Retain,
}

impl HistorySettings {
    /// Whether the base has to pass through every commit.
    pub(super) fn keeps_points(&self, found: Option<&HistoryRecord>) -> bool {
        match self.retain {
            Retain::AsFound => found.is_some(),
            Retain::Nothing => false,
            Retain::Up { .. } => true,
        }
    }

    fn config(&self, dir: &Path) -> Config {
        let bytes = match self.retain {
            Retain::Up { bytes, .. } => bytes / 16,
            _ => 0,
        };
        let segment_bytes = bytes.clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end());
        Config { dir: dir.to_owned(), segment_bytes }
    }
}

/// What a replica knows of its past.
#[derive(Default)]
pub(super) struct Past {
    kept: RefCell<Option<Kept>>,
    views: RefCell<Vec<Weak<Looking>>>,
    /// Why the last history ended.
    ended: RefCell<Option<String>>,
    /// The base is written by another way, or about to be.
    barred: Cell<bool>,
    /// When one could not be kept.
    failed: Cell<Option<Instant>>,
    /// The newest commit that was looked at to be a point.
    noted: Cell<Option<u64>>,
    /// When it was last looked what is too old.
    trimmed: Cell<Option<Instant>>,
}

/// A history that misses nothing since it began.
#[derive(Clone)]
struct Kept {
    history: Rc<History>,
    /// Commits from here on are points.
    from: u64,
    /// It outlives this process.
    lasting: bool,
}

/// What the operator sees of the history.
#[derive(Clone, Debug, Default)]
pub struct HistoryStatus {
    /// One is kept, or was begun for a view.
    pub kept: bool,
    /// Points that one can go back to.
    pub points: u64,
    /// When the oldest of them was.
    pub oldest_unix_ms: Option<u64>,
    /// Bytes that the undo log takes.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// Views that are open.
    pub views: u64,
    /// Why there is none although one is wanted, or why the last one ended.
    pub ended: Option<String>,
}

fn record(s: &State) -> Option<HistoryRecord> {
    s.replica.as_ref().and_then(|replica| replica.history.clone())
}

impl Replica {
    fn kept(&self) -> Option<Kept> {
        self.past.kept.borrow().clone()
    }

    /// The undo log, while something that is overwritten has to be kept.
    fn history(&self) -> Option<Rc<History>> {
        self.kept().map(|kept| kept.history)
    }

    /// What the operator sees of the history.
    pub fn history_status(&self) -> HistoryStatus {
        let ended = self.past.ended.borrow().clone();
        let views = self.past.lookers().len() as u64;
        let Some(history) = self.history() else {
            return HistoryStatus { ended, views, ..HistoryStatus::default() };
        };
        let stats = history.stats();
        HistoryStatus {
            kept: true,
            points: stats.points,
            oldest_unix_ms: stats.oldest_point_ms,
            bytes: stats.file_bytes,
            records: stats.records,
            views,
            ended: None,
        }
    }

    /// At a start: goes on with the history that the state names, or ends it. Nothing was brought into the
    /// base yet.
    pub(super) async fn take_up_history(&self) -> Result<()> {
        let Some(found) = self.store.with(record) else { return Ok(()) };
        if self.settings.history.retain == Retain::Nothing {
            return self.end_history("it is not asked for any more (--retain)").await;
        }
        let elsewhere = self.settings.history.dir != found.dir;
        if elsewhere && self.settings.history.retain != Retain::AsFound {
            return self.end_history("it is to be kept in another place (--history-dir)").await;
        }
        let opened = self.open_history(found.id, &found.dir).await;
        let (history, opened) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.end_history(&format!("it does not open: {error}")).await,
        };
        // Withdrawn beyond what is in the base, nothing would be kept for a while.
        let ahead = history.oldest() > self.commit_number();
        if opened.began || opened.unbounded || ahead {
            let why = "what was kept is gone, or so damaged that nobody knows how far";
            drop(history);
            return self.end_history(why).await;
        }
        for damage in &opened.damage {
            tracing::error!(%damage, "the history is damaged: the points before it are withdrawn");
        }
        let kept = Kept { history, from: found.from, lasting: true };
        *self.past.kept.borrow_mut() = Some(kept);
        Ok(())
    }

    async fn open_history(
        &self,
        id: HistoryId,
        dir: &Path,
    ) -> Result<(Rc<History>, Opened), journal::history::Error> {
        let (geometry, config) = (self.volumes.geometry(), self.settings.history.config(dir));
        History::open(&self.ctx, config, geometry, id.to_bytes()).await
    }

    /// Whether what is overwritten is kept for good.
    pub(super) fn keeps_history(&self) -> bool {
        self.kept().is_some_and(|kept| kept.lasting)
    }

    /// Begins a history where one is wanted and there is none; lets go what was kept for views that have
    /// ended. The base is locked by the caller.
    pub(super) async fn tend_history(&self) {
        self.let_idle_go().await;
        let wanted = matches!(self.settings.history.retain, Retain::Up { .. });
        let resting = self.past.failed.get().is_some_and(|at| at.elapsed() < PAUSE);
        if !wanted
            || resting
            || self.past.barred.get()
            || self.kept().is_some()
            || !self.is_consistent()
        {
            return;
        }
        if let Err(error) = self.begin_history(true).await {
            tracing::warn!(%error, "no history can be kept");
            *self.past.ended.borrow_mut() = Some(error.to_string());
            self.past.failed.set(Some(Instant::now()));
        }
    }

    /// Keeps what is overwritten from here on. The base is locked by the caller.
    async fn begin_history(&self, lasting: bool) -> Result<()> {
        let id = HistoryId::from_bytes(self.ctx.random());
        let dir = self.settings.history.dir.clone();
        let (history, _) = self.open_history(id, &dir).await?;
        // What counts now may have been brought into the base in part.
        let moment = self.journal.split();
        let (number, at_cut) = (self.commit_number(), self.position().map(|at| at.sequence));
        let whole = moment.commit == number && at_cut == Some(0);
        let from = if whole { number } else { moment.commit + 1 };
        if lasting {
            let record = HistoryRecord { id, from, dir };
            self.store
                .update(|s| {
                    if let Some(replica) = &mut s.replica {
                        replica.history = Some(record);
                    }
                })
                .await?;
        }
        self.past.ended.borrow_mut().take();
        *self.past.kept.borrow_mut() = Some(Kept { history, from, lasting });
        if lasting { self.note_point().await } else { Ok(()) }
    }

    fn commit_number(&self) -> u64 {
        self.store.with(|s| s.replica.as_ref().map_or(0, |r| r.commit_number))
    }

    /// The history ends, durably, and every view with it: the base is about to be written by another way,
    /// or what was overwritten cannot be kept.
    pub(super) async fn end_history(&self, why: &str) -> Result<()> {
        self.end_views(why);
        let kept = self.past.kept.borrow_mut().take();
        let named = self.store.with(record).is_some();
        if named {
            self.store
                .update(|s| {
                    if let Some(replica) = &mut s.replica {
                        replica.history = None;
                    }
                })
                .await?;
        }
        self.past.noted.set(None);
        if named || kept.is_some() {
            tracing::warn!(why, "the history of this replica ends");
            *self.past.ended.borrow_mut() = Some(why.to_owned());
        }
        if let Some(kept) = kept {
            remove(&kept).await;
        }
        Ok(())
    }

    /// The same, and none is begun before the next commit: until then the base is written by another way.
    pub(super) async fn bar_history(&self, why: &str) -> Result<()> {
        self.past.barred.set(true);
        self.end_history(why).await
    }

    /// A commit: the base and what is committed in the journal are one cut.
    pub(super) fn admit_history(&self) {
        self.past.barred.set(false);
    }

    /// The same because it cannot be kept: the next one is begun after a pause.
    pub(super) async fn give_up_history(&self, why: &str) -> Result<()> {
        self.past.failed.set(Some(Instant::now()));
        self.end_history(why).await
    }

    /// The record that named the history is gone.
    pub(super) async fn forget_history(&self) {
        let kept = self.past.kept.borrow_mut().take();
        if let Some(kept) = kept {
            remove(&kept).await;
        }
    }

    /// A view ended. What was kept for views alone goes with the last one.
    async fn release_view(self: &Rc<Self>) {
        let _base = self.base.lock().await;
        self.let_idle_go().await;
    }

    async fn let_idle_go(&self) {
        let idle = self.past.lookers().is_empty();
        if idle && self.kept().is_some_and(|kept| !kept.lasting) {
            self.forget_history().await;
        }
    }
}

/// Nothing names it any more: what cannot be removed now is removed when the next one is begun.
async fn remove(kept: &Kept) {
    if let Err(error) = kept.history.reset().await {
        tracing::warn!(%error, "what a history leaves behind stays for now");
    }
}

impl From<journal::history::Error> for Error {
    fn from(error: journal::history::Error) -> Error {
        Error::State(format!("the history: {error}"))
    }
}
