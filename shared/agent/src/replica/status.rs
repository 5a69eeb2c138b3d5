//! Status and plan of a replica.

use grain::GrainSet;
use replication::replica::Condition;
use replication::state::{ReplicaState, SeedRecord};
use serde_json::{Value, json};

use super::ReplicaAgent;
use crate::VerifyProgress;
use crate::source::mode_words;
use crate::status::{
    Amount, GenerationStatus, MirrorStatus, PeerStatus, Progress, ProofStatus, SetStatus, Status,
    amount_of, of_state,
};
use crate::verdict::explain;

impl ReplicaAgent {
    fn amount(&self, set: &GrainSet) -> Amount {
        amount_of(set, self.replica.volumes().geometry())
    }

    /// The status.
    pub fn status(&self) -> Status {
        let mut status = self.replica.store().with(of_state);
        let replica = self.replica.store().with(|s| s.replica.clone()).unwrap_or_default();
        let condition = self.replica.condition();
        status.running = true;
        status.unix_ms = self.ctx.unix_ms();
        status.state = condition.name().to_owned();
        status.explanation = explanation(condition, &replica).to_owned();
        if let Some(difference) = status.verified.as_ref().and_then(|v| v.difference()) {
            status.explanation.push_str(&format!("; but a verification found that {difference}"));
        }
        let dirty = self.replica.progress().source_dirty_bytes.get();
        let grain = self.replica.volumes().geometry().grain.bytes();
        status.dirty = Amount { grains: dirty.div_ceil(grain), bytes: dirty };
        status.damaged = self.amount(&self.replica.damaged());
        status.not_loaded = self.amount(&self.replica.unloaded());
        status.note_unreadable(&self.replica.unreadable(), self.replica.volumes().geometry());
        status.peers = vec![self.peer(&replica)];
        status.sets = replica.seed.iter().map(|seed| self.seed(seed, &replica)).collect();
        let total = self.replica.volumes().geometry().total_grains().max(1);
        let proven = replica.proof.digest_grains.min(total);
        status.proof = Some(ProofStatus {
            share: proven as f64 / total as f64,
            samples: replica.proof.samples,
            unix_ms: replica.proof.unix_ms,
        });
        status.generation = replica.generation.map(|taken| GenerationStatus {
            cut: taken.cut.to_string(),
            unix_ms: taken.unix_ms,
            fingerprint: taken.fingerprint.to_string(),
        });
        status.past = self.past();
        status.job = self.load_status();
        status.verifying = self.verify_progress().filter(VerifyProgress::is_running);
        status.events = self.events.all();
        status
    }

    fn seed(&self, seed: &SeedRecord, replica: &ReplicaState) -> SetStatus {
        let whole = replica.unloaded.is_none() || self.replica.unloaded().is_empty();
        SetStatus {
            set: seed.set.to_string(),
            cut: seed.cut.to_string(),
            stage: if whole { "loaded" } else { "loading" }.to_owned(),
            media: (1..=seed.media)
                .map(|n| {
                    let word = if seed.loaded.contains(&n) { "loaded" } else { "not loaded yet" };
                    format!("medium {n} of {}: {word}", seed.media)
                })
                .collect(),
            fuzzy: replica.fuzzy_end.is_some(),
            bytes: 0,
            unreadable_grains: 0,
            unix_ms: 0,
            fingerprint: Some(seed.fingerprint.to_string()),
            loaded_fingerprint: seed.loaded_fingerprint.map(|f| f.to_string()),
        }
    }

    fn peer(&self, replica: &ReplicaState) -> PeerStatus {
        let progress = self.replica.progress();
        let catch_up = Progress {
            total_grains: progress.total_grains.get(),
            done_grains: progress.received_grains.get(),
            bytes: progress.received_bytes.get(),
        };
        let fingerprint = replica.source.parse::<wire::Identity>();
        let connected = self.connected.borrow().clone();
        let stream = self.replica.stream_view();
        PeerStatus {
            identity: replica.source.clone(),
            fingerprint: fingerprint.map(|i| i.fingerprint()).unwrap_or_default(),
            connected: connected.is_some(),
            remote: connected.or_else(|| replica.addresses.first().cloned()),
            acknowledged: None,
            dirty: None,
            alone_since_unix_ms: None,
            rule: self.verdict.borrow().as_ref().map(|v| v.rule.to_string()),
            last_error: self.last_error.borrow().as_ref().map(|p| p.what.clone()),
            link_bytes: progress.received_bytes.get(),
            wire: self.meter.borrow().as_ref().map(|meter| meter.counters().into()),
            forecast: None,
            catch_up: (catch_up.total_grains > 0).then_some(catch_up),
            mode: stream.mode.get().map(mode_words),
            mirror: stream.mode.get().filter(|mode| mode.streams()).map(|_| MirrorStatus {
                mirroring: stream.streaming.get(),
                backlog_bytes: stream.behind_bytes.get(),
                writes: stream.writes.get(),
                ..MirrorStatus::default()
            }),
            verified: None,
        }
    }

    /// The last verdict in words, with what this side lacks.
    pub fn plan(&self) -> Value {
        let status = self.status();
        let verdict = self.verdict.borrow();
        let words = verdict.as_ref().map(|v| explain(v, self.replica.volumes().geometry()));
        json!({
            "state": status.state,
            "verdict": words,
            "rule": verdict.as_ref().map(|v| v.rule.name()),
            "estimated_grains": verdict.as_ref().and_then(|v| v.estimated_grains),
            "damaged": status.damaged,
            "not_loaded": status.not_loaded,
            "source_dirty": status.dirty,
        })
    }
}

fn explanation(condition: Condition, replica: &ReplicaState) -> &'static str {
    match condition {
        Condition::Empty => "nothing was loaded yet: load a media set, or compare with the source",
        Condition::Loading => "waits for media that were not loaded yet",
        Condition::Inconsistent if replica.seed.as_ref().is_some_and(SeedRecord::differs) => {
            "what was loaded reads back as something else than the source signed: see to the disk, \
             then `serve --compare`"
        }
        Condition::Inconsistent if replica.fuzzy_end.is_some() => {
            "a fuzzy seed: a usable image only after the first catch-up"
        }
        Condition::Inconsistent if !replica.unreadable.is_empty() => {
            "the source cannot read some grains, which are missing here until it can or they are \
             written anew"
        }
        Condition::Consistent if !replica.unreadable.is_empty() => {
            "exactly the source at the cut shown, and not further: the source cannot read some grains; \
             `serve --accept-unreadable` goes on without them"
        }
        Condition::Inconsistent => "no usable point in time until the catch-up is committed",
        Condition::Consistent => "exactly the source at the cut shown",
        Condition::Current => "in step with the source",
    }
}
