//! The verb `verify` in the daemon of a source: it asks the replica, which leads.

use std::rc::Rc;

use replication::source::LinkProgress;
use serde_json::{Value, json};
use site::{Exit, Problem};

use super::SourceAgent;
use crate::problem::refused;
use crate::verified::{VerifiedStatus, VerifyArguments, VerifyProgress};

/// The newest verification that was asked for here.
#[derive(Default)]
pub(super) struct VerifySlot {
    number: u32,
    asked: Option<(String, Rc<LinkProgress>)>,
}

impl SourceAgent {
    /// Asks the connected replica to verify; the answer comes at once.
    pub(super) fn begin_verify(&self, arguments: VerifyArguments) -> Result<Value, Problem> {
        if self.verify_progress().is_some_and(|progress| progress.is_running()) {
            return Err(refused("busy", "a verification that was asked for here is under way"));
        }
        let connected: Vec<_> = {
            let links = self.links.borrow();
            let up = links.iter().filter(|(_, slot)| slot.connected);
            up.map(|(peer, slot)| (peer.clone(), slot.progress.clone())).collect()
        };
        let [(peer, progress)] = connected.as_slice() else {
            let what = format!("{} replicas are connected; here one is asked", connected.len());
            return Err(refused("not-connected", what).todo("Run `verify` at the replica."));
        };
        let mut slot = self.verify.borrow_mut();
        slot.number += 1;
        slot.asked = Some((peer.clone(), progress.clone()));
        progress.verify.ask(slot.number, arguments.rate_bytes, arguments.repair);
        self.events.note("the replica is asked to verify");
        Ok(json!({ "number": slot.number }))
    }

    /// Has the replicas that are connected end their verifications.
    pub(super) fn stop_verify(&self) -> Value {
        let links = self.links.borrow();
        let up: Vec<_> = links.values().filter(|slot| slot.connected).collect();
        up.iter().for_each(|slot| slot.progress.verify.stop());
        json!({ "stopped": !up.is_empty() })
    }

    /// How far it is.
    pub(super) fn verify_progress(&self) -> Option<VerifyProgress> {
        let slot = self.verify.borrow();
        let (peer, link) = slot.asked.as_ref()?;
        let links = self.links.borrow();
        let up = links.get(peer).is_some_and(|l| l.connected && Rc::ptr_eq(&l.progress, link));
        let (result, problem) = match link.verify.report(slot.number) {
            Some(Ok(verified)) => {
                let geometry = self.source.volumes().geometry();
                (Some(VerifiedStatus::of(&verified, geometry)), None)
            }
            Some(Err(refusal)) => {
                let what = format!("the replica says: {}", refusal.text);
                (None, Some(refused("replica", what)))
            }
            None if up => (None, None),
            None => {
                let what = "the session ended before the verification did";
                let problem = Problem::new("link", what, Exit::RETRY)
                    .safe("Nothing was overwritten that is not kept at the replica.")
                    .todo("Look at `status`, and try again when the sites are connected.");
                (None, Some(problem))
            }
        };
        Some(VerifyProgress {
            number: slot.number,
            doing: "the replica compares".to_owned(),
            total_grains: link.verify.total_grains.get(),
            done_grains: link.verify.done_grains.get(),
            read_bytes: link.verify.read_bytes.get(),
            problem,
            result,
        })
    }
}
