//! What an attach decides: the rule that fired, who may overwrite whom, by which means, and why.
//!
//! All of it is data. Words for people are the binaries' business.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::lineage::EpochGap;
use crate::{CutId, Position, SessionId};

/// One of the two sites, as the one that decided sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The site whose facts came first.
    Mine,
    /// The other.
    Theirs,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Mine => Side::Theirs,
            Side::Theirs => Side::Mine,
        }
    }
}

/// The rules of the table, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Another relationship, geometry or volume size.
    Unrelated,
    /// No common cut.
    NoAncestor,
    /// A source does not trust its own base.
    Suspect,
    /// Two replicas.
    NoSource,
    /// A source, and a replica that holds exactly the same.
    InStep,
    /// A source, and a replica in its past.
    Delta,
    /// A source, and a replica that holds something which the source does not know.
    Ahead,
    /// Two sources, both acknowledged writes alone.
    SplitBrain,
    /// Two sources, one promoted, the other untouched since.
    Promoted,
    /// Two sources, exactly one acknowledged writes alone.
    IdlePromotion,
    /// Any other two sources.
    Diverged,
}

impl Rule {
    /// All, in their order.
    pub const ALL: [Rule; 11] = [
        Rule::Unrelated,
        Rule::NoAncestor,
        Rule::Suspect,
        Rule::NoSource,
        Rule::InStep,
        Rule::Delta,
        Rule::Ahead,
        Rule::SplitBrain,
        Rule::Promoted,
        Rule::IdlePromotion,
        Rule::Diverged,
    ];

    /// The rule's name, as documents, status and logs write it.
    pub fn name(self) -> &'static str {
        match self {
            Rule::Unrelated => "unrelated",
            Rule::NoAncestor => "no-ancestor",
            Rule::Suspect => "suspect",
            Rule::NoSource => "no-source",
            Rule::InStep => "in-step",
            Rule::Delta => "delta",
            Rule::Ahead => "ahead",
            Rule::SplitBrain => "split-brain",
            Rule::Promoted => "promoted",
            Rule::IdlePromotion => "idle-promotion",
            Rule::Diverged => "diverged",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Who can be named as the loser: a side whose counterpart has something to overwrite it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Losers {
    /// Neither site has a copy that could stand.
    Nobody,
    /// Only mine.
    Mine,
    /// Only theirs.
    Theirs,
    /// Whichever the operator names.
    Either,
}

impl Losers {
    pub(super) fn new(mine: bool, theirs: bool) -> Losers {
        match (mine, theirs) {
            (true, true) => Losers::Either,
            (true, false) => Losers::Mine,
            (false, true) => Losers::Theirs,
            (false, false) => Losers::Nobody,
        }
    }

    /// Whether this side can be named.
    pub fn includes(self, side: Side) -> bool {
        match self {
            Losers::Nobody => false,
            Losers::Mine => side == Side::Mine,
            Losers::Theirs => side == Side::Theirs,
            Losers::Either => true,
        }
    }
}

/// Who may overwrite whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overwrite {
    /// Nobody anybody.
    Nobody,
    /// The loser has nothing that the other does not know: no word of the operator is needed.
    ByItself {
        /// Whose data is overwritten.
        loser: Side,
    },
    /// Only after the operator has named the loser.
    Named {
        /// Who can be named.
        losers: Losers,
        /// Whom to offer: the one that loses least.
        offered: Option<Side>,
    },
}

/// How the loser becomes what the winner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Means {
    /// Nothing has to move.
    Nothing,
    /// Nothing may.
    Refuse,
    /// The delta: every epoch since the common cut is known.
    Delta {
        /// The broken session whose grains count.
        carries: Option<SessionId>,
    },
    /// Digests of all grains travel, then what differs. Reads all of both sides, so it waits for the
    /// operator even where no loser has to be named.
    Compare,
    /// A full copy, when it is asked for.
    FullCopyOnRequest,
}

/// A piece of why, in the order in which it is worth saying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The relationship ids differ.
    OtherRelationship,
    /// The grain sizes differ.
    OtherGrainSize,
    /// The volumes differ: their number, names or sizes.
    OtherVolumes,
    /// This side holds nothing.
    Empty(Side),
    /// The chains share no cut.
    NoCommonCut,
    /// This side is a source that does not trust its base.
    Suspect(Side),
    /// This side has relinquished its role.
    Relinquished(Side),
    /// This side, a replica, holds a cut that the other does not know.
    UnknownCut(Side, CutId),
    /// This side, a replica, is beyond the end that the other recorded for the epoch.
    SequenceBeyond(Side, Position, u64),
    /// The other side does not know how far the epoch of this side's position went.
    EndUnknown(Side, Position),
    /// As before, and this side wrote grains in it which the other never did.
    Forked(Side, Position),
    /// This side is a fuzzy seed whose end cut the other does not know.
    FuzzyEndUnknown(Side, CutId),
    /// This side was promoted, and the other does not know that cut.
    Promoted(Side, CutId),
    /// This side acknowledged writes alone: the head then, and when in Unix milliseconds.
    Alone(Side, CutId, u64),
    /// This side wrote so many grains since the common cut, at most; `None`: cannot be counted.
    Tail(Side, Option<u64>),
    /// This side's copy is not a usable point in time.
    Inconsistent(Side),
    /// This side lacks grains: damaged, not loaded yet.
    Missing(Side, u64, u64),
    /// No side can supply the layer of this epoch.
    EpochUnknown(EpochGap),
    /// A broken session goes on: what had not arrived of it.
    CarriesOver(SessionId, u64),
}

/// What has to be found out before a refusal is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
    /// The replica sends its open layer; the source looks whether it lies within its own layers of that
    /// epoch ([`open_layer_within`](crate::lineage::open_layer_within)) and says so in its next facts
    /// ([`OpenWithin`](super::OpenWithin)).
    OpenLayer {
        /// The replica.
        replica: Side,
        /// Its position.
        position: Position,
    },
}

/// The outcome of an attach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The rule that fired: the first of the table that applies.
    pub rule: Rule,
    /// The newest cut that both hold.
    pub common: Option<CutId>,
    /// Who may overwrite whom.
    pub overwrite: Overwrite,
    /// By which means.
    pub means: Means,
    /// The most grains that will move; `None` where only a comparison can tell.
    pub estimated_grains: Option<u64>,
    /// Why, in order.
    pub reasons: Vec<Reason>,
    /// What could change the verdict.
    pub question: Option<Question>,
}

impl Verdict {
    /// Whether the pull begins without anybody's word.
    pub fn starts_by_itself(&self) -> bool {
        matches!((self.overwrite, self.means), (Overwrite::ByItself { .. }, Means::Delta { .. }))
    }

    /// The same verdict as the other side sees it.
    pub fn mirrored(mut self) -> Verdict {
        self.overwrite = match self.overwrite {
            Overwrite::Nobody => Overwrite::Nobody,
            Overwrite::ByItself { loser } => Overwrite::ByItself { loser: loser.other() },
            Overwrite::Named { losers, offered } => Overwrite::Named {
                losers: Losers::new(losers.includes(Side::Theirs), losers.includes(Side::Mine)),
                offered: offered.map(Side::other),
            },
        };
        self.question = self.question.map(|Question::OpenLayer { replica, position }| {
            Question::OpenLayer { replica: replica.other(), position }
        });
        self.reasons = self.reasons.into_iter().map(Reason::mirrored).collect();
        self.reasons.sort_unstable();
        self
    }
}

impl Reason {
    /// The same reason as the other side sees it.
    pub fn mirrored(self) -> Reason {
        use Reason::*;
        match self {
            OtherRelationship | OtherGrainSize | OtherVolumes | NoCommonCut => self,
            EpochUnknown(_) | CarriesOver(..) => self,
            Empty(side) => Empty(side.other()),
            Suspect(side) => Suspect(side.other()),
            Relinquished(side) => Relinquished(side.other()),
            UnknownCut(side, cut) => UnknownCut(side.other(), cut),
            SequenceBeyond(side, position, end) => SequenceBeyond(side.other(), position, end),
            EndUnknown(side, position) => EndUnknown(side.other(), position),
            Forked(side, position) => Forked(side.other(), position),
            FuzzyEndUnknown(side, cut) => FuzzyEndUnknown(side.other(), cut),
            Promoted(side, cut) => Promoted(side.other(), cut),
            Alone(side, cut, unix_ms) => Alone(side.other(), cut, unix_ms),
            Tail(side, grains) => Tail(side.other(), grains),
            Inconsistent(side) => Inconsistent(side.other()),
            Missing(side, damaged, not_loaded) => Missing(side.other(), damaged, not_loaded),
        }
    }
}
