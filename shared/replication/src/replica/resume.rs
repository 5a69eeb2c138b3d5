//! Going on with an unfinished catch-up after a start, and what damage costs it.

use grain::GrainSet;
use journal::Recovered;

use super::Replica;
use super::pull::ActivePull;
use crate::map::{MapFile, MapKind};
use crate::state::{LayerRef, PullRecord};
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
        if let Some(newest) = record.sessions.last()
            && let Some(received) = found.sessions.iter().find(|s| s.session == newest.session)
        {
            remaining.subtract(&received.received);
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
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.damaged = at;
                }
            })
            .await
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
