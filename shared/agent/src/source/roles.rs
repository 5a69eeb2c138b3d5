//! Verbs by which a source gives its role away.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use grain::attach::{Overwrite, Reason, Rule, Side, Verdict};
use serde::Deserialize;
use serde_json::{Value, json};
use site::Problem;
use site::amount::{counted, human_bytes};

use super::SourceAgent;
use crate::peer::is_meant;
use crate::problem::{of_replication, refused};

/// What `switchover` is told.
#[derive(Clone, Debug, Deserialize)]
pub struct SwitchoverArguments {
    /// Milliseconds within which the last catch-up has to be done.
    pub limit_ms: u64,
    /// To which, where several are connected: the beginning of its identity or fingerprint.
    #[serde(default)]
    pub peer: Option<String>,
}

/// What `rejoin` is told.
#[derive(Clone, Debug, Deserialize)]
pub struct RejoinArguments {
    /// What this site acknowledged and the other never had is given up.
    pub discard_local: bool,
    /// Where it is put before it is given up.
    #[serde(default)]
    pub keep_overwritten: Option<PathBuf>,
}

impl SourceAgent {
    /// Hands the role to the replica that is connected.
    pub(super) async fn switch_over(
        self: &Rc<Self>,
        arguments: SwitchoverArguments,
    ) -> Result<Value, Problem> {
        let connected: Vec<String> = {
            let links = self.links.borrow();
            let wanted = |id: &str| arguments.peer.as_ref().is_none_or(|by| is_meant(id, by));
            let up = links.iter().filter(|(id, slot)| slot.connected && wanted(id));
            up.map(|(identity, _)| identity.clone()).collect()
        };
        let [identity] = connected.as_slice() else {
            return Err(refused(
                "not-connected",
                format!("a switchover needs one connected replica, there are {}", connected.len()),
            )
            .todo(
                "Look at `status`. Where several are connected, say which: `switchover NAME PEER`. When \
                 the source is gone for good, `promote` the replica.",
            ));
        };
        self.events.note("switchover: writes wait, the replica makes its last catch-up");
        let limit = Duration::from_millis(arguments.limit_ms);
        let journal = self.relationship.dir.journal();
        let outcome = self.source.switchover(identity, limit, &journal).await;
        if let Err(e) = outcome {
            self.events.note(format!("switchover: {e}"));
            return Err(of_replication(&e));
        }
        self.events.note("switchover: this site is a replica now");
        self.role_changed.notify_one();
        Ok(json!({ "role": "replica" }))
    }

    /// Gives way to the other source.
    pub(super) async fn rejoin(
        self: &Rc<Self>,
        arguments: RejoinArguments,
    ) -> Result<Value, Problem> {
        let met = {
            let links = self.links.borrow();
            let mut met = links.iter().filter_map(|(identity, slot)| {
                let verdict = slot.progress.verdict.borrow().clone()?;
                two_sources(&verdict).then(|| (identity.clone(), verdict))
            });
            met.next_back()
        };
        let Some((identity, verdict)) = met else {
            return Err(refused(
                "no-other-source",
                "no other source of this relationship was heard since the start",
            )
            .todo(
                "Wait until both sites have met (`status` shows the rule), or see to the link. When \
                 the other site is a replica, there is nothing to rejoin.",
            ));
        };
        let may_lose = match verdict.overwrite {
            Overwrite::Named { losers, .. } => losers.includes(Side::Mine),
            _ => false,
        };
        let Some(common) = verdict.common.filter(|_| may_lose) else {
            return Err(refused(
                verdict.rule.name(),
                "the other site has no copy that could stand in the place of this one",
            ));
        };
        let local = local_writes(&verdict);
        if local != Some(0) && !arguments.discard_local {
            let grain = self.source.volumes().geometry().grain.bytes();
            let amount = local.map_or("an unknown number of grains".to_owned(), |grains| {
                format!(
                    "{} ({} at most)",
                    counted(grains as usize, "grain"),
                    human_bytes(grains.saturating_mul(grain))
                )
            });
            return Err(refused(
                "local-writes",
                format!(
                    "this site wrote {amount} since the cut {} that the other site never had",
                    common.short()
                ),
            )
            .todo(
                "Look at both sites first. `rejoin NAME --discard-local` gives these writes up, and with \
                 `--keep-overwritten DIR` puts them aside before; or make the other site give way to this \
                 one, by `rejoin` there.",
            ));
        }
        self.events.note(format!("rejoin: this site gives way from the cut {} on", common.short()));
        self.end_links();
        let journal = self.relationship.dir.journal();
        let kept = match &arguments.keep_overwritten {
            Some(dir) => {
                let outcome = self.source.give_way_keeping(&identity, common, &journal, dir).await;
                let path = outcome.map_err(|e| of_replication(&e))?;
                self.events.note(format!("rejoin: what is given up is kept: {}", path.display()));
                Some(path)
            }
            None => {
                let outcome = self.source.give_way(&identity, common, &journal).await;
                outcome.map_err(|e| of_replication(&e))?;
                None
            }
        };
        self.role_changed.notify_one();
        Ok(json!({
            "role": "replica",
            "common": common.to_string(),
            "given_up_grains": local,
            "kept": kept,
        }))
    }

    /// The rule of the last attach with another source.
    pub(super) fn two_sources(&self) -> Option<Rule> {
        let links = self.links.borrow();
        let mut rules = links.values().filter_map(|slot| {
            let verdict = slot.progress.verdict.borrow();
            verdict.as_ref().filter(|v| two_sources(v)).map(|v| v.rule)
        });
        rules.next_back()
    }
}

fn two_sources(verdict: &Verdict) -> bool {
    matches!(verdict.rule, Rule::Promoted | Rule::IdlePromotion | Rule::SplitBrain | Rule::Diverged)
}

/// Grains written here since the common cut; nothing where that cannot be counted.
fn local_writes(verdict: &Verdict) -> Option<u64> {
    let tail = verdict.reasons.iter().find_map(|reason| match reason {
        Reason::Tail(Side::Mine, grains) => Some(*grains),
        _ => None,
    });
    tail.unwrap_or(Some(0))
}
