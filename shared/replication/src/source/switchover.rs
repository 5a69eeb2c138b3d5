//! Switchover: the role goes to a replica in step, planned, with nothing lost.
//!
//! From the asking on no write is let in (those who wait go on waiting, for a stated time). The replica is
//! told, makes its last catch-up, and when its commit is acknowledged and nothing was written since, the
//! one record is saved by which this site gives way: that record is the commit of the switchover. Before
//! it the old roles hold, after it the new ones. The replica hears of it over the same link; if that
//! breaks, at the next attach.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use grain::CutId;
use tokio::sync::Notify;

use super::Source;
use crate::{Error, Result};

/// A switchover under way.
pub(super) struct Switchover {
    /// Who gets the role.
    identity: String,
    journal: PathBuf,
    stage: Cell<Stage>,
    changed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The last catch-up is waited for.
    Asked,
    /// The record is being saved.
    Deciding,
    Done,
    Failed,
}

impl Source {
    /// Hands the role to the replica with `identity`, which has to be connected and in step but for
    /// what a last catch-up brings within `limit`. On return the record is durable: this site is to be
    /// started as a replica. `journal` is where its journal will be.
    ///
    /// # Errors
    /// [`Error::State`] when it could not be done within the limit: writes go on as before. Others when
    /// the disk fails while the record is saved: then the next start says which role this site has.
    pub async fn switchover(
        self: &Rc<Self>,
        identity: &str,
        limit: Duration,
        journal: &Path,
    ) -> Result<()> {
        if self.dumping.get() {
            return Err(Error::State("a dump runs; let it finish or cancel it".to_owned()));
        }
        let asked = Rc::new(Switchover {
            identity: identity.to_owned(),
            journal: journal.to_owned(),
            stage: Cell::new(Stage::Asked),
            changed: Notify::new(),
        });
        if self.switchover.borrow().is_some() {
            return Err(Error::State("a switchover is under way already".to_owned()));
        }
        *self.switchover.borrow_mut() = Some(asked.clone());
        self.pace.hurry(true);
        let _ends = Ends(self.clone());
        self.switchover_asked.notify_waiters();
        tokio::select! {
            biased;
            () = asked.over() => {}
            () = tokio::time::sleep(limit) => {}
        }
        // What has begun to be decided is waited for: it has one outcome.
        if asked.stage.get() == Stage::Deciding {
            asked.over().await;
        }
        match asked.stage.get() {
            Stage::Done => Ok(()),
            Stage::Failed => Err(Error::State(
                "the record of the switchover could not be saved: the next start says which role \
                 this site has"
                    .to_owned(),
            )),
            _ => Err(Error::State(format!(
                "the replica did not finish its last catch-up within {} s; the roles are as before, \
                 writes go on",
                limit.as_secs()
            ))),
        }
    }

    /// The switchover that this peer takes part in.
    pub(super) fn switchover_to(&self, identity: &str) -> Option<Rc<Switchover>> {
        let asked = self.switchover.borrow();
        asked.as_ref().filter(|asked| asked.identity == identity).cloned()
    }

    /// Writes wait here while a switchover is under way.
    pub(super) async fn role_is_settled(&self) {
        loop {
            let over = self.switchover_over.notified();
            if self.switchover.borrow().is_none() {
                return;
            }
            over.await;
        }
    }

    /// The peer has committed `cut`. If nothing was written since, this decides the switchover.
    pub(super) async fn decide_switchover(
        self: &Rc<Self>,
        asked: &Rc<Switchover>,
        cut: CutId,
    ) -> Result<bool> {
        let quiet = self.head() == Some(cut) && self.open_layer().is_empty();
        if asked.stage.get() != Stage::Asked || !quiet || self.gate.inside() > 0 {
            return Ok(false);
        }
        asked.stage.set(Stage::Deciding);
        // In a task of its own: a link that breaks now does not leave it half decided.
        let (source, deciding) = (self.clone(), asked.clone());
        let task = tokio::task::spawn_local(async move {
            let decided = source.relinquish(&deciding.identity, cut, &deciding.journal).await;
            deciding.stage.set(if decided.is_ok() { Stage::Done } else { Stage::Failed });
            deciding.changed.notify_waiters();
            decided
        });
        task.await.map_err(|_| Error::Cancelled)??;
        Ok(true)
    }
}

impl Switchover {
    async fn over(&self) {
        loop {
            let changed = self.changed.notified();
            if matches!(self.stage.get(), Stage::Done | Stage::Failed) {
                return;
            }
            changed.await;
        }
    }
}

/// Lets those who wait go on, however the switchover ended.
struct Ends(Rc<Source>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.pace.hurry(false);
        self.0.switchover.borrow_mut().take();
        self.0.switchover_over.notify_waiters();
    }
}
