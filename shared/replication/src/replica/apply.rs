//! Applying committed journal records to the base.

use std::rc::Rc;

use grain::GrainSet;

use super::Replica;
use crate::Result;

/// Bytes taken from the journal at a time.
const BATCH_BYTES: u64 = 16 << 20;

impl Replica {
    /// Brings everything committed into the base. A record that does not check any more is named,
    /// and its grains are missing from then on.
    pub async fn apply(self: &Rc<Self>) -> Result<()> {
        let _one = self.base.lock().await;
        // The journal forgets a commit that is in the base: by then the state has to know of it, else a
        // crash leaves the old cut's name on the new content.
        if self.commit_unsaved.get() {
            self.store.save().await?;
            self.commit_unsaved.set(false);
        }
        while let Some(batch) = self.journal.next_apply(BATCH_BYTES) {
            let mut lost = GrainSet::new();
            for (i, piece) in batch.pieces().iter().enumerate() {
                match batch.read(i).await {
                    Ok(data) => self.volumes.write(&data).await?,
                    Err(e @ journal::Error::Damaged { .. }) => {
                        tracing::error!(error = %e, "a journal record is damaged");
                        lost.insert_run(piece.run());
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            self.volumes.sync().await?;
            if !lost.is_empty() {
                self.note_damaged(&lost).await?;
            }
            self.journal.applied(batch).await?;
        }
        Ok(())
    }
}
