//! How an opening goes on after the last segment: what of it is copied into the new one, and whether
//! the new one follows it or takes its place. Decisions only; `recovery` carries them out.

use std::collections::BTreeSet;
use std::rc::Rc;

use grain::SessionId;

use crate::Config;
use crate::chain::Chain;
use crate::index::Place;
use crate::layout::Previous;
use crate::record::{Kind, RecordHeader};
use crate::replay::Replay;
use crate::segment::Segment;

/// What goes from the last segment into the new one.
pub(crate) struct Copy {
    /// The new segment's number and what stood before it.
    pub number: u64,
    pub previous: Previous,
    /// The last segment as it was, if it can be read.
    pub from: Option<Rc<Segment>>,
    pub headers: Vec<RecordHeader>,
    /// What stands in the last segment from here on leaves it.
    pub sealed: u64,
}

/// The ways to go on after the last segment, the preferred one first; `None` without any segment.
pub(crate) fn plan(chain: &Chain, replay: &Replay<'_>, config: &Config) -> Option<Vec<Copy>> {
    let last = chain.links.last()?;
    let (sealed, nonce) = match &last.segment {
        Some(segment) => (last.scan.durable, segment.nonce),
        // Nothing says what is in it: the end of the file makes it count as damage ever after.
        None => (last.scan.end, [0; 16]),
    };
    let seal = Copy {
        number: last.number + 1,
        previous: Previous { number: last.number, nonce, end: sealed },
        from: last.segment.clone(),
        headers: last.scan.records.iter().filter(|r| r.offset >= sealed).copied().collect(),
        sealed,
    };
    let Some(header) = last.header.as_ref().filter(|_| last.scan.damage.is_empty()) else {
        return Some(vec![seal]);
    };
    let mut replace = Copy {
        number: last.number,
        previous: header.previous,
        from: last.segment.clone(),
        headers: Vec::new(),
        sealed: 0,
    };
    let low = low_water(chain, replay, &replace);
    let live = live_sessions(replay);
    let counts = |r: &&RecordHeader| match r.kind {
        Kind::Commit => low < last.number || r.sequence > chain.progress.applied,
        Kind::Abort => low < last.number,
        Kind::StreamData | Kind::StreamZero => r.newest_commit > chain.progress.applied,
        _ => live.contains(&r.session),
    };
    replace.headers = last.scan.records.iter().filter(counts).copied().collect();
    // Little is left, or all of it is copied anyway: then the last segment would stay behind with nothing
    // in it, one more at every opening, as long as a session holds the low-water mark back.
    let kept = kept_bytes(&replace.headers);
    if kept > config.capacity() / 2 && kept > kept_bytes(&seal.headers) {
        return Some(vec![seal]);
    }
    Some(vec![replace, seal])
}

/// Sessions whose records count still.
fn live_sessions(replay: &Replay<'_>) -> BTreeSet<SessionId> {
    let adopted = replay.commits.values().flat_map(|c| &c.sessions).map(|(a, _)| a.session);
    replay.sessions.keys().copied().chain(adopted).collect()
}

/// The oldest segment that is needed once `copy` is done.
pub(crate) fn low_water(chain: &Chain, replay: &Replay<'_>, copy: &Copy) -> u64 {
    let last = chain.links.last().map_or(0, |link| link.number);
    let after = |place: Place| match place.segment == last && place.offset >= copy.sealed {
        true => copy.number,
        false => place.segment,
    };
    let commits = replay.commits.values().map(|commit| commit.place);
    let adopted = replay.commits.values().flat_map(|c| &c.sessions).map(|(_, found)| found);
    let records = replay.sessions.values().chain(adopted).flat_map(|found| &found.records);
    let places = commits.chain(records.map(|record| record.place));
    places.map(after).min().unwrap_or(copy.number).min(copy.number)
}

/// Bytes that these records take.
pub(crate) fn kept_bytes(records: &[RecordHeader]) -> u64 {
    records.iter().map(RecordHeader::stride).sum()
}
