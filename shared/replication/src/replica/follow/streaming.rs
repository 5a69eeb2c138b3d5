//! Between two catch-ups: writes stream, in the modes that do so.

use grain::CutId;

use super::super::stream::Inlet;
use super::Following;
use crate::Result;
use crate::protocol::{Inbox, Message, unexpected};

/// What the source had sent of a stream before it heard that nobody takes it.
async fn pass_over(inbox: &mut Inbox) -> Result<()> {
    loop {
        match inbox.next().await?.0 {
            Message::StreamEnd { .. } => return Ok(()),
            Message::Write { .. } | Message::Clear { .. } | Message::StreamCut { .. } => {}
            Message::StreamFlush { .. } | Message::Handover | Message::Hurry => {}
            other => return Err(unexpected(&other)),
        }
    }
}

impl Following<'_> {
    /// After the word that writes stream, or that they do not for now: false in the latter case.
    pub(super) async fn streams(
        &mut self,
        cut: CutId,
        in_step: bool,
        inbox: &mut Inbox,
    ) -> Result<bool> {
        match inbox.next().await?.0 {
            Message::Stream { cut: from } if from == cut => {}
            Message::Streamless => {
                self.replica.apply().await?;
                return Ok(false);
            }
            other => return Err(unexpected(&other)),
        }
        // A stream begins only when nothing is missing (rule 13), and lasts.
        let whole = self.replica.is_consistent() && self.replica.damaged.is_empty();
        if self.settings.once || !whole {
            self.replica.apply().await?;
            self.leave_stream().await?;
            pass_over(inbox).await?;
            return Ok(false);
        }
        self.replica.in_step.set(true);
        let ended = Inlet::new(self.replica, &self.connection).run(cut, inbox).await;
        self.replica.in_step.set(in_step && ended.is_ok());
        // Whether it ended well or not, how far it came is noted first.
        self.replica.park_stream().await?;
        let why = ended?;
        tracing::info!(?why, "the stream ended");
        self.leave_stream().await?;
        if why.is_none() {
            pass_over(inbox).await?;
        }
        // Of the next round: what this side holds, the source made.
        self.theirs.lineage = self.replica.store.with(|s| s.lineage.clone());
        self.theirs.layers.clear();
        Ok(true)
    }

    async fn leave_stream(&self) -> Result<()> {
        match self.replica.position() {
            Some(position) => self.connection.send(&Message::Left { position }).await,
            None => Ok(()),
        }
    }
}
