//! Points, and withdrawing them: the records that are not about bytes.

use std::rc::Rc;

use bytes::Bytes;

use crate::layout::{Previous, RECORDS_START};

use super::capture::Batch;
use super::files::Fresh;
use super::record::{Kind, RecordHeader, encode_point};
use super::state::{Noted, State, note};
use super::{Error, History, MAX_LABEL_BYTES, Point, UNKNOWN};

fn point_record(point: &Point) -> (RecordHeader, Bytes) {
    let payload = Bytes::from(encode_point(point));
    let mut header = RecordHeader::control(Kind::Point, point.commit);
    header.payload = payload.len() as u32;
    header.digest = *blake3::hash(&payload).as_bytes();
    (header, payload)
}

impl History {
    /// Adds a point. The same commit and cut again with the same label or none does nothing; a label
    /// replaces the one before. A point below [`History::oldest`] is not taken, without an error: there
    /// is nothing to go back with. It is written now, and durable with the next capture at the latest, or
    /// with [`History::sync`].
    ///
    /// # Errors
    /// [`Error::BadPoint`] when it is older than the newest point or its label is too long;
    /// [`Error::NoSpace`]; the failure of the history.
    pub async fn note_point(self: &Rc<Self>, point: Point) -> Result<(), Error> {
        let bad = |why| Err(Error::BadPoint { commit: point.commit, why });
        if point.label.as_ref().is_some_and(|label| label.len() > MAX_LABEL_BYTES) {
            return bad("its label is too long");
        }
        if point.commit >= UNKNOWN - 1 {
            return bad("no commit has this number");
        }
        let history = self.clone();
        self.detached(async move { history.note_now(point).await }).await
    }

    async fn note_now(&self, point: Point) -> Result<(), Error> {
        let _log = self.log.lock().await;
        {
            let state = self.state.borrow();
            state.check()?;
            if point.commit < state.oldest {
                return Ok(());
            }
            let mut points = state.points.iter().map(|noted| &noted.point);
            let known = points.clone().find(|p| p.commit == point.commit && p.cut == point.cut);
            match known {
                Some(known) if point.label.is_none() || point.label == known.label => {
                    return Ok(());
                }
                Some(_) => {}
                None if points.next_back().is_some_and(|last| last.commit > point.commit) => {
                    let why = "it is older than the newest point";
                    return Err(Error::BadPoint { commit: point.commit, why });
                }
                None => {}
            }
        }
        self.append(&mut Batch::from([point_record(&point)])).await?;
        let mut state = self.state.borrow_mut();
        let segment = state.current.segment.number;
        note(&mut state.points, Noted { point, segment });
        Ok(())
    }

    /// Withdraws durably the points with this commit and above: they are not what they say. They are not
    /// listed any more from the beginning of the call on, whatever comes of it; only when it returned
    /// `Ok` do they stay away after a crash.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; the failure of the history.
    pub async fn withdraw_from(self: &Rc<Self>, commit: u64) -> Result<(), Error> {
        let history = self.clone();
        self.detached(async move {
            let _log = history.log.lock().await;
            {
                let mut state = history.state.borrow_mut();
                state.points.retain(|noted| noted.point.commit < commit);
                state.check()?;
            }
            let header = RecordHeader::control(Kind::WithdrawFrom, commit.min(UNKNOWN));
            history.append_durably(Batch::from([(header, Bytes::new())])).await
        })
        .await
    }

    /// Withdraws durably the points with a commit below `below`, and then removes the oldest segments, as
    /// far as they hold only records below it. The border never goes down.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was changed. [`Error::BadPoint`]; the failure of the history.
    pub async fn withdraw_below(self: &Rc<Self>, below: u64) -> Result<(), Error> {
        if below >= UNKNOWN {
            let why = "no commit has this number";
            return Err(Error::BadPoint { commit: below, why });
        }
        let history = self.clone();
        self.detached(async move {
            let _log = history.log.lock().await;
            history.state.borrow().check()?;
            history.withdraw_below_now(below).await
        })
        .await
    }

    async fn withdraw_below_now(&self, below: u64) -> Result<(), Error> {
        let (below, low, batch) = {
            let state = self.state.borrow();
            let below = if state.oldest == UNKNOWN { below } else { below.max(state.oldest) };
            let low = state.low_after(below);
            if below == state.oldest && low == state.low {
                return Ok(());
            }
            // Points stand in the segments that go as well as in those that stay.
            let moved = |n: &&Noted| n.segment < low && n.point.commit >= below;
            let moved = state.points.iter().filter(moved).map(|n| point_record(&n.point));
            let mut control = RecordHeader::control(Kind::WithdrawBelow, below);
            control.low = low;
            (below, low, moved.chain([(control, Bytes::new())]).collect())
        };
        self.append_durably(batch).await?;
        {
            let mut state = self.state.borrow_mut();
            let current = state.current.segment.number;
            state.oldest = below;
            state.low = low;
            state.points.retain(|noted| noted.point.commit >= below);
            for noted in &mut state.points {
                if noted.segment < low {
                    noted.segment = current;
                }
            }
        }
        self.remove_below_low().await;
        Ok(())
    }

    /// Withdraws everything durably, then removes all segments and begins anew. For owners who are about
    /// to write the base by another way. [`History::oldest`] stays: what is noted and captured from here
    /// on is the owner's word again.
    ///
    /// # Errors
    /// [`Error::NoSpace`]: nothing was changed. The failure of the history, also when there is no space
    /// for the new segment.
    pub async fn reset(self: &Rc<Self>) -> Result<(), Error> {
        let history = self.clone();
        self.detached(async move { history.reset_now().await }).await
    }

    async fn reset_now(&self) -> Result<(), Error> {
        let _log = self.log.lock().await;
        self.state.borrow().check()?;
        // A record needs room in its segment, so that the low-water mark is known beforehand.
        if self.state.borrow().current.tail + 128 > self.config.segment_bytes {
            self.roll().await?;
        }
        let number = self.state.borrow().current.segment.number + 1;
        let mut header = RecordHeader::control(Kind::Reset, 0);
        header.low = number;
        self.append_durably(Batch::from([(header, Bytes::new())])).await?;
        let fresh = {
            let mut state = self.state.borrow_mut();
            state.points.clear();
            state.captured.clear();
            state.low = number;
            Fresh {
                number,
                previous: Previous::default(),
                low: number,
                oldest: state.oldest,
                tally: state.tally,
                life: state.life,
            }
        };
        let next = match self.begin(&fresh).await {
            // What is captured into the segment that was reset would be lost.
            Err(Error::NoSpace { .. }) => {
                return Err(self.fail("beginning anew", std::io::ErrorKind::StorageFull.into()));
            }
            next => next?,
        };
        let old = {
            let mut state = self.state.borrow_mut();
            std::mem::replace(&mut state.current, next)
        };
        self.remove_below_low().await;
        if let Err(error) = self.ctx.storage.remove(&old.segment.path).await {
            let path = old.segment.path.display();
            tracing::warn!(%path, %error, "cannot remove a segment");
        }
        Ok(())
    }
}

impl State {
    /// The oldest segment that is needed when everything below `below` is withdrawn.
    fn low_after(&self, below: u64) -> u64 {
        let needed =
            self.sealed.values().find(|s| s.summary.entries > 0 && s.summary.most >= below);
        needed.map_or(self.current.segment.number, |sealed| sealed.segment.number)
    }

    /// Whether nothing was appended to the segment that is being written.
    pub(super) fn is_blank(&self) -> bool {
        self.current.tail == RECORDS_START
    }
}
