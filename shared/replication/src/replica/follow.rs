//! One session with the source, from the replica's side: attach, samples, catch-ups until in step,
//! then cycles.

mod sampling;
mod streaming;

use std::rc::Rc;
use std::time::Duration;

use grain::attach::{Means, Overwrite, Role, Rule, Side, Verdict};
use grain::lineage::{Holding, layers_used};
use grain::{CutId, CutReason, GrainSet, Layer};

use super::Replica;
use super::gather::Gather;
use super::pull::Announced;
use super::verify::Desk;
use crate::protocol::{
    Attached, Connection, Inbox, Message, SetInbox, SetName, Want, answer_as_replica, asked,
    attach, body, send_set, unexpected,
};
use crate::source::plain;
use crate::state::Mode;
use crate::{Error, Result};

/// How to follow.
#[derive(Clone, Debug)]
pub struct FollowSettings {
    /// Return when in step.
    pub once: bool,
    /// Compare digests of all grains first.
    pub compare: bool,
    /// A consistent replica goes on without what the source cannot read, and is inconsistent until it
    /// can.
    pub accept_unreadable: bool,
    /// Pull what is on media that were not loaded yet.
    pub pull_unloaded: bool,
    /// Time between cycles once in step.
    pub interval: Duration,
    /// Time between fingerprints of commits while following.
    pub fingerprint_every: Duration,
    /// Samples compared at the first attach after a start or load.
    pub samples: u32,
    /// Bytes written at the source since the last commit that still count as in step.
    pub in_step_bytes: u64,
    /// Catch-ups tried one after the other before the write rate at the source is too high.
    pub max_rounds: u32,
}

impl Default for FollowSettings {
    fn default() -> Self {
        FollowSettings {
            once: false,
            compare: false,
            pull_unloaded: false,
            accept_unreadable: false,
            interval: Duration::from_secs(10),
            fingerprint_every: Duration::from_secs(3600),
            samples: 1000,
            in_step_bytes: 16 << 20,
            max_rounds: 64,
        }
    }
}

/// How following ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowEnd {
    /// In step at this cut, as asked by `once`.
    InStep(CutId),
    /// The source has handed its role to this site, which holds this cut: it is to be promoted.
    Relinquished(CutId),
}

/// Follows the source over one connection. Comes back with an error when the link ends or the attach
/// is refused; what has arrived stays useful either way.
pub async fn follow(
    replica: &Rc<Replica>,
    connection: Connection,
    mut inbox: Inbox,
    settings: &FollowSettings,
    shown: impl Fn(&Verdict),
) -> Result<FollowEnd> {
    let Ok(_one) = replica.following.try_lock() else {
        return Err(Error::State("this replica follows a source already".to_owned()));
    };
    replica.in_step.set(false);
    // Those whose session was dropped in the middle.
    replica.storing.over().await;
    replica.park_stream().await?;
    replica.apply().await?;
    let outcome = converse(replica, &connection, &mut inbox, settings, shown).await;
    match &outcome {
        Err(Error::Peer(text)) => {
            connection.refuse("protocol", text).await;
            replica.distrust_pull().await?;
        }
        Err(Error::State(text)) => connection.refuse("state", text).await,
        Err(Error::Unreadable(text)) => connection.refuse("unreadable", text).await,
        _ => connection.close(),
    }
    replica.in_step.set(false);
    // Whatever ended it: what has arrived is made durable, to be carried over.
    replica.park_stream().await?;
    replica.suspend_pull().await?;
    outcome
}

/// Attaches only to hear the verdict. Nothing moves, and no session of another ends.
pub async fn ask(
    replica: &Rc<Replica>,
    connection: Connection,
    mut inbox: Inbox,
) -> Result<Verdict> {
    let attached = attach_answering(replica, &connection, &mut inbox).await;
    connection.close();
    Ok(attached?.verdict)
}

/// Attaches, and answers what the verdict asks.
async fn attach_answering(
    replica: &Rc<Replica>,
    connection: &Connection,
    inbox: &mut Inbox,
) -> Result<Attached> {
    let mine = replica.facts();
    let mut attached = attach(connection, inbox, &mine).await?;
    if let Some(position) = asked(&attached.verdict, Side::Mine) {
        let (theirs, streamed) = (&mut attached.theirs, replica.streamed_grains());
        attached.verdict =
            answer_as_replica(connection, inbox, &mine, theirs, position, &streamed).await?;
    }
    Ok(attached)
}

async fn converse(
    replica: &Rc<Replica>,
    connection: &Connection,
    inbox: &mut Inbox,
    settings: &FollowSettings,
    shown: impl Fn(&Verdict),
) -> Result<FollowEnd> {
    let Attached { theirs, verdict } = attach_answering(replica, connection, inbox).await?;
    shown(&verdict);
    let connection = connection.clone();
    let mut session = Following { replica, connection, settings, theirs, verdict };
    if let Some(cut) = session.was_relinquished() {
        return Ok(FollowEnd::Relinquished(cut));
    }
    let want = match session.admissible() {
        Ok(want) => want,
        Err(e) => {
            // The source learns which rule it was, too.
            if let Error::Refused { rule, detail } = &e {
                session.connection.refuse(rule, detail).await;
            }
            return Err(e);
        }
    };
    let mut desk = Desk::open(replica, &session.connection, inbox);
    let outcome = session.run(want, inbox).await;
    desk.broken().map_or(outcome, Err)
}

struct Following<'a> {
    replica: &'a Rc<Replica>,
    connection: Connection,
    settings: &'a FollowSettings,
    theirs: grain::attach::Facts,
    verdict: Verdict,
}

/// The answer to what was asked. The word of a switchover may have crossed the question; the catch-up that it
/// asks for is under way then, or it is said again.
async fn answer(inbox: &mut Inbox) -> Result<(Message, bytes::Bytes)> {
    loop {
        match inbox.next().await? {
            (Message::Handover | Message::Hurry, _) => {}
            other => return Ok(other),
        }
    }
}

/// What the source said after a commit.
enum Settled {
    /// It goes on as the source.
    Goes { cut: CutId, remaining_bytes: u64, mode: Mode },
    /// It has given up its role.
    Relinquished(CutId),
}

impl Following<'_> {
    async fn run(&mut self, mut want: Want, inbox: &mut Inbox) -> Result<FollowEnd> {
        if want == Want::Delta && (self.replica.check_due.get() || self.source_was_started()) {
            self.check(inbox).await?;
        }
        let mut rounds = 0;
        loop {
            let (cut, remaining_bytes, mode) = match self.round(want, inbox).await? {
                Settled::Goes { cut, remaining_bytes, mode } => (cut, remaining_bytes, mode),
                Settled::Relinquished(cut) => return Ok(FollowEnd::Relinquished(cut)),
            };
            if want == Want::Compare {
                self.replica.forget_verified();
            }
            self.replica.verification.round_done();
            want = Want::Delta;
            rounds += 1;
            let in_step = remaining_bytes <= self.settings.in_step_bytes
                && self.replica.lacks_only_unreadable();
            self.replica.in_step.set(in_step);
            if in_step {
                self.take_generation().await;
            }
            if in_step && self.settings.once {
                self.whole()?;
                return Ok(FollowEnd::InStep(cut));
            }
            if mode.streams() && self.streams(cut, in_step, inbox).await? {
                // It streamed for a while, and has to catch up with what came after.
                rounds = 0;
            } else if in_step {
                rounds = 0;
                self.pause(mode, inbox).await?;
            } else if rounds >= self.settings.max_rounds {
                return Err(Error::Link(format!(
                    "after {rounds} catch-ups {} bytes are still to come: the source is written \
                     faster than the link carries",
                    remaining_bytes
                )));
            }
        }
    }

    /// Whether nothing is missing that the source could not read.
    fn whole(&self) -> Result<()> {
        let missing = self.replica.unreadable();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::Unreadable(format!(
            "everything has arrived but what the source cannot read: {}",
            self.replica.places(&missing)
        )))
    }

    /// In step, and so with time for it: the fingerprint of the commit, at once or at intervals. That
    /// it cannot be had ends nothing.
    async fn take_generation(&self) {
        let now = tokio::time::Instant::now();
        let taken = self.replica.generation_taken.get();
        let due = taken.is_none_or(|at| now - at >= self.settings.fingerprint_every);
        if !self.settings.once && !due {
            return;
        }
        self.replica.generation_taken.set(Some(now));
        if let Err(error) = self.replica.take_generation().await {
            tracing::warn!(%error, "no fingerprint of this commit");
        }
    }

    /// The other site has given its role to this one, which holds all of it, and the word got lost: the
    /// cut at which this site stands.
    fn was_relinquished(&self) -> Option<CutId> {
        let head = self.replica.head()?;
        let handed = self.verdict.rule == Rule::NoSource
            && self.theirs.relinquished
            && self.replica.is_consistent();
        // The giving way made a cut of its own, with nothing before it.
        let mut theirs = self.theirs.lineage.cuts().iter().rev();
        let at = theirs.find(|cut| cut.reason != CutReason::Handover)?;
        (handed && at.id == head).then_some(head)
    }

    /// Whether the verdict lets this side pull, and what.
    fn admissible(&self) -> Result<Want> {
        let refused =
            |detail: String| Err(Error::Refused { rule: self.verdict.rule.to_string(), detail });
        if self.theirs.role != Role::Source {
            return refused("the other site is no source".to_owned());
        }
        let waiting = self.replica.unloaded.len();
        if waiting > 0 && !self.settings.pull_unloaded {
            return Err(Error::State(format!(
                "{waiting} grains are on media that were not loaded yet; load them, or give up \
                 waiting with --pull-unloaded"
            )));
        }
        if !self.settings.compare {
            self.replica.trusted_seed()?;
        }
        let loses_here = match self.verdict.overwrite {
            Overwrite::ByItself { .. } => true,
            // A source that does not trust its base overwrites nobody by a word said here.
            Overwrite::Named { losers, .. } if self.verdict.rule != Rule::Suspect => {
                losers.includes(Side::Mine)
            }
            Overwrite::Named { .. } => false,
            Overwrite::Nobody => self.verdict.rule == Rule::InStep,
        };
        if self.settings.compare && loses_here {
            return Ok(Want::Compare);
        }
        let gives_way =
            self.replica.store.with(|s| s.replica.as_ref().is_some_and(|r| r.loser.is_some()));
        if gives_way && loses_here && matches!(self.verdict.means, Means::Delta { .. }) {
            return Ok(Want::Rejoin);
        }
        match (self.verdict.overwrite, self.verdict.means) {
            (Overwrite::ByItself { .. }, Means::Delta { .. } | Means::Nothing) => Ok(Want::Delta),
            _ if self.verdict.rule == Rule::InStep => Ok(Want::Delta),
            _ => refused(format!("{:?}", self.verdict.reasons)),
        }
    }

    /// Whether the source was started since this replica's cut: its base may be another.
    fn source_was_started(&self) -> bool {
        let newer = self.theirs.lineage.cuts().iter().rev();
        let mut newer = newer.take_while(|cut| Some(cut.id) != self.replica.head());
        newer.any(|cut| cut.reason == CutReason::Start)
    }

    async fn round(&mut self, want: Want, inbox: &mut Inbox) -> Result<Settled> {
        self.replica.verification.round_begins();
        if want != Want::Compare {
            self.send_sets().await?;
        }
        self.connection.send(&Message::Begin { want }).await?;
        let (message, payload) = answer(inbox).await?;
        let cut = match message {
            Message::NothingNew { cut } if Some(cut) == self.replica.head() => cut,
            Message::CatchUp { session, cut, since, carries, unix_ms, label } => {
                let lineage: grain::Lineage = body(&payload)?;
                lineage
                    .validate(grain::attach::Facts::MAX_CUTS)
                    .map_err(|e| Error::Peer(e.to_string()))?;
                let (pull, record, suspected) = self.take_sets(inbox).await?;
                let known = lineage.clone();
                let only_differing = suspected.bytes(self.replica.volumes().geometry());
                let announced = Announced {
                    session,
                    cut,
                    since,
                    carries,
                    unix_ms,
                    label,
                    lineage,
                    pull,
                    record,
                    only_differing,
                };
                self.replica.check_announced(&announced, want).await?;
                self.replica.begin_pull(announced).await?;
                let gather = Gather::new(self.replica, self.connection.clone(), suspected);
                gather.run(inbox).await?;
                let cut = self.replica.commit_pull(self.settings.accept_unreadable).await?;
                // Of the next round: nothing that this side keeps is needed before this cut.
                self.theirs.lineage = known;
                self.theirs.layers.clear();
                cut
            }
            other => return Err(unexpected(&other)),
        };
        self.connection.send(&Message::Committed { cut }).await?;
        match inbox.next().await? {
            (Message::Settled { floor, remaining_bytes, mode, .. }, _) => {
                self.replica.progress.source_dirty_bytes.set(remaining_bytes);
                self.replica.stream_view.mode.set(Some(mode));
                let changed = self.replica.store.change(|s| {
                    let replica = s.replica.as_mut();
                    replica.is_some_and(|r| r.mode.replace(mode) != Some(mode))
                });
                if changed {
                    self.replica.store.save().await?;
                }
                // A stream begins at once, and brings it into the base on the way.
                if self.settings.once || !mode.streams() {
                    self.replica.apply().await?;
                }
                self.replica.note_floor(floor).await?;
                Ok(Settled::Goes { cut, remaining_bytes, mode })
            }
            (Message::Relinquished { cut: at }, _) if at == cut => Ok(Settled::Relinquished(cut)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// The sets that the delta needs of this side.
    async fn send_sets(&self) -> Result<()> {
        let replica = self.replica;
        let mine = replica.facts();
        let empty = GrainSet::new();
        let names = |facts: &grain::attach::Facts| -> Vec<Layer<GrainSet>> {
            let empty = |n: &Layer<_>| Layer { name: n.name.clone(), grains: GrainSet::new() };
            facts.layers.iter().map(empty).collect()
        };
        let (my_names, their_names) = (names(&mine), names(&self.theirs));
        let used = layers_used(
            &Holding { layers: &their_names, ..plain(&self.theirs.lineage, &empty) },
            &Holding { layers: &my_names, ..plain(&mine.lineage, &empty) },
        )
        .unwrap_or_default();
        for index in used.replica {
            let Some(layer) = mine.layers.get(index) else { continue };
            for loaded in replica.keeper().load(std::slice::from_ref(&layer.name)).await? {
                send_set(&self.connection, SetName::Layer(index as u32), &loaded.grains).await?;
            }
        }
        let mut missing = replica.damaged.set();
        missing.union_with(&replica.unloaded.set());
        missing.union_with(&replica.verification.again());
        // What a broken direct catch-up brought is there. Where its session does not count any more,
        // its whole union is pulled again, and this with it.
        let arrived = replica.pull.borrow().as_ref().filter(|p| p.is_direct()).map(|pull| {
            let mut arrived = pull.union();
            arrived.subtract(&pull.remaining());
            arrived
        });
        if let Some(arrived) = arrived {
            missing.subtract(&arrived);
        }
        send_set(&self.connection, SetName::Missing, &missing).await?;
        send_set(&self.connection, SetName::Direct, &replica.open_grains()).await?;
        let remaining = replica.pull.borrow().as_ref().map(|pull| pull.remaining());
        if let Some(remaining) = remaining {
            send_set(&self.connection, SetName::Remaining, &remaining).await?;
        }
        Ok(())
    }

    /// The sets of a catch-up: to pull, to record, to compare first.
    async fn take_sets(&self, inbox: &mut Inbox) -> Result<(GrainSet, GrainSet, GrainSet)> {
        let geometry = self.replica.volumes().geometry();
        let mut sets = SetInbox::new(geometry);
        loop {
            let (message, payload) = inbox.next().await?;
            match message {
                Message::Set {
                    name: name @ (SetName::Pull | SetName::Record | SetName::Suspected),
                } => {
                    sets.take(name, &payload, geometry)?;
                }
                Message::Go => break,
                other => return Err(unexpected(&other)),
            }
        }
        let mut take = |name| {
            sets.remove(name).ok_or_else(|| Error::Peer(format!("the set {name:?} did not come")))
        };
        let (pull, record) = (take(SetName::Pull)?, take(SetName::Record)?);
        let suspected = take(SetName::Suspected)?;
        if !pull.is_subset(&record) {
            return Err(Error::Peer("what is pulled is not all recorded".to_owned()));
        }
        Ok((pull, record, suspected))
    }

    /// In step: waits for the next cycle, and notices when the link ends.
    async fn pause(&mut self, mode: Mode, inbox: &mut Inbox) -> Result<()> {
        let interval = match mode {
            Mode::Cycle { every_ms: Some(ms) } => Duration::from_millis(ms),
            _ => self.settings.interval,
        };
        tokio::select! {
            biased;
            message = inbox.next() => match message?.0 {
                Message::Handover | Message::Hurry => Ok(()),
                other => Err(unexpected(&other)),
            },
            () = self.replica.verification.round_wanted() => Ok(()),
            () = tokio::time::sleep(interval) => Ok(()),
        }
    }
}
