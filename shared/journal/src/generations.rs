//! What counts and is not in the base yet, kept apart where somebody looks back.
//!
//! One [`Index`] keeps the newest version of a byte and forgets older ones. Who wants to see the replica as
//! it was at a moment needs the version of that moment: at a *split* the index so far becomes an older
//! generation, and what counts from then on is laid into a new one. Generations are brought into the base
//! whole, the oldest first, so that the base passes through every moment at which there was a split. Without
//! splits there is one generation, and nothing is kept twice.

use std::collections::VecDeque;

use grain::{Span, VolumeId};

use crate::Moment;
use crate::index::{Index, Stretch};

/// See the module.
#[derive(Default)]
pub(crate) struct Generations {
    /// The oldest first; none of them is empty.
    older: VecDeque<(Moment, Index)>,
    moment: Moment,
    newest: Index,
}

impl Generations {
    /// The moment after which what comes now is laid down.
    pub(crate) fn moment(&self) -> Moment {
        self.moment
    }

    /// What comes from here on is of after `moment`.
    pub(crate) fn split(&mut self, moment: Moment) {
        debug_assert!(moment >= self.moment);
        let before = std::mem::replace(&mut self.moment, moment);
        if !self.newest.is_empty() {
            self.older.push_back((before, std::mem::take(&mut self.newest)));
        }
    }

    /// Lays a record, which begins at byte `start`, over everything older.
    pub(crate) fn insert(&mut self, volume: VolumeId, start: u64, stretch: Stretch) {
        self.newest.insert(volume, start, stretch);
    }

    /// Takes bytes out of the newest generation.
    pub(crate) fn forget(&mut self, span: Span) {
        self.newest.remove(span, |_| true);
    }

    /// Takes the bytes of `span` out of the generation of `moment` where `which` holds. It is the one
    /// that is being brought into the base: the first.
    pub(crate) fn remove(&mut self, moment: Moment, span: Span, which: impl Fn(&Stretch) -> bool) {
        match self.older.front_mut().filter(|(at, _)| *at == moment) {
            Some((_, index)) => {
                index.remove(span, which);
                if index.is_empty() {
                    self.older.pop_front();
                }
            }
            None if moment == self.moment => self.newest.remove(span, which),
            None => {}
        }
    }

    /// The generation that is brought into the base next.
    pub(crate) fn oldest(&self) -> (Moment, &Index) {
        self.older.front().map_or((self.moment, &self.newest), |(moment, index)| (*moment, index))
    }

    fn all(&self) -> impl DoubleEndedIterator<Item = (Moment, &Index)> {
        let older = self.older.iter().map(|(moment, index)| (*moment, index));
        older.chain([(self.moment, &self.newest)])
    }

    /// The newest version of each byte of `span` of those laid down before `before`, in address order.
    pub(crate) fn lookup(&self, span: Span, before: Option<Moment>) -> Vec<(Span, Stretch)> {
        let mut left = vec![span];
        let mut found: Vec<(Span, Stretch)> = Vec::new();
        let seen = self.all().rev().filter(|(at, _)| before.is_none_or(|before| *at < before));
        for (_, index) in seen.filter(|(_, index)| !index.is_empty()) {
            let mut uncovered = Vec::new();
            for span in left {
                let here = index.lookup(span);
                let covered = here.iter().map(|(at, _)| at.start..at.end());
                uncovered.extend(span.without(covered));
                found.extend(here);
            }
            left = uncovered;
        }
        found.sort_by_key(|(span, _)| span.start);
        found
    }

    /// Whether anything of this commit, or of the stream that follows it, is in here.
    pub(crate) fn waits(&self, commit: u64) -> bool {
        self.all().any(|(_, index)| index.waits(commit))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.older.is_empty() && self.newest.is_empty()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.all().map(|(_, index)| index.bytes()).sum()
    }

    pub(crate) fn pieces(&self) -> u64 {
        self.all().map(|(_, index)| index.pieces()).sum()
    }
}
