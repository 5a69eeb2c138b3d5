//! Going on with an unfinished catch-up after a start, and what damage costs it.

use grain::GrainSet;
use journal::Recovered;

use super::Replica;
use super::pull::ActivePull;
use crate::map::{MapFile, MapKind};
use crate::state::{LayerRef, PullRecord, PullSession};
use crate::{Error, Result};

impl Replica {
    /// Goes on with an unfinished catch-up: what the journal received of it, or what was struck from
    /// its map when it went straight into the base.
    pub(super) async fn take_up_pull(&self, found: &Recovered) -> Result<()> {
        let record = self.store.with(|s| s.replica.as_ref().and_then(|r| r.pull.clone()));
        let named: Vec<_> =
            record.iter().flat_map(|p| p.sessions.iter().map(|s| s.session)).collect();
        let stray: Vec<_> = found
            .sessions
            .iter()
            .map(|s| s.session)
            .filter(|session| !named.contains(session))
            .collect();
        if !stray.is_empty() {
            self.journal.abort(&stray).await?;
        }
        let Some(record) = record else { return Ok(()) };
        let union_map = self.open_or_damaged(record.union, MapKind::Layer).await?;
        let remaining_map = self.open_or_damaged(record.remaining, MapKind::Session).await?;
        let (Some(union_map), Some(remaining_map)) = (union_map, remaining_map) else {
            return self.drop_damaged_pull(record).await;
        };
        let mut remaining = remaining_map.with_set(GrainSet::clone);
        let lost =
            lost_of_carried(&record, found, &union_map.with_set(GrainSet::clone), &remaining);
        if let Some(newest) = record.sessions.last()
            && let Some(received) = received(found, newest)
        {
            remaining.subtract(received);
        }
        if let Some(lost) = lost {
            tracing::error!(grains = lost.len(), "the journal lost grains of a catch-up");
            remaining.union_with(&lost);
        }
        let pull = ActivePull::resumed(record, remaining, remaining_map, union_map);
        *self.pull.borrow_mut() = Some(pull);
        Ok(())
    }

    /// A map; `None` when its header does not check.
    async fn open_or_damaged(&self, at: LayerRef, kind: MapKind) -> Result<Option<MapFile>> {
        match self.pool.open_map(at, kind).await {
            Ok((map, _)) => Ok(Some(map)),
            Err(Error::Corrupt { path, detail }) => {
                tracing::error!(path = %path.display(), %detail, "a map of a catch-up is damaged");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Without its maps nobody knows what of a catch-up arrived. In the journal nothing of it counts
    /// yet, and it begins anew. In the base anything may stand: everything is missing.
    async fn drop_damaged_pull(&self, record: PullRecord) -> Result<()> {
        if record.direct {
            self.note_damaged(&GrainSet::full(self.volumes.geometry())).await?;
        }
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.pull = None;
                }
            })
            .await?;
        super::missing::free(&self.store, [record.remaining, record.union]);
        let sessions: Vec<_> = record.sessions.iter().map(|s| s.session).collect();
        self.abort_known(&sessions).await
    }

    /// Grains whose only copy was damaged: of an unfinished catch-up they are asked for again, of a
    /// committed one they are missing from now on.
    pub(super) async fn note_damaged(&self, lost: &GrainSet) -> Result<()> {
        let again = self.pull.borrow().as_ref().map(|pull| pull.ask_again(lost));
        if let Some(map) = again {
            map.sync().await?;
        }
        let at = self.damaged.add(&self.pool, lost).await?;
        self.damage_noted.notify_waiters();
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.damaged = at;
                }
            })
            .await
    }

    /// Until a grain is missing whose only copy was damaged.
    pub(super) async fn lacks_some(&self) {
        loop {
            let noted = self.damage_noted.notified();
            if !self.damaged.is_empty() {
                return;
            }
            noted.await;
        }
    }

    /// Before a session takes over from others: what they brought is made durable, and its extent noted,
    /// because the map of what remains leaves it out from here on.
    pub(super) async fn note_carried(&self, sessions: &mut [PullSession]) -> Result<()> {
        // Whoever dropped the session before may not have waited for its sync.
        self.journal.sync().await?;
        for session in sessions {
            let received = self.journal.received(session.session);
            session.carried = received.map_or(0, |received| received.durable.len());
        }
        Ok(())
    }

    /// What sessions that are carried over brought into the journal, before the newest.
    pub(super) fn carried_grains(&self) -> GrainSet {
        let pull = self.pull.borrow();
        let Some(pull) = pull.as_ref().filter(|p| !p.is_direct()) else { return GrainSet::new() };
        let mut grains = GrainSet::new();
        for session in pull.sessions().iter().rev().skip(1) {
            if let Some(received) = self.journal.received(session.session) {
                grains.union_with(&received.appended);
            }
        }
        grains
    }
}

fn received<'a>(found: &'a Recovered, session: &PullSession) -> Option<&'a GrainSet> {
    found.sessions.iter().find(|s| s.session == session.session).map(|s| &s.received)
}

/// What carried sessions lost in a damaged journal, as far as the union says; `remaining` is the newest
/// session's map. `None` when nothing was lost. Of a session that lost something nobody knows what it
/// brought: an older version of it may stand in a session before, and does not count for it.
fn lost_of_carried(
    record: &PullRecord,
    found: &Recovered,
    union: &GrainSet,
    remaining: &GrainSet,
) -> Option<GrainSet> {
    let (_, older) = record.sessions.split_last().filter(|_| !record.direct)?;
    let lacks = |s: &PullSession| received(found, s).map_or(0, GrainSet::len) < s.carried;
    let last = older.iter().rposition(lacks)?;
    let mut lost = union.clone();
    lost.subtract(remaining);
    for there in older.iter().skip(last).filter_map(|session| received(found, session)) {
        lost.subtract(there);
    }
    Some(lost)
}
