//! Alone marks: before the first reply given while a peer does not stream, a durable mark for that
//! peer says since when, and what it last acknowledged.

use grain::CutId;

use super::Source;
use crate::Result;
use crate::state::{AloneMark, State};

impl Source {
    /// Makes the marks durable that the next reply needs.
    pub(super) async fn mark_alone(&self) -> Result<()> {
        if self.marked_alone.get() {
            return Ok(());
        }
        let now = self.ctx.unix_ms();
        self.store.change(|s| {
            let Some(since) = s.lineage.head().map(|c| c.id) else { return };
            for peer in s.peers.iter_mut().filter(|p| p.alone.is_none()) {
                peer.alone = Some(AloneMark { since, acked: peer.acked, unix_ms: now });
            }
        });
        // Also who finds the marks made waits: whoever made them may still wait for the disk, or may
        // have failed to save them.
        self.store.save().await?;
        self.marked_alone.set(self.store.with(|s| s.peers.iter().all(|p| p.alone.is_some())));
        Ok(())
    }

    /// A peer committed `cut`: its mark is withdrawn. Where something was written since that cut, a
    /// new one takes its place in the same record, so that no reply is ever without a mark.
    pub(super) fn renew_mark(&self, state: &mut State, identity: &str, cut: CutId) {
        let now = self.ctx.unix_ms();
        let written = self.tracker.with_open(|open| !open.is_empty())
            || state.lineage.head().is_none_or(|head| head.id != cut);
        for peer in state.peers.iter_mut().filter(|p| p.identity == identity) {
            peer.alone =
                written.then_some(AloneMark { since: cut, acked: Some(cut), unix_ms: now });
        }
        if state.peers.iter().any(|p| p.alone.is_none()) {
            self.marked_alone.set(false);
        }
    }
}
