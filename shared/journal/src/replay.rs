//! From the records found in the segments to sessions, commits and damage: what counts, what was
//! lost, and which grains that hits. Places are those of the files as found.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grain::{CutId, Geometry, GrainSet, GrainSetDecoder, SessionId, Span};

use crate::damage::{Damage, Stretch, What};
use crate::index::{Place, RecordRef};
use crate::journal::run_fits;
use crate::layout::Progress;
use crate::record::{Adopted, CommitPayload, Kind, RecordHeader, decode_abort};

/// A session as the log has it.
#[derive(Default)]
pub(crate) struct Found {
    pub cut: Option<CutId>,
    pub records: Vec<RecordRef>,
    pub bytes: u64,
    manifest: Option<Manifest>,
}

/// The manifest parts of a session.
struct Manifest {
    decoder: GrainSetDecoder,
    parts: u64,
    broken: bool,
}

/// A commit as the log has it.
pub(crate) struct FoundCommit {
    pub cut: CutId,
    pub body: Bytes,
    /// In version order.
    pub sessions: Vec<(Adopted, Found)>,
    pub place: Place,
    /// The stream that follows it, in order.
    pub stream: Vec<Write>,
    /// Whether one does.
    pub streams: bool,
    /// How many writes the stream before it had.
    before: u64,
}

/// A stream record as the log has it.
pub(crate) struct Write {
    pub sequence: u64,
    pub span: Span,
    pub place: Place,
    pub zero: bool,
}

/// See the module.
pub(crate) struct Replay<'a> {
    geometry: &'a Geometry,
    pub sessions: BTreeMap<SessionId, Found>,
    pub commits: BTreeMap<u64, FoundCommit>,
    /// Sessions that have ended, and the segment that says so.
    pub ended: BTreeMap<SessionId, u64>,
    /// Commits whose record is there and cannot be read.
    pub unreadable: BTreeSet<u64>,
    /// The largest number of a commit that any record names.
    pub newest: u64,
    pub damage: Vec<Damage>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(geometry: &'a Geometry) -> Self {
        Replay {
            geometry,
            sessions: BTreeMap::new(),
            commits: BTreeMap::new(),
            ended: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            newest: 0,
            damage: Vec::new(),
        }
    }

    /// Whether the payload of this record is needed now.
    pub(crate) fn wants_payload(header: &RecordHeader) -> bool {
        matches!(header.kind, Kind::Commit | Kind::Abort | Kind::Manifest)
    }

    /// Takes the next record of the log. `payload` is `None` when it does not check.
    pub(crate) fn take(&mut self, segment: u64, header: &RecordHeader, payload: Option<&Bytes>) {
        self.newest = self.newest.max(header.newest_commit);
        let place = Place { segment, offset: header.offset };
        let understood = match header.kind {
            Kind::CopyData | Kind::CopyZero => self.copy(header, place),
            Kind::Manifest => self.manifest(header, payload),
            Kind::Commit => self.commit(header, place, payload),
            Kind::Abort => self.abort(segment, payload),
            Kind::StreamData | Kind::StreamZero => self.write(header, place),
            Kind::Pad | Kind::Other(_) => Some(()),
        };
        if understood.is_none() {
            let what = if payload.is_none() { What::Payload } else { What::Record };
            self.damaged(place, header.stride(), what);
        }
    }

    fn damaged(&mut self, place: Place, bytes: u64, what: What) {
        let stretch = Stretch { segment: place.segment, offset: place.offset, bytes };
        self.damage.push(Damage { place: Some(stretch), what, grains: Some(GrainSet::new()) });
    }

    fn copy(&mut self, header: &RecordHeader, place: Place) -> Option<()> {
        let run = header.run;
        let range = self.geometry.byte_range(run.volume, run.first, run.count);
        let zero = header.kind == Kind::CopyZero;
        let expected = if zero { 0 } else { range.end - range.start };
        if !run_fits(self.geometry, run) || u64::from(header.payload) != expected {
            return None;
        }
        let found = self.sessions.entry(header.session).or_default();
        found.cut.get_or_insert(header.cut);
        found.bytes += header.stride();
        found.records.push(RecordRef::new(header, place.segment));
        Some(())
    }

    fn write(&mut self, header: &RecordHeader, place: Place) -> Option<()> {
        let span = header.span(self.geometry).filter(|span| self.geometry.holds_span(*span))?;
        // Of a commit that is wholly in the base or unreadable: the latter is told apart.
        if let Some(commit) = self.commits.get_mut(&header.newest_commit) {
            let (sequence, zero) = (header.sequence, header.is_zero());
            commit.stream.push(Write { sequence, span, place, zero });
        }
        Some(())
    }

    fn manifest(&mut self, header: &RecordHeader, payload: Option<&Bytes>) -> Option<()> {
        let found = self.sessions.entry(header.session).or_default();
        if header.sequence == 0 {
            // A commit that found no room was tried again.
            let decoder = GrainSetDecoder::new();
            found.manifest = Some(Manifest { decoder, parts: 0, broken: false });
        }
        let manifest = found.manifest.as_mut()?;
        let in_order = manifest.parts == header.sequence;
        manifest.parts += 1;
        let taken = payload
            .filter(|_| in_order && !manifest.broken)
            .map(|part| manifest.decoder.decode_chunk(part, self.geometry).is_ok());
        manifest.broken |= taken != Some(true);
        // A part after a broken one is not damaged itself.
        payload.is_some().then_some(())
    }

    fn commit(
        &mut self,
        header: &RecordHeader,
        place: Place,
        payload: Option<&Bytes>,
    ) -> Option<()> {
        let number = header.sequence;
        self.newest = self.newest.max(number);
        if self.commits.contains_key(&number) {
            // The second copy; that it is damaged costs nothing.
            return payload.is_some().then_some(());
        }
        let Some(payload) = payload.and_then(|bytes| CommitPayload::decode(bytes)) else {
            self.unreadable.insert(number);
            return None;
        };
        let mut sessions = Vec::with_capacity(payload.sessions.len());
        for adopted in payload.sessions {
            let found = self.sessions.remove(&adopted.session).unwrap_or_default();
            self.ended.insert(adopted.session, place.segment);
            sessions.push((adopted, found));
        }
        let body = Bytes::from(payload.body);
        let (cut, stream) = (header.cut, Vec::new());
        let (streams, before) = (header.run.count > 0, header.run.first);
        let found = FoundCommit { cut, body, sessions, place, stream, streams, before };
        self.commits.insert(number, found);
        Some(())
    }

    fn abort(&mut self, segment: u64, payload: Option<&Bytes>) -> Option<()> {
        for session in decode_abort(payload?)? {
            self.sessions.remove(&session);
            self.ended.insert(session, segment);
        }
        Some(())
    }

    /// Drops what is wholly in the base, and finds out what is missing of the rest. What a commit lost
    /// and no newer record brought again is named, and `lost` of each commit is filled.
    pub(crate) fn conclude(&mut self, progress: Progress) -> BTreeMap<u64, GrainSet> {
        self.newest = self.newest.max(progress.newest);
        self.commits = self.commits.split_off(&(progress.applied + 1));
        // A session of which only a manifest is left was never appended to.
        self.sessions.retain(|_, found| !found.records.is_empty());
        let gaps: Vec<u64> = (progress.applied + 1..=self.newest)
            .filter(|number| !self.commits.contains_key(number))
            .take(64)
            .collect();
        for number in gaps {
            let readable = !self.unreadable.contains(&number);
            self.damage.push(Damage {
                place: None,
                what: What::Commit { number, readable },
                grains: None,
            });
        }
        self.name_gaps();
        let mut lost = BTreeMap::new();
        let mut unknown = Vec::new();
        for (&number, commit) in &mut self.commits {
            let mut of_commit = GrainSet::new();
            for (adopted, found) in &mut commit.sessions {
                for record in &found.records {
                    of_commit.remove_run(record.run);
                }
                if found.records.len() as u64 == adopted.records {
                    continue;
                }
                match lost_of(adopted, found) {
                    Some(set) => of_commit.union_with(&set),
                    None => unknown.push((number, adopted.session)),
                }
            }
            if !of_commit.is_empty() {
                lost.insert(number, of_commit);
            }
        }
        for (commit, session) in unknown {
            let what = What::Records { commit, session };
            self.damage.push(Damage { place: None, what, grains: None });
        }
        self.name_lost(&lost);
        lost
    }

    /// Names the streams in which a write is missing. Which grains it hit stands nowhere here.
    fn name_gaps(&mut self) {
        let gaps: Vec<u64> = self
            .commits
            .iter()
            .filter(|(number, found)| {
                let numbers = found.stream.iter().map(|write| write.sequence);
                let whole = match self.commits.get(&(**number + 1)) {
                    Some(next) => next.before == found.stream.len() as u64,
                    // The last one: damage behind its writes may be of more of them.
                    None => !found.streams || !self.damaged_after(found),
                };
                !whole || !numbers.eq(1..=found.stream.len() as u64)
            })
            .map(|(number, _)| *number)
            .collect();
        for commit in gaps {
            self.damage.push(Damage { place: None, what: What::Stream { commit }, grains: None });
        }
    }

    fn damaged_after(&self, commit: &FoundCommit) -> bool {
        let end = commit.stream.last().map_or(commit.place, |write| write.place);
        let places = self.damage.iter().filter_map(|damage| damage.place);
        let mut places = places.map(|at| Place { segment: at.segment, offset: at.offset });
        places.any(|at| at > end)
    }

    /// Names the lost grains that no later commit brought again.
    fn name_lost(&mut self, lost: &BTreeMap<u64, GrainSet>) {
        for (&number, set) in lost {
            let mut left = set.clone();
            for (_, later) in self.commits.range(number + 1..) {
                for record in later.sessions.iter().flat_map(|(_, found)| &found.records) {
                    left.remove_run(record.run);
                }
            }
            let what = What::Grains { commit: number };
            self.damage.push(Damage { place: None, what, grains: Some(left) });
        }
    }
}

/// The grains of a session of which records are missing: `None` when nothing says which.
fn lost_of(adopted: &Adopted, found: &mut Found) -> Option<GrainSet> {
    let manifest = found.manifest.take().filter(|m| !m.broken)?;
    if manifest.parts != u64::from(adopted.manifests) {
        return None;
    }
    let mut set = manifest.decoder.finish().ok()?;
    if set.len() != adopted.grains {
        return None;
    }
    if adopted.disjoint {
        for record in &found.records {
            set.remove_run(record.run);
        }
    }
    // Else a record that is left may be an older version of a grain: all of the session is lost.
    Some(set)
}
