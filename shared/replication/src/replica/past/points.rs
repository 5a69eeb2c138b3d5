//! The points that one can go back to: noted at each commit, named by people, withdrawn before what they rest
//! on goes.

use std::rc::Rc;

use grain::CutId;
use journal::Moment;
use journal::history::{History, Point};
use tokio::time::Instant;

use super::{Replica, Retain, TRIM_EVERY};
use crate::source::check_label;
use crate::{Error, Result};

/// A point in the past of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastPoint {
    /// The cut.
    pub cut: CutId,
    /// When the source made it.
    pub unix_ms: u64,
    /// What people call it.
    pub label: Option<String>,
}

impl From<Point> for PastPoint {
    fn from(Point { cut, unix_ms, label, .. }: Point) -> PastPoint {
        PastPoint { cut, unix_ms, label }
    }
}

/// What somebody wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Everything that counts now.
    Latest,
    /// The newest point at or before this Unix time in milliseconds.
    Time(u64),
    /// The point at this cut.
    Cut(CutId),
    /// The newest point with this label.
    Label(String),
}

/// What the source calls a cut is shown to people.
pub(in crate::replica) fn check_name(label: Option<&str>) -> Result<()> {
    let checked = label.map_or(Ok(()), check_label);
    checked.map_err(|what| Error::Peer(format!("a bookmark: {what}")))
}

impl Replica {
    /// The points that one can go back to, oldest first.
    pub fn points(&self) -> Vec<PastPoint> {
        let points = self.history().map(|history| history.points()).unwrap_or_default();
        points.into_iter().map(PastPoint::from).collect()
    }

    /// A point of the history, and the moment in the order of what is applied at which it stands.
    pub(super) fn find_point(&self, history: &History, at: &At) -> Result<(PastPoint, Moment)> {
        let points = history.points();
        let found = match at {
            At::Latest => points.last(),
            At::Time(unix_ms) => points.iter().rev().find(|point| point.unix_ms <= *unix_ms),
            At::Cut(cut) => points.iter().find(|point| point.cut == *cut),
            At::Label(label) => {
                points.iter().rev().find(|point| point.label.as_deref() == Some(label))
            }
        };
        let first = points.first();
        let found = found.map(|point| (point.clone().into(), Moment::after(point.commit)));
        found.ok_or_else(|| {
            let what = match at {
                At::Latest => "no point".to_owned(),
                At::Time(_) => "no point as old as that".to_owned(),
                At::Cut(cut) => format!("no point at the cut {cut}"),
                At::Label(label) => format!("no bookmark `{label}`"),
            };
            Error::State(match first {
                None => format!("there is {what}: no history has been kept yet"),
                Some(point) => format!(
                    "there is {what}; the oldest of the {} kept here is the cut {}",
                    points.len(),
                    point.cut
                ),
            })
        })
    }

    /// The newest commit is a point, if the replica is at one.
    pub(in crate::replica) async fn note_point(&self) -> Result<()> {
        let Some(kept) = self.kept().filter(|kept| kept.lasting) else { return Ok(()) };
        let (number, head) = (self.commit_number(), self.head());
        let Some(cut) = head.filter(|_| number >= kept.from && self.is_consistent()) else {
            return Ok(());
        };
        if self.past.noted.replace(Some(number)) == Some(number) {
            return Ok(());
        }
        let (unix_ms, label) = self.store.with(|s| {
            let replica = s.replica.as_ref();
            let committed = replica.and_then(|r| r.committed_unix_ms);
            let unix_ms = committed.or_else(|| s.lineage.head().map(|cut| cut.unix_ms));
            (unix_ms, replica.and_then(|r| r.committed_label.clone()))
        });
        let unix_ms = unix_ms.unwrap_or_else(|| self.ctx.unix_ms());
        let point = Point { commit: number, cut, unix_ms, label };
        // Whoever sees it in the list finds it there after a crash.
        let noted = match kept.history.note_point(point).await {
            Ok(()) => kept.history.sync().await,
            Err(error) => Err(error),
        };
        if let Err(error) = noted {
            self.give_up_history(&format!("a point cannot be noted: {error}")).await?;
        }
        Ok(())
    }

    /// Something of after this commit is lost: points from the next one on are not what they say.
    pub(in crate::replica) async fn withdraw_after(&self, commit: u64) -> Result<()> {
        let Some(history) = self.history() else { return Ok(()) };
        self.end_views_where("what it shows was found damaged", |moment| moment.commit > commit);
        match history.withdraw_from(commit + 1).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.give_up_history(&format!("a point cannot be withdrawn: {error}")).await
            }
        }
    }

    /// Lets go what is older than is asked for, or what there is no room for. Views hold what they show, up
    /// to twice the room.
    pub(in crate::replica) async fn trim_history(&self) -> Result<()> {
        let Retain::Up { bytes, age } = self.settings.history.retain else { return Ok(()) };
        let Some(history) = self.history() else { return Ok(()) };
        if let Err(error) = self.trim(&history, bytes, age.as_millis() as u64).await {
            self.give_up_history(&format!("what is too old cannot be let go: {error}")).await?;
        }
        Ok(())
    }

    async fn trim(&self, history: &Rc<History>, most: u64, age_ms: u64) -> Result<()> {
        let since = self.ctx.unix_ms().saturating_sub(age_ms);
        let due = self.past.trimmed.get().is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        if !due && history.stats().file_bytes <= most {
            return Ok(());
        }
        self.past.trimmed.set(Some(Instant::now()));
        while let Some(below) = history.next_release() {
            let bytes = history.stats().file_bytes;
            // The point before the time asked for stays, for it is what shows that time.
            let old = history.points().iter().any(|p| p.commit >= below && p.unix_ms <= since);
            if !old && bytes <= most {
                break;
            }
            let looked_at = self.past.oldest_view().is_some_and(|moment| moment.commit < below);
            if looked_at && bytes <= most.saturating_mul(2) {
                break;
            }
            if looked_at {
                let why = "the history needs its room (--retain-bytes)";
                self.end_views_where(why, |moment| moment.commit < below);
            }
            history.withdraw_below(below).await?;
        }
        Ok(())
    }
}
