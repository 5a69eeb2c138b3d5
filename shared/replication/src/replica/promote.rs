//! Promotion: this replica becomes the source.
//!
//! What it holds stands in the base, synced, when the one record is saved that makes it a source: before
//! that record it is a replica, after it a source, whatever crashes. The record names a cut of its own on
//! top of the lineage, by which every other site sees what happened, and a layer from the cut before to
//! it with all that the copy lacks: an inconsistent copy that is promoted tells everybody which of its
//! grains may be wrong.

use std::rc::Rc;

use grain::{Cut, CutId, CutReason, GrainSet, LayerName};

use super::{At, Replica};
use crate::map::MapKind;
use crate::state::{
    BacklogRecord, ClosedLayer, LayerRef, Peer, ReplicaState, Role, RunRecord, State,
};
use crate::{Error, Result};

/// What a promotion stands on.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The newest committed cut.
    pub cut: CutId,
    /// When the source made it.
    pub unix_ms: Option<u64>,
    /// Writes that a stream brought after it.
    pub writes_after: u64,
    /// Whether the copy is exactly that point.
    pub consistent: bool,
    /// Grains that may hold something else.
    pub lacks: GrainSet,
    /// Bytes written at the source since, as far as it last told.
    pub known_unsent_bytes: u64,
}

impl Replica {
    /// What a promotion now would stand on; nothing for an empty replica.
    pub fn standing(&self) -> Option<Standing> {
        let (cut, unix_ms) = self.store.with(|s| {
            let head = s.lineage.head().copied();
            (head, s.replica.as_ref().and_then(|r| r.committed_unix_ms))
        });
        let cut = cut?;
        Some(Standing {
            cut: cut.id,
            unix_ms: unix_ms.or(Some(cut.unix_ms)),
            writes_after: self.position().map_or(0, |at| at.sequence),
            consistent: self.is_consistent() && !self.lost_a_sync(),
            lacks: self.lacks(),
            known_unsent_bytes: match self.stream_view.writes.get() {
                0 => self.progress.source_dirty_bytes.get(),
                _ => self.stream_view.behind_bytes.get(),
            },
        })
    }

    /// Grains that may not be what they were at the cut.
    fn lacks(&self) -> GrainSet {
        let whole = self.store.with(|s| {
            let replica = s.replica.as_ref();
            let fuzzy = replica.is_some_and(|r| r.fuzzy_end.is_some());
            // Which grains these are stands nowhere here.
            fuzzy
                || self.lost_a_sync()
                || replica.and_then(|r| r.seed.as_ref()).is_some_and(|seed| seed.differs())
        });
        if whole {
            return GrainSet::full(self.volumes.geometry());
        }
        let mut lacks = self.direct_mask();
        lacks.union_with(&self.damaged.set());
        lacks.union_with(&self.unloaded.set());
        lacks
    }

    /// Makes this site the source, from the newest committed cut on. On return the record is durable:
    /// this object is of no use any more, and the site is to be started as a source. `inconsistent`
    /// says that a copy which is no point in time will do.
    ///
    /// # Errors
    /// [`Error::State`] while a source is followed, or when there is nothing to promote;
    /// [`Error::Refused`] for an inconsistent copy; others when the disk fails. Then the next start
    /// says which role this site has.
    pub async fn promote(self: &Rc<Self>, inconsistent: bool) -> Result<CutId> {
        self.promote_at(None, inconsistent).await
    }

    /// The same at an earlier point: what changed since then goes back first, as writes.
    pub async fn promote_at(self: &Rc<Self>, at: Option<&At>, inconsistent: bool) -> Result<CutId> {
        let Ok(_following) = self.following.try_lock() else {
            return Err(Error::State(
                "the source is connected: a promotion is for when it is gone".to_owned(),
            ));
        };
        match at {
            // What a sync lost may be of any grain: nothing is known of any point.
            Some(_) if self.lost_a_sync() => self.may_stand(inconsistent)?,
            // A point is one, whatever was found out about the copy since.
            Some(at) => self.has_point(at)?,
            None => self.may_stand(inconsistent)?,
        }
        self.stopping.set(true);
        let promoted = self.make_source(at).await;
        // A role that failed to change goes on as what it was.
        self.stopping.set(promoted.is_ok());
        self.leaves_backlog.set(promoted.is_ok() && self.leaves_backlog.get());
        promoted
    }

    fn may_stand(&self, inconsistent: bool) -> Result<()> {
        let standing = self.standing();
        let standing = standing.ok_or_else(|| {
            Error::State("this replica is empty: there is nothing here".to_owned())
        })?;
        if standing.consistent || inconsistent {
            return Ok(());
        }
        Err(Error::Refused {
            rule: "inconsistent".to_owned(),
            detail: format!(
                "the copy is no point in time: {}",
                match standing.lacks.is_empty() {
                    true => "its state says so".to_owned(),
                    false => self.places(&standing.lacks),
                }
            ),
        })
    }

    async fn make_source(self: &Rc<Self>, at: Option<&At>) -> Result<CutId> {
        self.end_views("this site becomes the source");
        self.storing.over().await;
        self.park_stream().await?;
        self.suspend_pull().await?;
        // More than that is not waited for.
        let leaves = at.is_none() && self.journal.waiting_bytes() > self.settings.promote_past;
        self.leaves_backlog.set(leaves);
        if !leaves {
            self.apply().await?;
        }
        let _base = self.base.lock().await;
        self.journal.settle().await?;
        self.sync_base(self.volumes.failed_syncs()).await?;
        let journaled = self
            .pull
            .borrow()
            .as_ref()
            .filter(|p| !p.is_direct())
            .map(|pull| pull.sessions().iter().map(|s| s.session).collect::<Vec<_>>());
        self.abort_known(&journaled.unwrap_or_default()).await?;
        // What a stream brought after the head belongs to the epoch that the new cut closes, and so does what
        // goes back.
        let mut written = self.lacks();
        if let Some(at) = at {
            written.union_with(&self.go_back(at).await?);
        }
        written.union_with(&self.streamed_grains());
        self.remove_strays().await?;
        let (gap, _) = self.pool.create_with(MapKind::Layer, &written).await?;
        let (open, _) = self.pool.create(MapKind::Layer).await?;
        let backlog = self.backlog().await?;
        let unix_ms = self.ctx.unix_ms();
        let id = CutId::new(unix_ms, self.ctx.random());
        self.store.change(|s| {
            let made = as_source(s, id, unix_ms, (gap, written.len()), open);
            made.map(|()| s.backlog = backlog)
        })?;
        self.pull.borrow_mut().take();
        self.store.save().await?;
        self.forget_history().await;
        Ok(id)
    }

    /// What waits in the journal, in two maps, durable.
    async fn backlog(&self) -> Result<Option<BacklogRecord>> {
        let waits = self.journal.waiting_grains();
        if waits.is_empty() {
            return Ok(None);
        }
        tracing::info!(grains = waits.len(), "they wait in the journal, and are served from there");
        let (first, _) = self.pool.create_with(MapKind::Missing, &waits).await?;
        let (second, _) = self.pool.create_with(MapKind::Missing, &waits).await?;
        let journal = self.settings.journal.dir.clone();
        Ok(Some(BacklogRecord { maps: [first, second], journal }))
    }

    /// Takes away map files that no record names: a source that starts takes what it finds in such a
    /// file as written.
    async fn remove_strays(&self) -> Result<()> {
        let named: Vec<u32> = self.store.with(|s| named(s).map(|at| at.file).collect());
        for file in self.pool.present().await? {
            if !named.contains(&file) {
                let path = self.pool.path(file);
                let removed = self.ctx.storage.remove(&path).await;
                removed.map_err(Error::io("remove", &path))?;
            }
        }
        self.pool.sync_names().await?;
        self.store.change(|s| s.layers.free.clear());
        self.store.save().await
    }
}

/// The map files that count at a replica.
fn named(s: &State) -> impl Iterator<Item = LayerRef> {
    let replica = s.replica.as_ref();
    let pull = replica.and_then(|r| r.pull.as_ref());
    let streamed = replica.and_then(|r| r.streamed).map(|streamed| streamed.layer);
    let maps = replica.into_iter().flat_map(|r| [r.damaged, r.unloaded]).flatten().chain(streamed);
    let pulls = pull.into_iter().flat_map(|p| [p.remaining, p.union]);
    maps.chain(pulls).chain(s.layers.closed.iter().map(|c| c.at))
}

/// The decision itself: no waiting.
fn as_source(
    s: &mut State,
    id: CutId,
    unix_ms: u64,
    gap: (LayerRef, u64),
    open: LayerRef,
) -> Result<()> {
    let head = s.lineage.head().map(|cut| cut.id);
    let head = head.ok_or_else(|| Error::State("there is nothing to promote".to_owned()))?;
    let cut = Cut { id, parent: Some(head), unix_ms, reason: CutReason::Promote };
    let unfit = |e| Error::State(format!("the cut does not fit the lineage: {e}"));
    let streamed = s.replica.as_ref().and_then(|r| r.streamed).filter(|at| at.cut == head);
    s.lineage.push(cut, Some(streamed.map_or(0, |at| at.sequence))).map_err(unfit)?;
    // What counted at the replica and does not any more: their ids are known, so that the start of the
    // source leaves them alone.
    let freed: Vec<LayerRef> =
        named(s).filter(|at| s.layers.closed.iter().all(|c| c.at != *at)).collect();
    s.layers.free.extend(freed);
    s.layers.closed.push(ClosedLayer { at: gap.0, name: LayerName::new(head, id), grains: gap.1 });
    s.layers.open = Some(open);
    s.role = Role::Source;
    s.promoted = Some(id);
    s.suspect = None;
    // As before a first start: no region of this map of regions is of this branch.
    let lost_sync = s.run.lost_sync.take();
    s.synced = lost_sync.is_none().then_some(id);
    s.run = RunRecord { lost_sync, ..RunRecord::default() };
    let ReplicaState { source, addresses, mode, floor, loser, .. } =
        s.replica.take().unwrap_or_default();
    // The one that is furthest behind stands there, and will ask this site.
    s.layers.anchor = floor;
    let at = match s.peers.iter().position(|peer| peer.identity == source) {
        Some(at) => at,
        None => {
            s.peers.push(Peer::new(source));
            s.peers.len() - 1
        }
    };
    if let Some(peer) = s.peers.get_mut(at) {
        // It made that cut; or this site gave way to it, and nothing came from there yet.
        peer.acked = Some(loser.map_or(head, |loser| loser.common));
        peer.published.clear();
        peer.alone = None;
        peer.addresses = addresses;
        peer.mode = mode.unwrap_or(peer.mode);
    }
    Ok(())
}
