//! The unfinished catch-up of a replica: what has to arrive, what has, where it goes.
//!
//! Durable before anything arrives: the whole union (a layer file, which the commit records), what
//! remains of the newest session, and the record in the state that names both and every session whose
//! grains count.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use grain::lineage::Lineage;
use grain::{CutId, GrainSet, Run, SessionId};

use super::Replica;
use super::missing::free;
use super::past::check_name;
use crate::map::{MapFile, MapKind};
use crate::protocol::Want;
use crate::session::PIECE_BYTES;
use crate::state::{PullRecord, PullSession};
use crate::{Error, Result};

/// Grains that a source may say it cannot read: no honest one has more, and the commit names them all.
const MOST_UNREADABLE: u64 = 8192;

/// What the operator sees of a catch-up.
#[derive(Debug, Default)]
pub struct PullProgress {
    /// Grains of the present catch-up.
    pub total_grains: Cell<u64>,
    /// Grains that have arrived of it.
    pub received_grains: Cell<u64>,
    /// Payload bytes received since the start.
    pub received_bytes: Cell<u64>,
    /// Grains that were found the same by digest since the start.
    pub same_grains: Cell<u64>,
    /// Catch-ups committed since the start.
    pub commits: Cell<u64>,
    /// Grains dirty at the source at the last word from it.
    pub source_dirty_bytes: Cell<u64>,
}

/// Grains in the base that wait for a sync, and how many syncs had failed when the first of them came.
#[derive(Clone, Default)]
struct Unsynced(Rc<RefCell<(GrainSet, u64)>>);

/// What was taken to be synced. Unless that went well it waits again, also when who took it goes away.
struct Taken {
    from: Unsynced,
    grains: GrainSet,
    failed_syncs: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.grains.is_empty() {
            let (waits, failed) = &mut *self.from.0.borrow_mut();
            waits.union_with(&self.grains);
            *failed = (*failed).min(self.failed_syncs);
        }
    }
}

/// See the module's text.
pub(super) struct ActivePull {
    record: PullRecord,
    remaining: RefCell<GrainSet>,
    /// Of them, what the source cannot read.
    unreadable: RefCell<GrainSet>,
    /// Arrived in the base and not synced (direct only).
    unsynced: Unsynced,
    remaining_map: MapFile,
    union_map: MapFile,
}

/// What the source announced.
pub(super) struct Announced {
    pub(super) session: SessionId,
    pub(super) cut: CutId,
    pub(super) since: Option<CutId>,
    pub(super) carries: Option<SessionId>,
    pub(super) unix_ms: u64,
    pub(super) label: Option<String>,
    pub(super) lineage: Lineage,
    pub(super) pull: GrainSet,
    pub(super) record: GrainSet,
    /// Bytes of `pull` that travel only where they differ.
    pub(super) only_differing: u64,
}

impl ActivePull {
    pub(super) fn resumed(
        record: PullRecord,
        remaining: GrainSet,
        remaining_map: MapFile,
        union_map: MapFile,
    ) -> ActivePull {
        ActivePull {
            record,
            remaining: RefCell::new(remaining),
            unreadable: RefCell::default(),
            unsynced: Unsynced::default(),
            remaining_map,
            union_map,
        }
    }

    pub(super) fn sessions(&self) -> &[PullSession] {
        &self.record.sessions
    }

    pub(super) fn record(&self) -> &PullRecord {
        &self.record
    }

    pub(super) fn is_direct(&self) -> bool {
        self.record.direct
    }

    pub(super) fn remaining(&self) -> GrainSet {
        self.remaining.borrow().clone()
    }

    pub(super) fn remaining_len(&self) -> u64 {
        self.remaining.borrow().len()
    }

    /// Notes what the source cannot read; false when that is more than a bad place or two of a disk.
    pub(super) fn cannot_come(&self, run: Run) -> bool {
        let mut unreadable = self.unreadable.borrow_mut();
        unreadable.insert_run(run);
        unreadable.len() <= MOST_UNREADABLE
    }

    /// What the source cannot read of what has not arrived.
    pub(super) fn unreadable(&self) -> GrainSet {
        let mut unreadable = self.unreadable.borrow().clone();
        unreadable.intersect_with(&self.remaining.borrow());
        unreadable
    }

    pub(super) fn union(&self) -> GrainSet {
        self.union_map.with_set(GrainSet::clone)
    }

    /// True when all of `run` is still expected.
    pub(super) fn expects(&self, run: Run) -> bool {
        self.remaining.borrow().contains_all(run)
    }

    /// The run has arrived: in the journal, in the base (not synced), or it is the same already.
    ///
    /// `in_base` is how many syncs of the base have failed by now.
    pub(super) fn arrived(&self, run: Run, in_base: Option<u64>) {
        self.remaining.borrow_mut().remove_run(run);
        if let Some(failed_syncs) = in_base {
            let (waits, failed) = &mut *self.unsynced.0.borrow_mut();
            if waits.is_empty() {
                *failed = failed_syncs;
            }
            waits.insert_run(run);
        }
    }

    /// Takes what has to be synced before it may be struck from the map.
    fn take_unsynced(&self) -> Taken {
        let (grains, failed_syncs) = std::mem::take(&mut *self.unsynced.0.borrow_mut());
        Taken { from: self.unsynced.clone(), grains, failed_syncs }
    }

    /// What was asked for again while it waited for a sync, or during that sync, has not arrived; or it has come
    /// a second time, which that sync may have missed.
    fn leave_out_asked_again(&self, synced: &mut GrainSet) {
        synced.subtract(&self.remaining.borrow());
        synced.subtract(&self.unsynced.0.borrow().0);
    }

    /// A sync of the base failed: whatever was not synced before may be lost, and is asked for again.
    fn expect_again(&self) {
        let (waits, _) = std::mem::take(&mut *self.unsynced.0.borrow_mut());
        self.remaining.borrow_mut().union_with(&waits);
    }

    pub(super) fn unsynced_len(&self) -> u64 {
        self.unsynced.0.borrow().0.len()
    }

    pub(super) fn remaining_map(&self) -> MapFile {
        self.remaining_map.clone()
    }

    /// Grains that arrived and were lost again.
    pub(super) fn ask_again(&self, lost: &GrainSet) -> MapFile {
        let mut again = self.union();
        again.intersect_with(lost);
        self.remaining.borrow_mut().union_with(&again);
        self.remaining_map.union_with(&again);
        self.remaining_map.clone()
    }
}

impl Replica {
    /// Looks whether what the source announced can be, before anything is done with it.
    pub(super) async fn check_announced(&self, announced: &Announced, want: Want) -> Result<()> {
        let wrong = |what: &str| Err(Error::Peer(format!("its catch-up {what}")));
        if announced.lineage.head().map(|c| c.id) != Some(announced.cut) {
            return wrong("does not lead to the cut that it names");
        }
        check_name(announced.label.as_deref())?;
        match (want, announced.since) {
            (Want::Delta, since) if since != self.head() => {
                return wrong("does not begin at the cut that this replica holds");
            }
            (_, Some(since)) if !announced.lineage.contains(since) => {
                return wrong("begins at a cut that its lineage lacks");
            }
            _ => {}
        }
        let full = self.volumes.geometry().total_grains();
        if want == Want::Compare && announced.pull.len() < full {
            return wrong("does not compare everything");
        }
        let mut all = self.direct_mask();
        all.union_with(&self.damaged.set());
        all.union_with(&self.unloaded.set());
        if want == Want::Rejoin {
            let Some(common) = announced.since.filter(|cut| self.knows(*cut)) else {
                return wrong("does not begin at a cut that this site holds");
            };
            // Else what this site wrote on its own would stay, unnoticed.
            all.union_with(&self.keeper().written_since(common).await?);
        }
        if !all.is_subset(&announced.record) {
            return wrong("leaves out grains that are missing here");
        }
        Ok(())
    }

    fn knows(&self, cut: CutId) -> bool {
        self.store.with(|s| s.lineage.contains(cut))
    }

    /// Makes everything durable that must be before the first grain of a catch-up arrives.
    pub(super) async fn begin_pull(self: &Rc<Self>, announced: Announced) -> Result<()> {
        let before = self.pull.borrow().as_ref().map(|p| p.record().clone());
        let carried = match (&before, announced.carries) {
            (Some(record), Some(session))
                if record.sessions.last().is_some_and(|s| s.session == session) =>
            {
                Some(record.clone())
            }
            (_, Some(_)) => {
                return Err(Error::Peer("it carries over a session that is not ours".to_owned()));
            }
            _ => None,
        };
        let direct = self.choose_direct(&announced, carried.as_ref()).await?;
        if direct {
            self.bar_history("a catch-up goes straight into the volumes").await?;
            // What a session that was dropped brought is out of what remains, and maybe not synced.
            self.strike_arrived().await?;
            // What the journal would apply again after a crash must not land on what arrives now.
            self.apply().await?;
            self.journal.settle().await?;
        }
        let (remaining_at, remaining_map) = self.pool.create(MapKind::Session).await?;
        remaining_map.union_with(&announced.pull);
        remaining_map.sync().await?;
        let (union_at, union_map) = self.pool.create(MapKind::Layer).await?;
        union_map.union_with(&announced.record);
        union_map.sync().await?;
        let mut sessions = carried.as_ref().map_or_else(Vec::new, |r| r.sessions.clone());
        if !direct && !sessions.is_empty() {
            self.note_carried(&mut sessions).await?;
        }
        sessions.push(PullSession { session: announced.session, cut: announced.cut, carried: 0 });
        let record = PullRecord {
            sessions,
            direct,
            remaining: remaining_at,
            union: union_at,
            common: announced.since,
            lineage: announced.lineage,
            unix_ms: announced.unix_ms,
            label: announced.label,
        };
        self.progress.total_grains.set(announced.pull.len());
        self.progress.received_grains.set(0);
        // Memory and state change together; whether the save succeeds shows after a restart.
        let pull = ActivePull::resumed(record.clone(), announced.pull, remaining_map, union_map);
        *self.pull.borrow_mut() = Some(pull);
        self.store.change(|s| {
            if let Some(replica) = &mut s.replica {
                replica.pull = Some(record);
            }
        });
        self.store.save().await?;
        free(&self.store, before.iter().flat_map(|r| [r.remaining, r.union]));
        if let Some(old) = before.filter(|r| carried.is_none() && !r.direct) {
            let old: Vec<_> = old.sessions.iter().map(|s| s.session).collect();
            self.abort_known(&old).await?;
        }
        if !direct {
            self.journal.begin_session(announced.session, announced.cut)?;
        }
        Ok(())
    }

    /// Ends journal sessions, those of them that ever had a record.
    pub(super) async fn abort_known(&self, sessions: &[SessionId]) -> Result<()> {
        let known: Vec<_> =
            sessions.iter().copied().filter(|s| self.journal.received(*s).is_some()).collect();
        if known.is_empty() { Ok(()) } else { Ok(self.journal.abort(&known).await?) }
    }

    /// Into the journal, or straight into the base? A consistent replica stays consistent unless the
    /// operator allowed otherwise.
    async fn choose_direct(
        self: &Rc<Self>,
        announced: &Announced,
        carried: Option<&PullRecord>,
    ) -> Result<bool> {
        match carried {
            Some(record) if record.direct => return Ok(true),
            // Through the journal it would leave the history whole.
            None if !self.is_consistent() && !self.keeps_history() => return Ok(true),
            _ => {}
        }
        // What is compared first travels only where it differs, which nobody knows yet.
        let bytes = announced.pull.bytes(self.volumes.geometry());
        let bytes = match self.journal_was_full.get() {
            true => bytes,
            false => bytes.saturating_sub(announced.only_differing),
        };
        // Headers and padding of records, and what is not applied yet, share the room.
        let grain = self.volumes.geometry().grain;
        let records = bytes >> grain.shift();
        let needed = bytes + bytes / 64 + records * 128;
        let room = self.journal.room_for(PIECE_BYTES.max(grain.bytes()), records);
        // An estimate: where it was wrong once and the operator allows it, it is not asked again.
        let may_be_direct = self.may_be_direct();
        let failed = self.journal_was_full.get() && may_be_direct;
        if needed <= room && !failed {
            return Ok(false);
        }
        if may_be_direct {
            if carried.is_some() {
                self.give_up_pull().await?;
                return Err(Error::Link(
                    "what arrived before does not fit into the journal any more; the catch-up begins \
                     again, straight into the base"
                        .to_owned(),
                ));
            }
            tracing::warn!(needed, room, "the catch-up goes straight into the base");
            return Ok(true);
        }
        Err(self.journal_too_small(bytes, room))
    }

    /// A catch-up that does not fit into the journal may go into the base.
    fn may_be_direct(&self) -> bool {
        self.settings.allow_direct || !self.is_consistent()
    }

    fn journal_too_small(&self, bytes: u64, room: u64) -> Error {
        Error::State(format!(
            "the catch-up of {bytes} bytes is larger than the {room} bytes that the journal may \
             still take; the replica stays consistent at its cut. Allow a larger journal \
             (--journal-max), or allow it to be inconsistent until the catch-up is done (--direct)"
        ))
    }

    /// The journal took no more in the middle of a catch-up.
    pub(super) fn full(&self, e: journal::Error) -> Error {
        match e {
            journal::Error::Full { room, .. } => {
                self.journal_was_full.set(true);
                if self.may_be_direct() {
                    return Error::Link(format!(
                        "the catch-up did not fit into the {room} bytes that the journal may still take; \
                         it begins again, straight into the base"
                    ));
                }
                let left = self.pull.borrow().as_ref().map(|p| p.remaining());
                let bytes = left.map_or(0, |left| left.bytes(self.volumes.geometry()));
                self.journal_too_small(bytes, room)
            }
            other => other.into(),
        }
    }

    /// The source broke the protocol: what it sent before is not carried over.
    pub(super) async fn distrust_pull(&self) -> Result<()> {
        let again = self.pull.borrow().as_ref().map(|p| (p.is_direct(), p.union()));
        match again {
            None => Ok(()),
            Some((false, _)) => self.give_up_pull().await,
            Some((true, union)) => {
                let map = self.pull.borrow().as_ref().map(|pull| pull.ask_again(&union));
                match map {
                    Some(map) => map.sync().await,
                    None => Ok(()),
                }
            }
        }
    }

    /// Forgets what arrived in the journal of an unfinished catch-up.
    pub(super) async fn give_up_pull(&self) -> Result<()> {
        let pull = self.pull.borrow_mut().take();
        let Some(record) = pull.map(|p| p.record().clone()) else { return Ok(()) };
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.pull = None;
                }
            })
            .await?;
        free(&self.store, [record.remaining, record.union]);
        let sessions: Vec<_> = record.sessions.iter().map(|s| s.session).collect();
        self.abort_known(&sessions).await
    }

    /// Keeps what arrived of a broken session: durable, to be carried over.
    pub(super) async fn suspend_pull(&self) -> Result<()> {
        let direct = match self.pull.borrow().as_ref() {
            None => return Ok(()),
            Some(pull) => pull.is_direct(),
        };
        if direct { self.strike_arrived().await } else { Ok(self.journal.sync().await?) }
    }

    /// Direct only: syncs the base, then strikes what had arrived before that sync.
    pub(super) async fn strike_arrived(&self) -> Result<()> {
        let taken = self.pull.borrow().as_ref().map(|p| (p.take_unsynced(), p.remaining_map()));
        let Some((mut taken, map)) = taken else { return Ok(()) };
        if taken.grains.is_empty() {
            return Ok(());
        }
        if let Err(e) = self.sync_base(taken.failed_syncs).await {
            drop(taken);
            if let Some(pull) = self.pull.borrow().as_ref() {
                pull.expect_again();
            }
            return Err(e);
        }
        let mut synced = std::mem::take(&mut taken.grains);
        if let Some(pull) = self.pull.borrow().as_ref() {
            pull.leave_out_asked_again(&mut synced);
        }
        for run in synced.runs() {
            map.remove(run);
        }
        map.flush().await
    }
}
