//! Reading: what the base held at a moment.

use std::rc::Rc;

use grain::{GrainSet, Span, VolumeId};

use crate::segment::read_twice;

use super::index::{self, BLOCK, Entry};
use super::scan::{Item, Known, scan};
use super::segment::Segment;
use super::spans::Spans;
use super::state::{Index, Sealed, State};
use super::{Error, History, Moment, Saved};

/// Blocks that are read at a time when all are wanted.
const BLOCKS_A_READ: u64 = 64;

/// An entry and its segment.
type Candidate = (Entry, Rc<Segment>);

impl History {
    /// For each byte of `span` that some record at or after `moment` has: the earliest such record, which
    /// is what the base held when the replica was at `moment`. In address order, without overlaps; bytes
    /// that no record has are as the base has them. May read index blocks of sealed segments.
    ///
    /// It says what was captured when it is called: read the base before, not after.
    ///
    /// # Errors
    /// [`Error::Withdrawn`], [`Error::Damaged`] when an index and the records below it cannot be read,
    /// [`Error::Io`].
    pub async fn lookup(&self, moment: Moment, span: Span) -> Result<Vec<Saved>, Error> {
        let (life, mut candidates, sealed) = {
            let state = self.state.borrow();
            state.check_kept(moment)?;
            let found = state.in_current(moment, span);
            (state.life, found, state.sealed_with(self, moment, span))
        };
        for (at, one) in sealed.iter().enumerate() {
            for entry in self.entries_in(one, moment, span).await? {
                if entry.moment(life) >= moment {
                    candidates.push((entry, one.segment.clone()));
                }
            }
            // The rest are of later commits: nothing is left for them when all is covered.
            let covered = |later: &Rc<Sealed>| covers(&candidates, span, later.summary.least);
            if sealed.get(at + 1).is_some_and(covered) {
                break;
            }
        }
        self.state.borrow().check_kept(moment)?;
        self.resolve(moment, span, life, candidates).await
    }

    /// Gives each byte to the candidate that was saved first.
    async fn resolve(
        &self,
        moment: Moment,
        span: Span,
        life: u32,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Saved>, Error> {
        candidates.sort_by_key(|(entry, segment)| entry.rank(life, segment.number));
        let (mut taken, mut found) = (Spans::default(), Vec::new());
        for (entry, segment) in candidates {
            let Some(part) = clip(entry.span(), span) else { continue };
            for span in taken.missing(part) {
                let file = self.file_of(&segment, moment).await?;
                let (ctx, segment) = (self.ctx.clone(), segment.clone());
                found.push(Saved { ctx, segment, file, entry, span });
            }
            taken.insert(part);
        }
        found.sort_by_key(|saved| saved.span.start);
        Ok(found)
    }

    /// The grains touched by records at or after `moment`: where the replica then and its base now may
    /// differ.
    ///
    /// # Errors
    /// As [`History::lookup`].
    pub async fn changed_since(&self, moment: Moment) -> Result<GrainSet, Error> {
        let (life, mut changed, sealed) = {
            let state = self.state.borrow();
            state.check_kept(moment)?;
            let mut changed = GrainSet::new();
            for entry in state.current.entries.values() {
                if entry.moment(state.life) >= moment {
                    changed.insert_run(self.geometry.touched_by(entry.span()));
                }
            }
            let sealed = state.sealed.values().filter(|s| s.summary.entries > 0);
            let sealed: Vec<_> = sealed.filter(|s| s.summary.most >= moment.commit).collect();
            (state.life, changed, sealed.into_iter().cloned().collect::<Vec<_>>())
        };
        for sealed in sealed {
            if Moment::after(sealed.summary.least) >= moment {
                changed.union_with(&sealed.summary.touched);
                continue;
            }
            for entry in self.all_entries(&sealed, moment).await? {
                if entry.moment(life) >= moment {
                    changed.insert_run(self.geometry.touched_by(entry.span()));
                }
            }
        }
        Ok(changed)
    }

    /// The entries of a sealed segment that overlap `span`.
    async fn entries_in(
        &self,
        sealed: &Rc<Sealed>,
        moment: Moment,
        span: Span,
    ) -> Result<Vec<Entry>, Error> {
        let low = span.start.saturating_sub(sealed.summary.longest);
        let (low, high) = ((span.volume, low), (span.volume, span.end()));
        let Some((at, first, blocks)) = sealed.blocks_between(low, high) else {
            let Index::Memory(entries) = &*sealed.index.borrow() else { return Ok(Vec::new()) };
            let from = entries.partition_point(|e| (e.volume, e.start) < low);
            let rest = entries.get(from..).unwrap_or_default().iter();
            let found = rest.take_while(|e| (e.volume, e.start) < high);
            return Ok(found.filter(|e| clip(e.span(), span).is_some()).copied().collect());
        };
        let mut found = Vec::new();
        for number in first..first + blocks {
            let Some(block) = self.block(sealed, at, number, moment).await? else {
                self.rebuild(sealed, moment).await?;
                return Box::pin(self.entries_in(sealed, moment, span)).await;
            };
            found.extend(block.iter().filter(|e| clip(e.span(), span).is_some()).copied());
        }
        Ok(found)
    }

    /// One block of an index; `None` when it does not check.
    async fn block(
        &self,
        sealed: &Sealed,
        at: u64,
        number: u64,
        moment: Moment,
    ) -> Result<Option<Rc<Vec<Entry>>>, Error> {
        let key = (sealed.segment.number, number);
        if let Some(block) = self.cache.borrow_mut().get(key) {
            return Ok(Some(block));
        }
        let file = self.file_of(&sealed.segment, moment).await?;
        let Ok(bytes) = read_twice(&file, at + number * BLOCK, BLOCK as usize).await else {
            return Ok(None);
        };
        let Some(entries) = self.decode(&bytes, number, sealed) else {
            return Ok(None);
        };
        let block = Rc::new(entries);
        self.cache.borrow_mut().put(key, block.clone());
        Ok(Some(block))
    }

    /// The entries of a block, if it checks and all of them are bytes of the volumes.
    fn decode(&self, bytes: &[u8], number: u64, sealed: &Sealed) -> Option<Vec<Entry>> {
        let entries = index::decode_block(bytes, number, &sealed.segment.nonce)?;
        entries.iter().all(|entry| self.geometry.holds_span(entry.span())).then_some(entries)
    }

    /// All entries of a sealed segment.
    pub(super) async fn all_entries(
        &self,
        sealed: &Rc<Sealed>,
        moment: Moment,
    ) -> Result<Vec<Entry>, Error> {
        let (at, blocks) = match &*sealed.index.borrow() {
            Index::Memory(entries) => return Ok(entries.to_vec()),
            Index::Disk { at, fences } => (*at, fences.len() as u64),
        };
        let file = self.file_of(&sealed.segment, moment).await?;
        let mut found = Vec::with_capacity(sealed.summary.entries as usize);
        for first in (0..blocks).step_by(BLOCKS_A_READ as usize) {
            let count = BLOCKS_A_READ.min(blocks - first);
            let read = read_twice(&file, at + first * BLOCK, (count * BLOCK) as usize).await;
            let bytes = read.unwrap_or_default();
            for number in first..first + count {
                let from = ((number - first) * BLOCK) as usize;
                let block = bytes.get(from..from + BLOCK as usize).unwrap_or_default();
                match self.decode(block, number, sealed) {
                    Some(entries) => found.extend(entries),
                    None => {
                        self.rebuild(sealed, moment).await?;
                        return Box::pin(self.all_entries(sealed, moment)).await;
                    }
                }
            }
        }
        Ok(found)
    }

    /// Finds the entries of a segment by its records, because its index does not check.
    async fn rebuild(&self, sealed: &Rc<Sealed>, moment: Moment) -> Result<(), Error> {
        let segment = &sealed.segment;
        tracing::warn!(segment = segment.number, "history: an index does not check, made anew");
        let file = self.file_of(segment, moment).await?;
        let known = Known::Sealed(sealed.end);
        let mut found = scan(&self.ctx, segment, &file, &self.geometry, known).await?;
        for item in &found.items {
            if let Item::Gap { from, .. } = item {
                let what = "neither the index nor the records check";
                return Err(Error::Damaged { segment: segment.number, offset: *from, what });
            }
        }
        found.entries.sort_unstable_by_key(Entry::key);
        *sealed.index.borrow_mut() = Index::Memory(Rc::new(found.entries));
        Ok(())
    }
}

/// Whether candidates of commits before `commit` cover all of `span`.
fn covers(candidates: &[Candidate], span: Span, commit: u64) -> bool {
    let mut covered = Spans::default();
    for (entry, _) in candidates.iter().filter(|(entry, _)| entry.commit < commit) {
        if let Some(part) = clip(entry.span(), span) {
            covered.insert(part);
        }
    }
    covered.missing(span).is_empty()
}

/// What two spans have in common.
fn clip(one: Span, other: Span) -> Option<Span> {
    let start = one.start.max(other.start);
    let end = one.end().min(other.end());
    let common = one.volume == other.volume && start < end;
    common.then(|| Span { volume: one.volume, start, bytes: end - start })
}

impl State {
    /// What the segment that is being written has of `span`, at or after `moment`.
    fn in_current(&self, moment: Moment, span: Span) -> Vec<Candidate> {
        let current = &self.current;
        let low = span.start.saturating_sub(current.summary.longest);
        let range = (span.volume, low, 0)..(span.volume, span.end(), 0);
        let entries = current.entries.range(range).map(|(_, entry)| entry);
        let later = entries.filter(|entry| entry.moment(self.life) >= moment);
        let hit = later.filter(|entry| clip(entry.span(), span).is_some());
        hit.map(|entry| (*entry, current.segment.clone())).collect()
    }

    /// The sealed segments that may have something, those with the oldest records first.
    fn sealed_with(&self, history: &History, moment: Moment, span: Span) -> Vec<Rc<Sealed>> {
        let may = |s: &&Rc<Sealed>| s.summary.may_have(moment, span, &history.geometry);
        let mut sealed: Vec<_> = self.sealed.values().filter(may).cloned().collect();
        sealed.sort_by_key(|s| (s.summary.least, s.segment.number));
        sealed
    }
}

impl Sealed {
    /// Where the blocks stand, the first that may have keys from `low` on, and how many there are up to
    /// `high`; `None` when the index is in memory.
    fn blocks_between(
        &self,
        low: (VolumeId, u64),
        high: (VolumeId, u64),
    ) -> Option<(u64, u64, u64)> {
        let Index::Disk { at, fences } = &*self.index.borrow() else { return None };
        let first = fences.partition_point(|fence| *fence < low).saturating_sub(1);
        let end = fences.partition_point(|fence| *fence < high).max(first);
        Some((*at, first as u64, (end - first) as u64))
    }
}
