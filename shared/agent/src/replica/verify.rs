//! The verb `verify` in the daemon of a replica.

use std::rc::Rc;
use std::time::Duration;

use replication::replica::VerifyRequest;
use serde_json::{Value, json};
use site::Problem;
use tokio::task::JoinHandle;

use super::ReplicaAgent;
use crate::problem::refused;
use crate::verified::{VerifiedStatus, VerifyArguments, VerifyProgress, of_verify};

/// How often is looked whether a verification is due, at least.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl ReplicaAgent {
    /// Verifies when that is due, if it was asked for, until it is aborted or the agent is gone. What cannot
    /// be now is tried again later.
    pub(super) fn spawn_verifier(self: &Rc<Self>) -> JoinHandle<()> {
        let every = self.options.verify_every;
        let rate_bytes = self.options.verify_rate_bytes;
        let agent = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let Some(every) = every else { return };
            loop {
                tokio::time::sleep(every.min(LOOK_EVERY)).await;
                let Some(agent) = agent.upgrade() else { return };
                if agent.verify_is_due(every) {
                    let begun = agent.begin_verify(VerifyArguments { rate_bytes, repair: false });
                    if let Err(problem) = begun {
                        tracing::debug!(%problem, "a verification is due, and not possible now");
                    }
                }
            }
        })
    }

    /// Also where the clock was put back behind the newest one.
    fn verify_is_due(&self, every: Duration) -> bool {
        let newest = self.replica.store().with(|s| {
            let proof = s.replica.as_ref().map(|replica| &replica.proof);
            proof.and_then(|proof| proof.verified.as_ref()).map(|verified| verified.unix_ms)
        });
        let age = newest.and_then(|then| self.ctx.unix_ms().checked_sub(then));
        age.is_none_or(|age| Duration::from_millis(age) >= every)
    }

    /// Begins to verify; the answer comes at once.
    pub(super) fn begin_verify(&self, arguments: VerifyArguments) -> Result<Value, Problem> {
        if self.loading.get() {
            return Err(refused("loading", "media are being loaded; verify when they are"));
        }
        let VerifyArguments { rate_bytes, repair } = arguments;
        let begun = self.replica.begin_verify(VerifyRequest { rate_bytes, repair });
        let number = begun.map_err(|e| of_verify(&e))?;
        self.events.note(if repair { "verifies and repairs" } else { "verifies" });
        Ok(json!({ "number": number }))
    }

    /// Ends the verification under way.
    pub(super) fn stop_verify(&self) -> Value {
        let stopped = self.replica.stop_verify();
        if stopped {
            self.events.note("the verification is stopped");
        }
        json!({ "stopped": stopped })
    }

    /// How far the verification is.
    pub(super) fn verify_progress(&self) -> Option<VerifyProgress> {
        let job = self.replica.verify_job()?;
        let geometry = self.replica.volumes().geometry();
        let (result, problem) = match &job.outcome {
            None => (None, None),
            Some(Ok(verified)) => (Some(VerifiedStatus::of(verified, geometry)), None),
            Some(Err(e)) => (None, Some(of_verify(e))),
        };
        Some(VerifyProgress {
            number: job.number,
            doing: job.doing.to_owned(),
            total_grains: job.total_grains,
            done_grains: job.done_grains,
            read_bytes: job.read_bytes,
            problem,
            result,
        })
    }
}
