//! Which histories there are: their steps, their limits, and which rule is switched off.

/// What the third site is in the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A replica like the second.
    Seeded,
    Empty,
    /// A source that shares no cut with the others.
    Stranger,
}

/// What is kept of layers that nobody needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every layer as it was made.
    AllApart,
    /// Every layer, merged where nobody names the cut between.
    AllMerged,
    /// Merged, and only what some peer is known to need.
    WhatIsNeeded,
}

/// A rule that is switched off, to see that the oracle notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Off {
    Nothing,
    /// A layer supplies every epoch that begins where it begins (rule 1).
    BothEnds,
    /// A commit records only the grains in which the sites differ, not the whole union (rule 3).
    UnionInCommit,
    /// A promoted site forgets how far its source said that layers are needed (rule 5).
    Anchor,
    /// A start after an unclean stop takes up nothing (rule 6).
    UncleanUnion,
    /// Whoever has the cut of an epoch counts as a member of it, however far the epoch went (rule 8).
    Sequences,
    /// A start after an unclean stop makes no cut: the epoch goes on with what is left of it (rule 12).
    StartCut,
}

/// Which histories are walked.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    pub steps: usize,
    /// The most cuts in a chain.
    pub cuts: usize,
    /// The most writes in an epoch.
    pub writes: u64,
    pub third: Beginning,
    pub keep: Keep,
    /// The word of a commit may be lost.
    pub words_lost: bool,
    /// Connected replicas take single records.
    pub streams: bool,
    /// Sources stop unclean; one machine is put back to an older image.
    pub disasters: bool,
    /// Promotions at an earlier point.
    pub earlier: bool,
    pub off: Off,
}

impl Space {
    /// Catch-ups alone, and nothing is ever merged or dropped.
    pub const CYCLES: Space = Space {
        steps: 8,
        cuts: 4,
        writes: 1,
        third: Beginning::Seeded,
        keep: Keep::AllApart,
        words_lost: false,
        streams: false,
        disasters: false,
        earlier: false,
        off: Off::Nothing,
    };
}

/// One step of a history; sites by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Write(usize),
    /// A cut that nobody takes at once, also of an epoch without a write.
    Cut(usize),
    Promote(usize),
    /// At the cut that stands at this place in its chain.
    PromoteAt(usize, usize),
    /// A source becomes a replica of another site.
    GiveWay {
        site: usize,
        to: usize,
    },
    /// After an unclean stop, which took what was not synced, or nothing.
    Restart {
        site: usize,
        loses: bool,
    },
    /// An image of a machine is taken; one in a history.
    Snapshot(usize),
    /// The machine is put back to its image.
    PutBack,
    /// Everything that follows from an attach; the operator names the replica as the loser where one has to
    /// be named. `heard`: the source hears of the commit.
    Attach {
        source: usize,
        replica: usize,
        heard: bool,
    },
    /// A replica takes the next record of its stream, a write or a cut.
    Receive(usize),
    LinkLost(usize),
}
