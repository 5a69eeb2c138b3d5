//! Verification: digests of everything that this replica holds, compared with the source at the cut that
//! both have, while catch-ups go on.
//!
//! What differs is looked at a second time after a further catch-up, and only what differs then, too, is
//! reported. Nothing is written but what was found, and where: a repair is the operator's word. It first
//! keeps what the replica holds aside, then has the next catch-up bring the source's bytes, which count with
//! its commit like all others.
//!
//! It ends with the session that it began in.

mod desk;
mod examination;

use std::cell::{Cell, RefCell};

use grain::GrainSet;
use tokio::sync::Notify;

use super::Replica;
use crate::state::Verified;
use crate::{Error, Result};

pub(super) use desk::Desk;

/// What is asked of a verification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyRequest {
    /// Bytes a second read here at most; 0 for no limit.
    pub rate_bytes: u64,
    /// What differs is pulled from the source.
    pub repair: bool,
}

/// The verification under way, or the last one of this run.
#[derive(Clone, Debug)]
pub struct VerifyJob {
    /// Counts up.
    pub number: u32,
    /// What it does now, in words.
    pub doing: &'static str,
    /// Grains of what it does now.
    pub total_grains: u64,
    /// Of them, those that were answered.
    pub done_grains: u64,
    /// Bytes read here.
    pub read_bytes: u64,
    /// What came of it.
    pub outcome: Option<Result<Verified>>,
}

/// What a replica knows of verifications.
#[derive(Default)]
pub(super) struct Verification {
    /// A session is there to ask.
    attended: Cell<bool>,
    /// What the desk is to begin, and the source's number if its operator asked.
    admitted: RefCell<Option<(VerifyRequest, Option<u32>)>>,
    begin: Notify,
    /// No more is wanted of the one under way.
    stopping: Cell<bool>,
    stop: Notify,
    job: RefCell<Option<VerifyJob>>,
    ended: Notify,
    passes: Cell<u32>,
    rounds: Rounds,
    /// Grains that the next catch-up brings again: a repair.
    again: RefCell<GrainSet>,
}

/// Catch-ups of the session: begun, done, wanted.
#[derive(Default)]
struct Rounds {
    begun: Cell<u64>,
    done: Cell<u64>,
    news: Notify,
    wanted: Notify,
}

impl Verification {
    /// A catch-up begins: what it asks for is settled now.
    pub(super) fn round_begins(&self) {
        self.rounds.begun.set(self.rounds.begun.get() + 1);
    }

    /// It has come to its end, and is in the base.
    pub(super) fn round_done(&self) {
        self.rounds.done.set(self.rounds.begun.get());
        self.rounds.news.notify_waiters();
    }

    /// Waits until a catch-up is wanted before its time.
    pub(super) async fn round_wanted(&self) {
        self.rounds.wanted.notified().await;
    }

    /// What the next catch-up has to bring again.
    pub(super) fn again(&self) -> GrainSet {
        self.again.borrow().clone()
    }

    async fn stopped(&self) {
        while !self.stopping.get() {
            self.stop.notified().await;
        }
    }

    fn is_running(&self) -> bool {
        self.job.borrow().as_ref().is_some_and(|job| job.outcome.is_none())
    }

    fn end(&self, outcome: Result<Verified>) {
        self.again.borrow_mut().clear();
        if let Some(job) = self.job.borrow_mut().as_mut().filter(|job| job.outcome.is_none()) {
            job.outcome = Some(outcome);
        }
        self.ended.notify_waiters();
    }

    fn progress(&self, change: impl FnOnce(&mut VerifyJob)) {
        if let Some(job) = self.job.borrow_mut().as_mut() {
            change(job);
        }
    }
}

impl Replica {
    /// Begins to verify, in the present session. Gives its number; [`Replica::verify_job`] shows how far it
    /// is and what came of it.
    ///
    /// # Errors
    /// [`Error::State`] where it cannot begin now: nothing was changed.
    pub fn begin_verify(&self, request: VerifyRequest) -> Result<u32> {
        self.admit_verify(request, None)
    }

    /// Verifies, and waits for what comes of it.
    ///
    /// # Errors
    /// As [`Replica::begin_verify`]; [`Error::Link`] when the session ends before the verification does.
    pub async fn verify(&self, request: VerifyRequest) -> Result<Verified> {
        let number = self.begin_verify(request)?;
        loop {
            let ended = self.verification.ended.notified();
            let job = self.verify_job().filter(|job| job.number == number);
            match job.map(|job| job.outcome) {
                Some(Some(outcome)) => return outcome,
                Some(None) => ended.await,
                None => return Err(Error::Cancelled),
            }
        }
    }

    /// The verification under way, or the last one of this run.
    pub fn verify_job(&self) -> Option<VerifyJob> {
        self.verification.job.borrow().clone()
    }

    /// Ends the verification under way: what it found so far is forgotten. False when there is none.
    pub fn stop_verify(&self) -> bool {
        let running = self.verification.is_running();
        if running {
            self.verification.stopping.set(true);
            self.verification.stop.notify_one();
        }
        running
    }

    fn admit_verify(&self, request: VerifyRequest, asked: Option<u32>) -> Result<u32> {
        let refused = |text: &str| Err(Error::State(text.to_owned()));
        let verification = &self.verification;
        if verification.is_running() {
            return refused("a verification is under way here already");
        }
        if !self.unloaded.is_empty() {
            return refused("media are still to be loaded: verify when the replica is in step");
        }
        if !verification.attended.get() {
            return refused("the source is not connected, and there is nothing to compare with");
        }
        if !self.in_step.get() {
            return refused("a catch-up is under way: verify when the replica is in step");
        }
        let number = verification.job.borrow().as_ref().map_or(1, |job| job.number + 1);
        *verification.job.borrow_mut() = Some(VerifyJob {
            number,
            doing: "begins",
            total_grains: 0,
            done_grains: 0,
            read_bytes: 0,
            outcome: None,
        });
        *verification.admitted.borrow_mut() = Some((request, asked));
        verification.stopping.set(false);
        verification.begin.notify_one();
        Ok(number)
    }

    /// Everything was compared by other means, and what differed was pulled: what a verification found
    /// before says nothing any more.
    pub(super) fn forget_verified(&self) {
        self.store.change(|s| {
            if let Some(replica) = &mut s.replica {
                replica.proof.verified = None;
            }
        });
    }
}
