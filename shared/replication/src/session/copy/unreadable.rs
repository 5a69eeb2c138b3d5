//! Grains that the disk does not give: tried again, then told apart from their neighbours, and left out
//! of the session by name. They are never delivered as zeros.
//!
//! A disk with bad places loses those places only. A disk that gives next to nothing is broken, and the
//! session ends with its error instead of delivering a copy that is none.

use std::time::Duration;

use bytes::Bytes;
use grain::{GrainData, GrainSet, Run};

use super::CopySession;
use crate::Result;
use crate::volumes::split_zeros;

/// Reads of a run before its grains are read one by one.
const TRIES: u32 = 2;
/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What came of reading a run.
pub(super) struct Found {
    pub(super) data: Vec<GrainData>,
    pub(super) unreadable: GrainSet,
    /// The end of what was looked at.
    pub(super) end: u64,
}

impl CopySession {
    /// Reads a run; fails when the disk is broken, not when some grains are.
    pub(super) async fn read_readable(&self, run: Run) -> Result<Found> {
        let mut found = Found { data: Vec::new(), unreadable: GrainSet::new(), end: run.end() };
        for left in (0..TRIES).rev() {
            match self.volumes.read(run).await {
                Ok(bytes) => {
                    found.data = self.split(run, bytes);
                    return Ok(found);
                }
                Err(error) if left == 0 => {
                    tracing::warn!(%error, place = self.volumes.place(run), "grain by grain");
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
        for first in run.first..run.end() {
            let one = Run { first, count: 1, ..run };
            match self.volumes.read(one).await {
                Ok(bytes) => found.data.extend(self.split(one, bytes)),
                Err(error) => {
                    let place = self.volumes.place(one);
                    tracing::error!(%error, place, "a grain cannot be read: it is left out");
                    found.unreadable.insert_run(one);
                    let state = self.state.borrow();
                    if state.unreadable.len() + found.unreadable.len() > state.unreadable_limit {
                        return Err(error);
                    }
                }
            }
        }
        Ok(found)
    }

    fn split(&self, run: Run, bytes: Bytes) -> Vec<GrainData> {
        split_zeros(self.volumes.geometry(), run, bytes)
    }

    /// These will not be delivered.
    pub(super) fn note_unreadable(&self, grains: &GrainSet) {
        if grains.is_empty() {
            return;
        }
        let mut state = self.state.borrow_mut();
        state.unreadable.union_with(grains);
        state.untold.union_with(grains);
        drop(state);
        self.news.notify_waiters();
    }

    /// Everything that could not be read so far.
    pub fn unreadable(&self) -> GrainSet {
        self.state.borrow().unreadable.clone()
    }

    /// The next run that could not be read, each once: for a sink that has to hear of them.
    pub fn next_unreadable(&self) -> Option<Run> {
        let mut state = self.state.borrow_mut();
        let run = state.untold.runs().next()?;
        state.untold.remove_run(run);
        Some(run)
    }

    /// True when [`CopySession::next_unreadable`] has something.
    pub fn has_unreadable(&self) -> bool {
        !self.state.borrow().untold.is_empty()
    }
}
