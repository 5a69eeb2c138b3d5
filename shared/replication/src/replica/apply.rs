//! Applying journal records that count to the base.

use std::rc::Rc;

use futures_util::StreamExt;
use grain::{GrainSet, Run};
use journal::ApplyBatch;

use super::Replica;
use crate::{Error, Result};

/// Bytes taken from the journal at a time.
const BATCH_BYTES: u64 = 16 << 20;
/// Pieces of a batch under way at the same time; they are of different grains.
const WIDTH: usize = 8;

impl Replica {
    /// Brings everything that counts into the base. A record that does not check any more is named, and
    /// its grains are missing from then on. It goes on when the caller goes away: a write of an older
    /// version must not be under way when a newer one begins.
    pub async fn apply(self: &Rc<Self>) -> Result<()> {
        self.apply_at_most(u64::MAX).await
    }

    /// The same for about what waits now, while more may come.
    pub(super) async fn apply_pass(self: &Rc<Self>) -> Result<()> {
        self.apply_at_most(self.journal.waiting_bytes()).await
    }

    async fn apply_at_most(self: &Rc<Self>, bytes: u64) -> Result<()> {
        let replica = self.clone();
        let task = tokio::task::spawn_local(async move { replica.apply_batches(bytes).await });
        task.await.map_err(|_| Error::Cancelled)?
    }

    async fn apply_batches(self: &Rc<Self>, most: u64) -> Result<()> {
        let _one = self.base.lock().await;
        // The journal forgets a commit that is in the base: by then the state has to know of it, else a
        // crash leaves the old cut's name on the new content.
        if self.commit_unsaved.get() {
            self.store.save().await?;
            self.commit_unsaved.set(false);
        }
        self.tend_history().await;
        let mut applied = 0;
        while applied < most
            && !self.leaves_backlog.get()
            && let Some(batch) = self.journal.next_apply(BATCH_BYTES)
        {
            applied += batch.pieces().iter().map(|piece| piece.span().bytes).sum::<u64>();
            self.keep_what_was(&batch).await?;
            let failed = self.volumes.failed_syncs();
            let mut pieces = futures_util::stream::iter(0..batch.pieces().len())
                .map(|i| self.apply_piece(&batch, i))
                .buffer_unordered(WIDTH);
            let mut lost = GrainSet::new();
            while let Some(outcome) = pieces.next().await {
                lost.extend(outcome?);
            }
            drop(pieces);
            self.sync_base(failed).await?;
            if !lost.is_empty() {
                self.note_damaged(&lost).await?;
                self.withdraw_after(batch.moment().commit).await?;
            }
            self.journal.applied(batch).await?;
        }
        self.trim_history().await?;
        Ok(())
    }

    /// Brings one piece into the base; what the journal does not give any more is handed back.
    async fn apply_piece(&self, batch: &ApplyBatch, i: usize) -> Result<Option<Run>> {
        match batch.read(i).await {
            Ok(data) => self.volumes.write_span(&data).await.map(|()| None),
            Err(e @ journal::Error::Damaged { .. }) => {
                tracing::error!(error = %e, "a journal record is damaged");
                Ok(batch.pieces().get(i).map(journal::Piece::grains))
            }
            Err(e) => Err(e.into()),
        }
    }
}
