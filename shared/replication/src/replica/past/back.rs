//! Going back to a point for good: as writes, of every grain that changed since.

use std::rc::Rc;

use grain::{GrainSet, VolumeId};

use super::view::Looking;
use super::{At, PastPoint, Replica, Seen, View};
use crate::Result;
use crate::session::PIECE_BYTES;
use crate::volumes::split_zeros;

impl Replica {
    /// What going back to a point would be: the point, and what has changed since. What is not in the volumes
    /// yet counts, too.
    pub async fn way_back(self: &Rc<Self>, at: &At) -> Result<(PastPoint, GrainSet)> {
        self.apply().await?;
        let history = self.whole_history()?;
        let (point, moment) = self.find_point(&history, at)?;
        Ok((point, history.changed_since(moment).await?))
    }

    /// Whether there is such a point.
    pub(in crate::replica) fn has_point(&self, at: &At) -> Result<()> {
        self.find_point(&*self.whole_history()?, at).map(drop)
    }

    /// Sets the volumes back to a point, synced. Everything that counts is in them, and they are locked by the
    /// caller. Gives the grains that were set back.
    ///
    /// They count as damaged before the first of them is written: whoever finds them half set back asks the
    /// source for them, or goes back again.
    pub(in crate::replica) async fn go_back(self: &Rc<Self>, at: &At) -> Result<GrainSet> {
        let history = self.whole_history()?;
        let (point, moment) = self.find_point(&history, at)?;
        let changed = history.changed_since(moment).await?;
        tracing::warn!(cut = %point.cut, grains = changed.len(), "the volumes go back to a point");
        self.withdraw_after(moment.commit).await?;
        self.note_damaged(&changed).await?;
        // It ends where a point cannot be withdrawn.
        let history = self.whole_history()?;
        let looking = Rc::new(Looking::at(moment));
        let view = View::new(self.clone(), history, looking, Seen::Point(point));
        let failed = self.volumes.failed_syncs();
        let geometry = self.volumes.geometry();
        let most = (PIECE_BYTES >> geometry.grain.shift()).max(1);
        let mut from = (VolumeId(0), 0);
        while let Some(run) = changed.next_run(from, most) {
            let bytes = view.read(geometry.span_of(run)).await?;
            for data in split_zeros(geometry, run, bytes) {
                self.volumes.write(&data).await?;
            }
            from = (run.volume, run.end());
        }
        self.sync_base(failed).await?;
        Ok(changed)
    }
}
