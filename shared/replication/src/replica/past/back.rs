//! Going back to a point for good: as writes, of every grain that changed since.

use std::rc::Rc;

use grain::{Content, GrainSet, Run, SpanData, is_zero};
use journal::Moment;

use super::view::Looking;
use super::{At, PastPoint, Replica, Seen, View};
use crate::Result;
use crate::session::PIECE_BYTES;

impl Replica {
    /// What going back to a point would be: the point, and what has changed since. What is not in the volumes
    /// yet counts, too.
    pub async fn way_back(self: &Rc<Self>, at: &At) -> Result<(PastPoint, GrainSet)> {
        self.apply().await?;
        let (point, moment) = self.point_at(at)?;
        Ok((point, self.changed_since(moment).await?))
    }

    fn point_at(&self, at: &At) -> Result<(PastPoint, Moment)> {
        let history = self.history().ok_or_else(|| self.no_history())?;
        let point = self.find_point(&history, at)?;
        let moment = Moment { commit: point.commit, split: 0 };
        Ok((PastPoint { cut: point.cut, unix_ms: point.unix_ms, label: point.label }, moment))
    }

    async fn changed_since(&self, moment: Moment) -> Result<GrainSet> {
        let history = self.history().ok_or_else(|| self.no_history())?;
        Ok(history.changed_since(moment).await?)
    }

    /// Sets the volumes back to a point, synced. Everything that counts is in them, and they are locked by the
    /// caller. Gives the grains that were set back.
    ///
    /// They count as damaged before the first of them is written: whoever finds them half set back asks the
    /// source for them, or goes back again.
    pub(in crate::replica) async fn go_back(self: &Rc<Self>, at: &At) -> Result<GrainSet> {
        let (point, moment) = self.point_at(at)?;
        let changed = self.changed_since(moment).await?;
        tracing::warn!(cut = %point.cut, grains = changed.len(), "the volumes go back to a point");
        self.withdraw_after(moment.commit).await?;
        self.note_damaged(&changed).await?;
        let history = self.history().ok_or_else(|| self.no_history())?;
        let looking = Rc::new(Looking::at(moment));
        let view = View::new(self.clone(), history, looking, Seen::Point(point));
        let failed = self.volumes.failed_syncs();
        let geometry = self.volumes.geometry();
        let most = (PIECE_BYTES >> geometry.grain.shift()).max(1);
        for run in changed.runs() {
            for first in (run.first..run.first + run.count).step_by(most as usize) {
                let count = most.min(run.first + run.count - first);
                let span = geometry.span_of(Run { first, count, ..run });
                let bytes = view.read(span).await?;
                let content = if is_zero(&bytes) { Content::Zero } else { Content::Data(bytes) };
                self.volumes.write_span(&SpanData { span, content }).await?;
            }
        }
        self.sync_base(failed).await?;
        Ok(changed)
    }
}
