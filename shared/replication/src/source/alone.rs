//! Alone marks: before the first reply given while a peer does not stream, a durable mark for that
//! peer says since when, and what it last acknowledged.

use grain::CutId;

use super::Source;
use crate::Result;
use crate::state::{AloneMark, Peer, State};

impl Source {
    /// Makes the marks durable that the next reply needs.
    pub(super) async fn mark_alone(&self) -> Result<()> {
        if self.marked_alone.get() {
            return Ok(());
        }
        let now = self.ctx.unix_ms();
        self.store.change(|s| {
            let Some(since) = s.lineage.head().map(|c| c.id) else { return };
            let without = |p: &&mut Peer| p.alone.is_none() && !self.keeps_up(&p.identity);
            for peer in s.peers.iter_mut().filter(without) {
                peer.alone = Some(AloneMark { since, acked: peer.acked, unix_ms: now });
            }
        });
        // Also who finds the marks made waits: whoever made them may still wait for the disk, or may
        // have failed to save them.
        self.store.save().await?;
        let marked = |p: &Peer| p.alone.is_some() || self.keeps_up(&p.identity);
        self.marked_alone.set(self.store.with(|s| s.peers.iter().all(marked)));
        Ok(())
    }

    /// Replies are not given without this peer: it streams, or writes wait for it to come back.
    fn keeps_up(&self, identity: &str) -> bool {
        self.streams.in_force(identity) || self.streams.is_lost(identity)
    }

    /// A peer committed `cut`: its mark is withdrawn. Where something was written since that cut, a
    /// new one takes its place in the same record, so that no reply is ever without a mark.
    pub(super) fn renew_mark(&self, state: &mut State, identity: &str, cut: CutId) {
        let now = self.ctx.unix_ms();
        let written = self.tracker.with_open(|open| !open.is_empty())
            || state.lineage.head().is_none_or(|head| head.id != cut);
        for peer in state.peers.iter_mut().filter(|p| p.identity == identity) {
            let alone = written && !self.streams.in_force(identity);
            peer.alone = alone.then_some(AloneMark { since: cut, acked: Some(cut), unix_ms: now });
        }
        if state.peers.iter().any(|p| p.alone.is_none() && !self.keeps_up(&p.identity)) {
            self.marked_alone.set(false);
        }
    }
}
