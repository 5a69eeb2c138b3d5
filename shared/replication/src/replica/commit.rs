//! The commit of a catch-up: from here on the replica is at the new cut, whatever crashes.

use std::rc::Rc;

use bytes::Bytes;
use grain::lineage::{HeldCuts, commit as commit_rule};
use grain::{CutId, GrainSet, Lineage, Run};
use serde::{Deserialize, Serialize};

use super::Replica;
use super::missing::{MissingMap, free};
use crate::map::MapKind;
use crate::state::{ClosedLayer, LayerRef, PullRecord, State};
use crate::{Error, Result};

/// What a commit record carries, so that the state can be brought up to it after a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CommitBody {
    pub(super) lineage: Lineage,
    pub(super) cut: CutId,
    pub(super) unix_ms: u64,
    pub(super) layer: Option<ClosedLayer>,
    /// What the source could not read: missing from the commit on.
    pub(super) unreadable: Vec<Run>,
    /// It ends an epoch of a stream. That brings what was written in the epoch; a catch-up brings
    /// everything that this side lacks.
    #[serde(default)]
    pub(super) streamed: bool,
    /// What people call the cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) label: Option<String>,
}

impl CommitBody {
    pub(super) fn encode(&self) -> Result<Bytes> {
        let text = serde_json::to_vec(self)
            .map_err(|e| Error::State(format!("the commit cannot be written: {e}")))?;
        Ok(text.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<CommitBody> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::corrupt("journal", format!("a commit's body: {e}")))
    }
}

impl Replica {
    /// Commits the catch-up, of which everything has arrived. Gives the cut.
    ///
    /// What the source cannot read is missing from then on. A consistent replica would lose its point in
    /// time by that, and stays where it is unless `accept_unreadable`.
    pub(super) async fn commit_pull(self: &Rc<Self>, accept_unreadable: bool) -> Result<CutId> {
        let (record, left, unreadable) = {
            let pull = self.pull.borrow();
            let pull = pull.as_ref().ok_or_else(|| Error::State("no catch-up".to_owned()))?;
            (pull.record().clone(), pull.remaining_len(), pull.unreadable())
        };
        let left = left - unreadable.len();
        if left > 0 {
            return Err(Error::Peer(format!("{left} grains of the catch-up never arrived")));
        }
        self.may_lack(&unreadable, accept_unreadable).await?;
        let newest = record.sessions.last().copied();
        let newest = newest.ok_or_else(|| Error::State("a catch-up without session".to_owned()))?;
        let grains = self.pull.borrow().as_ref().map_or(0, |p| p.union().len());
        let at = record.union;
        let layer = match record.common {
            None => None,
            Some(common) => commit_rule(&record.lineage, common, newest.cut, grains)
                .ok_or_else(|| Error::Peer("its lineage does not lead to the cut".to_owned()))?
                .layer
                .map(|layer| ClosedLayer { at, name: layer.name, grains }),
        };
        let body = CommitBody {
            lineage: record.lineage.clone(),
            cut: newest.cut,
            unix_ms: record.unix_ms,
            layer,
            unreadable: unreadable.runs().collect(),
            streamed: false,
            label: record.label.clone(),
        };
        // In a task of its own, under the lock that applying takes: whoever drops the session in between
        // (a load that is asked for) must not leave a journal that knows of the commit and a state that
        // does not.
        let (replica, cut) = (self.clone(), newest.cut);
        let committing = tokio::task::spawn_local(async move {
            let _base = replica.base.lock().await;
            replica.make_commit(&record, body).await
        });
        committing.await.map_err(|_| Error::Cancelled)??;
        self.journal_was_full.set(false);
        self.progress.commits.set(self.progress.commits.get() + 1);
        Ok(cut)
    }

    async fn make_commit(self: &Rc<Self>, record: &PullRecord, body: CommitBody) -> Result<()> {
        // Until the lock was free, something may have been applied whose record was damaged.
        let unreadable = body.unreadable.iter().map(|run| run.count).sum::<u64>();
        let left = self.pull.borrow().as_ref().map_or(0, |pull| pull.remaining_len());
        if left > unreadable {
            return Err(Error::State(
                "the journal lost some grains of this catch-up; they are asked for again"
                    .to_owned(),
            ));
        }
        if record.direct {
            // What arrived since the last sync may be lost when this one fails, and is asked for again.
            self.strike_arrived().await?;
            let number = self.store.with(|s| s.replica.as_ref().map_or(0, |r| r.commit_number));
            return self.install_commit(body, number).await;
        }
        // A session of which nothing was put into the journal is not known there.
        let sessions = record.sessions.iter().map(|s| s.session);
        let known: Vec<_> = sessions.filter(|s| self.journal.received(*s).is_some()).collect();
        let number = self.journal.commit(&known, body.cut, body.encode()?).await?;
        self.install_commit(body, number).await
    }

    /// Whether the commit may lack these grains. If not, they are named in the state.
    async fn may_lack(&self, unreadable: &GrainSet, accepted: bool) -> Result<()> {
        if unreadable.is_empty() || accepted || !self.is_consistent() {
            return Ok(());
        }
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.unreadable = unreadable.runs().collect();
                }
            })
            .await?;
        Err(Error::Unreadable(format!(
            "the source cannot read {}; this replica stays consistent at its cut, and keeps what has \
             arrived",
            self.places(unreadable)
        )))
    }

    /// Grains in words: how many, and where the first ones are.
    pub(super) fn places(&self, grains: &GrainSet) -> String {
        let shown: Vec<_> = grains.runs().take(4).map(|run| self.volumes.place(run)).collect();
        let more = if grains.runs().count() > shown.len() { ", ..." } else { "" };
        format!("{} grains ({}{more})", grains.len(), shown.join(", "))
    }

    /// Takes a durable commit over into the state. Idempotent by its number.
    pub(super) async fn install_commit(&self, body: CommitBody, number: u64) -> Result<()> {
        // What was found damaged after both sides had agreed on what moves is missing still.
        let mut lacking = match body.streamed {
            true => GrainSet::new(),
            false => self.damaged_beyond_the_union().await?,
        };
        lacking.extend(body.unreadable.iter().copied());
        let damaged = MissingMap::make(&self.pool, &lacking).await?;
        // From here to the save memory and state change together.
        let pull = self.pull.borrow_mut().take();
        let mut freed: Vec<LayerRef> = Vec::new();
        if !body.streamed {
            freed.extend(self.damaged.put(damaged));
            freed.extend(self.unloaded.forget());
        }
        let (damaged_at, unloaded_at) = (self.damaged.at(), self.unloaded.at());
        self.store.change(|s| {
            let Some(replica) = &mut s.replica else { return };
            if let Some(pull) = replica.pull.take() {
                freed.push(pull.remaining);
                if body.layer.as_ref().is_none_or(|layer| layer.at != pull.union) {
                    freed.push(pull.union);
                }
            }
            replica.damaged = damaged_at;
            replica.unreadable = body.unreadable;
            replica.unloaded = unloaded_at;
            freed.extend(replica.streamed.take().map(|streamed| streamed.layer));
            replica.fuzzy_end = None;
            if let Some(seed) = replica.seed.as_mut().filter(|seed| seed.differs()) {
                // Only a comparison of everything gets here.
                seed.loaded_fingerprint = None;
            }
            if let Some(loser) = replica.loser.take() {
                // Layers of the branch that gave way name cuts that nobody has from here on.
                let old = &s.lineage;
                let past = old.index_of(loser.common);
                let gone = |c: &ClosedLayer| {
                    old.index_of(c.name.to) > past && !body.lineage.contains(c.name.to)
                };
                freed.extend(s.layers.closed.iter().filter(|c| gone(c)).map(|c| c.at));
                s.layers.closed.retain(|c| !gone(c));
            }
            replica.relinquished = false;
            replica.commit_number = number;
            replica.committed_unix_ms = Some(body.unix_ms);
            replica.committed_label = body.label;
            s.lineage = body.lineage;
            if let Some(layer) = body.layer
                && !s.layers.closed.contains(&layer)
            {
                s.layers.closed.push(layer);
            }
        });
        drop(pull);
        self.admit_history();
        *self.parked_grains.borrow_mut() = GrainSet::new();
        self.commit_unsaved.set(true);
        // No file is used again before the record that forgets it is durable. Those that a crash leaves
        // without a name are found at the next start.
        self.store.save().await?;
        self.commit_unsaved.set(false);
        free(&self.store, freed);
        self.note_point().await
    }

    /// Grains that are damaged here and of which the catch-up that is committed brought nothing. After a crash
    /// the state still names its union; where it names none, it brought everything.
    async fn damaged_beyond_the_union(&self) -> Result<GrainSet> {
        let mut damaged = self.damaged.set();
        if damaged.is_empty() {
            return Ok(damaged);
        }
        let known = self.pull.borrow().as_ref().map(|pull| pull.union());
        let at = self.store.with(|s| s.replica.as_ref()?.pull.as_ref().map(|pull| pull.union));
        let union = match (known, at) {
            (Some(union), _) => union,
            (None, Some(at)) => self.pool.read_map(at, MapKind::Layer).await?.set,
            (None, None) => GrainSet::full(self.volumes.geometry()),
        };
        damaged.subtract(&union);
        Ok(damaged)
    }

    /// The source told how far layers are needed.
    pub(super) async fn note_floor(&self, floor: Option<CutId>) -> Result<()> {
        self.store.change(|s| {
            if let Some(replica) = &mut s.replica {
                replica.floor = floor;
            }
        });
        let told = |s: &State| s.replica.as_ref().and_then(|r| r.floor);
        self.keeper().tidy(held, told).await
    }
}

/// Everyone who names a cut of this replica.
fn held(s: &State) -> std::collections::BTreeSet<CutId> {
    let mut held = HeldCuts::new(&s.lineage);
    if let Some(replica) = &s.replica {
        if let Some(streamed) = replica.streamed {
            held.peer_position(streamed.cut);
        }
        if let Some(cut) = replica.fuzzy_end {
            held.fuzzy_end(cut);
        }
        if let Some(cut) = replica.floor {
            held.peer_position(cut);
        }
        if let Some(pull) = &replica.pull {
            for cut in pull.sessions.iter().map(|s| s.cut).chain(pull.common) {
                held.session(cut);
            }
        }
    }
    held.cuts().clone()
}
