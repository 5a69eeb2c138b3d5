//! Status and plan of a source.

use grain::GrainSet;
use replication::state::{SetStage, State};
use tokio::time::Instant;

use super::SourceAgent;
use super::mode::{mirror, words};
use crate::status::{
    Amount, LayerStatus, PeerStatus, Plan, PlanStep, Progress, SetStatus, Status, amount_of,
    of_state,
};
use crate::{VerifiedStatus, VerifyProgress};

impl SourceAgent {
    fn amount(&self, set: &GrainSet) -> Amount {
        amount_of(set, self.source.volumes().geometry())
    }

    /// The status.
    pub fn status(&self) -> Status {
        let mut status = self.source.store().with(of_state);
        status.running = true;
        status.unix_ms = self.ctx.unix_ms();
        status.dirty = self.amount(&self.source.dirty());
        status.suspected = self.amount(&self.source.suspected());
        status.crash_excess_bytes = self.source.crash_excess_bytes();
        (status.backlog_bytes, status.backlog_lost_bytes) = self.source.backlog_bytes();
        status.longest_pause_us = self.source.longest_pause_us();
        status.peers = self.source.store().with(|s| self.peers(s, status.dirty));
        status.sets = self.source.store().with(sets);
        let open = self.source.open_layer().len();
        self.source.store().with(|s| {
            if let Some(head) = s.lineage.head() {
                status.layers.push(LayerStatus {
                    from: head.id.to_string(),
                    to: None,
                    grains: open,
                    kept_for: "what is written now".to_owned(),
                });
            }
        });
        let mut unreadable = GrainSet::new();
        for slot in self.links.borrow().values() {
            unreadable.union_with(&slot.progress.unreadable.borrow());
        }
        status.note_unreadable(&unreadable, self.source.volumes().geometry());
        status.job = self.dump_status();
        status.verifying = self.verify_progress().filter(VerifyProgress::is_running);
        status.events = self.events.all();
        let (state, explanation) = self.state_words(&status);
        status.state = state.to_owned();
        status.explanation = explanation;
        status
    }

    fn state_words(&self, status: &Status) -> (&'static str, String) {
        if let Some(why) = self.source.store().with(|s| s.suspect.clone()) {
            let words = format!(
                "{why}. Nothing is sent to a replica until the operator says which side is right"
            );
            return ("suspect", words);
        }
        if self.waits_for_peer.get() {
            let words = "the last run did not end in good order, and `--require-peer at-start` was given: the volumes \
                         are offered once the peer has said that it follows; without the flag, at once";
            return ("waiting", words.to_owned());
        }
        if self.source.is_fenced() {
            let words = "the other site was promoted, and nothing was acknowledged here without it: no \
                         write is taken. `rejoin` makes this site its replica";
            return ("fenced", words.to_owned());
        }
        if let Some(rule) = self.two_sources() {
            return (
                "alone",
                format!(
                    "the other site is a source, too (rule `{rule}`): nothing moves until one of them \
                     gives way by `rejoin`"
                ),
            );
        }
        let mirrored = |p: &PeerStatus| p.mirror.as_ref().is_some_and(|m| m.mirroring);
        if !status.peers.is_empty() && status.peers.iter().all(mirrored) {
            let words =
                "every write goes to the peer in order; what it has not confirmed is shown with it";
            return ("mirroring", words.to_owned());
        }
        let catching_up =
            |p: &PeerStatus| p.catch_up.is_some_and(|c| c.done_grains < c.total_grains);
        if status.peers.iter().any(|p| p.connected && catching_up(p)) {
            return ("catching-up", "a replica is pulling what changed".to_owned());
        }
        if status.peers.iter().any(|p| p.connected) {
            let why = status.peers.iter().filter_map(|p| p.mirror.as_ref()?.ended.clone()).next();
            let words = match why {
                Some(why) => {
                    format!("a replica follows in catch-ups until writes stream again ({why})")
                }
                None => "a replica is connected and follows in cycles".to_owned(),
            };
            return ("behind", words);
        }
        ("alone", "no replica is connected; every change is recorded for it".to_owned())
    }

    fn peers(&self, s: &State, dirty: Amount) -> Vec<PeerStatus> {
        let links = self.links.borrow();
        let grain = s.geometry.grain.bytes();
        let one = |peer: &replication::state::Peer| {
            let slot = links.get(&peer.identity);
            let progress = slot.map(|slot| slot.progress.clone()).unwrap_or_default();
            let fingerprint = peer.identity.parse::<wire::Identity>();
            let catch_up = Progress {
                total_grains: progress.total_grains.get(),
                done_grains: progress.sent_grains.get(),
                bytes: progress.sent_bytes.get(),
            };
            let dirty = match s.peers.len() {
                1 => dirty,
                _ => self.amount(&self.source.dirty_of(&peer.identity)),
            };
            let forecast = slot.filter(|slot| slot.connected).and_then(|slot| {
                // What waits in this machine was sent, but not carried.
                let waiting = slot.meter.as_ref().map_or(0, |meter| meter.waiting_bytes());
                let sent = (catch_up.done_grains * grain).saturating_sub(waiting);
                let ends = catch_up.done_grains >= catch_up.total_grains && waiting < grain;
                let mut forecast = slot.forecast.borrow_mut();
                if !ends {
                    let carried = catch_up.bytes.saturating_sub(waiting);
                    forecast.note(Instant::now(), dirty.bytes.saturating_sub(sent), carried);
                }
                forecast.say().filter(|_| !ends)
            });
            PeerStatus {
                identity: peer.identity.clone(),
                fingerprint: fingerprint.map(|i| i.fingerprint()).unwrap_or_default(),
                connected: slot.is_some_and(|slot| slot.connected),
                remote: slot.and_then(|slot| slot.remote.clone()),
                acknowledged: peer.acked.map(|cut| cut.to_string()),
                dirty: Some(dirty),
                alone_since_unix_ms: peer.alone.as_ref().map(|mark| mark.unix_ms),
                rule: progress.verdict.borrow().as_ref().map(|v| v.rule.to_string()),
                last_error: slot.and_then(|slot| slot.last_error.clone()),
                link_bytes: progress.sent_bytes.get(),
                wire: slot.and_then(|slot| Some(slot.meter.as_ref()?.counters().into())),
                forecast,
                catch_up: (catch_up.total_grains > 0).then_some(catch_up),
                mode: Some(words(peer.mode)),
                mirror: mirror(peer.mode, slot.is_some_and(|slot| slot.connected), &progress),
                verified: peer.verified.as_ref().map(|v| VerifiedStatus::of(v, &s.geometry)),
            }
        };
        s.peers.iter().map(one).collect()
    }

    /// What the next attach of each peer will move, as far as this side can tell.
    pub(super) fn plan(&self) -> Plan {
        plan_of(&self.status())
    }
}

/// The plan that follows from a status.
pub fn plan_of(status: &Status) -> Plan {
    let step = |peer: &PeerStatus| PlanStep {
        peer: peer.fingerprint.clone(),
        rule: peer.rule.clone(),
        means: match (&peer.acknowledged, status.sets.iter().any(|s| s.stage == "finished")) {
            (Some(_), _) => "delta since the cut that it acknowledged".to_owned(),
            (None, true) => "delta since the cut of the media set that it loads".to_owned(),
            (None, false) => {
                "nothing by itself: it needs a media set (`dump`), or `--compare`".to_owned()
            }
        },
        amount: peer.dirty.unwrap_or(status.dirty),
        compared_first: status.suspected,
    };
    Plan { steps: status.peers.iter().map(step).collect() }
}

fn sets(s: &State) -> Vec<SetStatus> {
    let one = |set: &replication::state::SetRecord| SetStatus {
        set: set.id.to_string(),
        cut: set.cut.to_string(),
        stage: match set.stage {
            SetStage::Writing => "writing",
            SetStage::Finished => "finished",
            SetStage::Cancelled => "cancelled",
        }
        .to_owned(),
        media: set.media.iter().map(|p| p.display().to_string()).collect(),
        fuzzy: set.end.is_some(),
        bytes: set.media_bytes,
        unreadable_grains: set.unreadable_grains,
        unix_ms: set.unix_ms,
        fingerprint: set.fingerprint.map(|f| f.to_string()),
        loaded_fingerprint: None,
    };
    s.sets.iter().map(one).collect()
}
