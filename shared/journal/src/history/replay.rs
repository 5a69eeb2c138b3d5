//! Going through the segments in their order: which points there are, what is withdrawn, and what a lost
//! record may have spoiled. Decisions only.
//!
//! A record that is lost can have been anything. What had been written by the time of the next record that
//! checks tells how bad it is: up to which commit something was captured (points up to there are spoilt,
//! for they may lack bytes), and whether a withdrawal is among what is lost (then the points from before
//! are suspect, for one of them may have been withdrawn).

use super::UNKNOWN;
use super::chain::{Content, Link};
use super::layout::Tally;
use super::record::{Kind, RECORD_HEADER, RecordHeader, decode_point};
use super::scan::{Item, refuse_newer};
use super::state::{Noted, note};
use super::{Error, index::Body};
use crate::layout::Nonce;

/// What the segments say.
#[derive(Default)]
pub(super) struct Replay {
    pub points: Vec<Noted>,
    /// Points of which a withdrawal may have been lost.
    pub suspects: Vec<Noted>,
    /// Points with a commit below this are spoilt.
    pub spoilt: u64,
    pub oldest: u64,
    pub low: u64,
    pub tally: Tally,
    pub life: u32,
    pub damage: Vec<String>,
    /// Something is lost, and nothing says what it can have been.
    pub unbounded: bool,
}

impl Replay {
    pub(super) fn of(links: &[Link]) -> Result<Replay, Error> {
        let mut replay = Replay::default();
        for link in links {
            replay.find_low(link)?;
        }
        let mut needed = false;
        for link in links {
            let last = match link.content {
                Content::Lost { to, .. } => to,
                _ => link.number,
            };
            if !needed && last >= replay.low {
                needed = true;
                replay.forget_damage();
            }
            replay.take(link)?;
        }
        if !needed {
            replay.forget_damage();
        }
        Ok(replay)
    }

    /// What stands in segments that are given up means nothing; what counts of it stands elsewhere.
    fn forget_damage(&mut self) {
        self.points.clear();
        self.suspects.clear();
        self.damage.clear();
        (self.spoilt, self.unbounded) = (0, false);
    }

    fn find_low(&mut self, link: &Link) -> Result<(), Error> {
        self.low = self.low.max(link.header.as_ref().map_or(0, |header| header.low));
        match &link.content {
            Content::Lost { .. } => {}
            Content::Scanned { scan, .. } => {
                for item in &scan.items {
                    if let Item::Event { header, .. } = item {
                        self.low = self.low.max(header.low.min(link.number + 1));
                    }
                }
            }
            Content::Indexed { segment, body, .. } => {
                for event in body.read_events(&segment.nonce) {
                    refuse_newer(segment.number, &event.0)?;
                    self.low = self.low.max(event.0.low.min(link.number + 1));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, link: &Link) -> Result<(), Error> {
        if let Some(header) = &link.header {
            self.resolve(header.tally);
            self.oldest = header.oldest;
            self.life = self.life.max(header.life);
        }
        let number = link.number;
        if link.header.is_none() && !matches!(link.content, Content::Lost { .. }) {
            self.damage.push(format!("segment {number}: the segment's header does not check"));
        }
        match &link.content {
            Content::Lost { why, to } => {
                let which = match to {
                    to if *to == number => format!("segment {number}"),
                    to => format!("segments {number} to {to}"),
                };
                self.damage.push(format!("{which}: {why}"));
                self.unbounded = true;
            }
            Content::Indexed { segment, head, body, .. } => {
                self.resolve(head.before);
                for (header, payload) in body.read_events(&segment.nonce) {
                    self.event(number, &header, payload);
                }
                self.tally = self.tally.max(head.after);
                self.life = self.life.max(head.life);
            }
            Content::Scanned { scan, open_end, .. } => {
                if let Some(first) = scan.first {
                    self.resolve(first);
                }
                for item in &scan.items {
                    self.item(number, item);
                }
                // Where nothing can be read, nothing is known of what follows.
                if scan.first.is_some() {
                    self.tally = self.tally.max(scan.last);
                }
                self.life = self.life.max(scan.life);
                if *open_end {
                    let end = scan.end;
                    self.damage.push(format!(
                        "segment {number}, offset {end}: nothing says where the segment ends"
                    ));
                    self.unbounded = true;
                }
            }
        }
        Ok(())
    }

    fn item(&mut self, segment: u64, item: &Item) {
        match item {
            Item::Event { header, payload } => self.event(segment, header, payload),
            Item::BadPoint { at } => self
                .damage
                .push(format!("segment {segment}, offset {at}: a point does not match its digest")),
            Item::Gap { from, to, tally } => {
                let bytes = to - from;
                self.damage.push(format!(
                    "segment {segment}, offset {from}, {bytes} bytes: no record where one was written"
                ));
                self.unbounded = true;
                if let Some(tally) = tally {
                    self.resolve(*tally);
                }
            }
        }
    }

    /// Before something that can be read, so much had been written.
    fn resolve(&mut self, tally: Tally) {
        if std::mem::take(&mut self.unbounded) {
            self.spoilt = self.spoilt.max(tally.reach).max(self.tally.reach);
            if tally.controls > self.tally.controls {
                self.suspects.append(&mut self.points);
            }
        }
        self.tally = self.tally.max(tally);
    }

    fn event(&mut self, segment: u64, header: &RecordHeader, payload: &[u8]) {
        let commit = header.commit;
        self.tally = self.tally.max(header.tally_after());
        match header.kind {
            Kind::Point => match decode_point(commit, payload) {
                Some(point) if self.oldest != UNKNOWN && commit >= self.oldest => {
                    note(&mut self.points, Noted { point, segment });
                }
                Some(_) => {}
                None => {
                    let at = header.offset;
                    self.damage.push(format!(
                        "segment {segment}, offset {at}: a point that makes no sense"
                    ));
                }
            },
            Kind::WithdrawFrom => self.retain(|noted| noted.point.commit < commit),
            Kind::WithdrawBelow => {
                self.oldest = match self.oldest {
                    UNKNOWN => commit,
                    oldest => oldest.max(commit),
                };
                self.retain(|noted| noted.point.commit >= commit);
            }
            Kind::Reset => self.retain(|_| false),
            Kind::SavedData | Kind::SavedZero | Kind::Other(_) => {}
        }
    }

    fn retain(&mut self, keep: impl Fn(&Noted) -> bool) {
        self.points.retain(&keep);
        self.suspects.retain(&keep);
    }
}

impl Body {
    /// The records of points and withdrawals, with their payload.
    fn read_events(&self, nonce: &Nonce) -> impl Iterator<Item = (RecordHeader, &[u8])> {
        self.events.iter().filter_map(|event| {
            let header = RecordHeader::decode(event, nonce)?;
            Some((header, event.get(RECORD_HEADER..)?))
        })
    }
}
