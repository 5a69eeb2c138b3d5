//! The stream of a session: begun at the cut of a catch-up, in force from its commit on.

use std::rc::Rc;

use grain::CutId;
use grain::attach::decide;

use super::super::Source;
use super::super::stream::{End, Outlet, Stream};
use super::ServedSession;
use crate::protocol::Inbox;
use crate::{Error, Result};

/// A stream that ends with whoever holds this.
pub(super) struct Begun {
    source: Rc<Source>,
    pub(super) stream: Rc<Stream>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.source.end_stream(&self.stream, End::Link);
    }
}

impl ServedSession<'_> {
    /// Whether writes are to stream once this catch-up is done.
    pub(super) fn wants_stream(&self) -> bool {
        self.source.mode_of(&self.identity).streams()
            && self.progress.stream.may_begin()
            && self.source.switchover_to(&self.identity).is_none()
    }

    /// At the cut, with the gate closed: everything after it goes into this stream.
    pub(super) fn begin_stream(&self, cut: CutId) -> Begun {
        let sync = self.source.mode_of(&self.identity).is_sync();
        let settings = self.settings.stream.clone();
        let stream = Stream::new(self.identity.clone(), cut, sync, settings);
        self.source.streams.hold(stream.clone());
        Begun { source: self.source.clone(), stream }
    }

    /// Streams until it ends; the facts of the next round are those of where the replica then stands.
    pub(super) async fn stream(&mut self, inbox: &mut Inbox, begun: Begun) -> Result<()> {
        let outlet = Outlet {
            source: self.source,
            connection: &self.connection,
            identity: &self.identity,
            settings: &self.settings.stream,
            shown: &self.progress.stream,
            stream: begun.stream.clone(),
        };
        let position = outlet.run(inbox).await?;
        let lineage = self.source.store().with(|s| s.lineage.up_to(position.cut));
        self.theirs.lineage = lineage.ok_or(Error::UnknownCut(position.cut))?;
        self.theirs.sequence = position.sequence;
        self.verdict = decide(&self.source.facts(&self.identity), &self.theirs);
        Ok(())
    }

    /// Waits until the replica is to be kept otherwise than it was told.
    pub(super) async fn mode_is_new(&self) {
        loop {
            let changed = self.source.mode_changed.notified();
            let mode = self.source.mode_of(&self.identity);
            if self.told_mode.is_some_and(|told| told != mode) {
                return;
            }
            changed.await;
        }
    }
}
