//! Streaming at the replica: single writes of the source, in their order, into the journal; epochs end
//! with a commit; what is durable is brought into the base in the background.
//!
//! While a stream is under way the replica stands at a cut and a sequence number after it, and what it has
//! written since the cut is known here and in the journal. When the stream ends it is *parked*: how far it
//! came, and the grains that it wrote, stand in the state before the journal may let it go.

mod inlet;

use std::cell::Cell;

use grain::lineage::commit as commit_rule;
use grain::{CutId, GrainSet, Lineage, Position, Span, SpanData};
use journal::StreamState;

use super::Replica;
use super::commit::CommitBody;
use super::missing::free;
use super::past::check_name;
use crate::map::MapKind;
use crate::state::{ClosedLayer, Mode, Streamed};
use crate::{Error, Result};

pub(super) use inlet::Inlet;

/// The stream under way.
pub(super) struct ActiveStream {
    cut: CutId,
    sequence: u64,
    grains: GrainSet,
}

/// What the operator sees of the stream.
#[derive(Debug, Default)]
pub struct StreamView {
    /// One is under way.
    pub streaming: Cell<bool>,
    /// Bytes that the source had not heard confirmed when it last said something.
    pub behind_bytes: Cell<u64>,
    /// Writes received since the start.
    pub writes: Cell<u64>,
    /// Bytes of them.
    pub bytes: Cell<u64>,
    /// Cuts of streams committed since the start.
    pub cuts: Cell<u64>,
    /// How the source keeps this replica, as far as it has told.
    pub mode: Cell<Option<Mode>>,
}

impl Replica {
    /// What the operator sees of the stream.
    pub fn stream_view(&self) -> &StreamView {
        &self.stream_view
    }

    /// What this replica holds: its newest cut, and how much of the epoch after it.
    pub fn position(&self) -> Option<Position> {
        let cut = self.head()?;
        let sequence = match self.stream.borrow().as_ref() {
            Some(active) => active.sequence,
            None => self.parked().map_or(0, |streamed| streamed.sequence),
        };
        Some(Position { cut, sequence })
    }

    /// The record of a stream that has ended at the present head.
    pub(super) fn parked(&self) -> Option<Streamed> {
        self.store.with(|s| {
            let head = s.lineage.head()?.id;
            s.replica.as_ref()?.streamed.filter(|streamed| streamed.cut == head)
        })
    }

    /// The grains that a stream wrote after the newest cut.
    pub(super) fn streamed_grains(&self) -> GrainSet {
        match self.stream.borrow().as_ref() {
            Some(active) => active.grains.clone(),
            None => self.parked_grains.borrow().clone(),
        }
    }

    /// Reads what the state says of a stream that has ended.
    pub(super) async fn load_parked(&self) -> Result<()> {
        let Some(streamed) = self.parked() else { return Ok(()) };
        let content = self.pool.read_map(streamed.layer, MapKind::Layer).await?;
        *self.parked_grains.borrow_mut() = content.set;
        Ok(())
    }

    /// After a start: what the journal has of a stream that was under way.
    pub(super) async fn take_up_stream(&self, found: Option<&StreamState>) -> Result<()> {
        let Some(found) = found else { return Ok(()) };
        let known = self.parked().filter(|parked| parked.sequence == found.sequence);
        if Some(found.cut) == self.head() && known.is_none() {
            let (cut, sequence) = (found.cut, found.sequence);
            let grains = found.grains.clone();
            *self.stream.borrow_mut() = Some(ActiveStream { cut, sequence, grains });
            return self.park_stream().await;
        }
        // Told already, or of a cut that this replica has passed.
        Ok(self.journal.end_stream().await?)
    }

    /// Begins a stream at the newest committed cut.
    async fn begin_stream(&self, cut: CutId) -> Result<()> {
        if self.head() != Some(cut) {
            return Err(Error::Peer("a stream that does not follow the committed cut".to_owned()));
        }
        self.journal.begin_stream(cut).await?;
        let grains = GrainSet::new();
        *self.stream.borrow_mut() = Some(ActiveStream { cut, sequence: 0, grains });
        Ok(())
    }

    /// Takes a write of the stream, whose digest was checked.
    async fn take_write(&self, sequence: u64, data: SpanData, digest: [u8; 32]) -> Result<()> {
        let run = self.volumes.geometry().touched_by(data.span);
        self.journal.append_stream(sequence, &data, digest).await?;
        if let Some(active) = self.stream.borrow_mut().as_mut() {
            active.sequence = sequence;
            active.grains.insert_run(run);
        }
        Ok(())
    }

    fn expects(&self, sequence: u64, span: Span) -> Result<()> {
        let next = self.stream.borrow().as_ref().map(|active| active.sequence + 1);
        if next != Some(sequence) {
            return Err(Error::Peer(format!("write {sequence} of the stream out of order")));
        }
        if !self.volumes.geometry().holds_span(span) {
            return Err(Error::Peer(format!("a write outside of the volumes: {span:?}")));
        }
        Ok(())
    }

    /// An epoch of the stream ends with this cut: commits it. It goes on when the session is dropped.
    async fn take_cut(
        self: &std::rc::Rc<Self>,
        cut: CutId,
        unix_ms: u64,
        lineage: Lineage,
        label: Option<String>,
    ) -> Result<()> {
        let replica = self.clone();
        let task = tokio::task::spawn_local(async move {
            let _one = replica.parking.lock().await;
            replica.commit_epoch(cut, unix_ms, lineage, label).await
        });
        task.await.map_err(|_| Error::Cancelled)?
    }

    async fn commit_epoch(
        &self,
        cut: CutId,
        unix_ms: u64,
        lineage: Lineage,
        label: Option<String>,
    ) -> Result<()> {
        check_name(label.as_deref())?;
        let wrong = |what: &str| Err(Error::Peer(format!("a cut of the stream that {what}")));
        let open = self.stream.borrow().as_ref().map(|a| (a.cut, a.sequence, a.grains.clone()));
        let Some((from, sequence, grains)) = open else { return wrong("nobody waits for") };
        let follows = match (lineage.index_of(from), lineage.index_of(cut)) {
            (Some(from), Some(to)) => to == from + 1 && to + 1 == lineage.cuts().len(),
            _ => false,
        };
        if !follows {
            return wrong("does not follow the one before");
        }
        if lineage.end_of(from) != Some(sequence) {
            return wrong("ends the epoch elsewhere than here");
        }
        let (at, _) = self.pool.create_with(MapKind::Layer, &grains).await?;
        let layer = commit_rule(&lineage, from, cut, grains.len()).and_then(|commit| commit.layer);
        let layer = layer.map(|layer| ClosedLayer { at, name: layer.name, grains: grains.len() });
        let body = CommitBody {
            lineage,
            cut,
            unix_ms,
            layer,
            unreadable: Vec::new(),
            streamed: true,
            label,
        };
        let number = self.journal.commit(&[], cut, body.encode()?).await?;
        *self.stream.borrow_mut() =
            Some(ActiveStream { cut, sequence: 0, grains: GrainSet::new() });
        self.install_commit(body, number).await?;
        self.stream_view.cuts.set(self.stream_view.cuts.get() + 1);
        Ok(())
    }

    /// Makes durable how far a stream came, and ends it. Without one nothing is done.
    pub(super) async fn park_stream(&self) -> Result<()> {
        let _one = self.parking.lock().await;
        self.stream_view.streaming.set(false);
        let active = self.stream.borrow().as_ref().map(|a| (a.cut, a.sequence, a.grains.clone()));
        let Some((cut, sequence, grains)) = active else { return Ok(()) };
        // Recovery would announce no less than this.
        self.journal.sync().await?;
        let streamed = match sequence {
            0 => None,
            _ => {
                let (layer, _) = self.pool.create_with(MapKind::Layer, &grains).await?;
                Some(Streamed { cut, sequence, layer })
            }
        };
        let before = self.store.change(|s| {
            s.replica.as_mut().and_then(|r| std::mem::replace(&mut r.streamed, streamed))
        });
        *self.parked_grains.borrow_mut() = grains;
        self.store.save().await?;
        self.stream.borrow_mut().take();
        free(&self.store, before.map(|streamed| streamed.layer));
        Ok(self.journal.end_stream().await?)
    }
}
