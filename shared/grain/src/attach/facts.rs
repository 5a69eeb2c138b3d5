//! What one site tells the other at an attach.

use serde::{Deserialize, Serialize};

use crate::lineage::{Count, Holding, PartialSession};
use crate::{CutId, Error, Geometry, Layer, Lineage, Position, RelationshipId, SessionId};

/// Which side of the relationship a site plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves the application.
    Source,
    /// Follows a source.
    Replica,
}

/// Since when a site has acknowledged writes without this peer. Durable before the first such reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AloneMark {
    /// The head of the site when the mark was made.
    pub since: CutId,
    /// What the peer had acknowledged by then.
    pub acknowledged: Option<Position>,
    /// When, in Unix milliseconds; shown, never decided upon.
    pub unix_ms: u64,
}

/// Grains that a site should hold and does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingGrains {
    /// Known to be damaged or unreadable; pulled.
    pub damaged: u64,
    /// Waiting for their medium; pulled when the operator gives up waiting.
    pub not_loaded: u64,
}

impl MissingGrains {
    /// Both together.
    pub fn total(&self) -> u64 {
        self.damaged.saturating_add(self.not_loaded)
    }
}

/// A copy session that broke before its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartialFacts {
    /// Its id.
    pub session: SessionId,
    /// The cut that it copied.
    pub cut: CutId,
    /// Grains that had not arrived.
    pub remaining: u64,
    /// Whether it went straight into the base.
    pub direct: bool,
}

/// How whole a site's copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFacts {
    /// Whether the copy is a usable point in time, as far as the site itself can tell.
    pub consistent: bool,
    /// What it lacks.
    pub missing: MissingGrains,
    /// What a broken session left.
    pub partial: Option<PartialFacts>,
    /// Of a fuzzy seed: the cut that a catch-up must pass before the copy is consistent (rule 7).
    pub fuzzy_end: Option<CutId>,
}

/// A source's answer to [`Question::OpenLayer`](super::Question::OpenLayer).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWithin {
    /// The replica's position that was asked about; an answer to another one does not count.
    pub position: Position,
    /// Whether all that the replica wrote in that epoch stands in the source's layers of it.
    pub within: bool,
}

/// What one site tells at an attach, frozen for its length.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Which relationship.
    pub relationship: RelationshipId,
    /// Its grain size and volumes, as this site has them.
    pub geometry: Geometry,
    /// Source or replica.
    pub role: Role,
    /// Of a source: a base sync failed, or a base was touched behind our back.
    pub suspect: bool,
    /// Of a source: it has given up its role for good, durably.
    pub relinquished: bool,
    /// Of a source that became one by promotion: the cut made then, which it holds against merging
    /// ([`HeldCuts::promotion`](crate::lineage::HeldCuts::promotion)) as long as it says so.
    pub promoted: Option<CutId>,
    /// Of a source: that it has acknowledged writes without this peer.
    pub alone: Option<AloneMark>,
    /// Its chain of cuts; empty for an empty replica.
    pub lineage: Lineage,
    /// The last sequence number in the epoch after the head. A source counts every write, streamed or
    /// not: this is how a former source shows that it holds what the other never saw.
    pub sequence: u64,
    /// The closed layers that it can supply, with the number of grains written in each (bits that
    /// were set ahead not counted).
    pub layers: Vec<Layer<Count>>,
    /// Grains in its open layer; with those of a direct catch-up that was not committed (rule 10).
    pub open_grains: u64,
    /// How whole its copy is.
    pub copy: CopyFacts,
    /// Answer to an earlier verdict's question.
    pub open_within: Option<OpenWithin>,
}

impl Facts {
    /// The most cuts of a lineage.
    pub const MAX_CUTS: usize = 100_000;
    /// The most layers.
    pub const MAX_LAYERS: usize = 100_000;
    /// The most cut ids in the names of all layers together.
    pub const MAX_NAMES: usize = 400_000;

    /// What it holds: its newest cut, and the stream after it. `None` for an empty site.
    pub fn position(&self) -> Option<Position> {
        let cut = self.lineage.head()?.id;
        Some(Position { cut, sequence: self.sequence })
    }

    /// Whether it holds nothing at all.
    pub fn is_empty(&self) -> bool {
        self.lineage.head().is_none()
    }

    /// Whether it is a source that has not relinquished.
    pub fn serves(&self) -> bool {
        self.role == Role::Source && !self.relinquished
    }

    /// Whether its content may stand, when the operator says so: a serving source, or a replica with a
    /// whole and consistent copy.
    pub fn may_win(&self) -> bool {
        let copy = &self.copy;
        let whole = copy.consistent
            && copy.missing.total() == 0
            && copy.fuzzy_end.is_none()
            && !copy.partial.is_some_and(|partial| partial.direct);
        !self.is_empty() && (self.serves() || whole)
    }

    /// Bounds and agreements within the facts; those of a peer pass through here before anything else.
    pub fn validate(&self) -> Result<(), Error> {
        let wrong = |field, problem| Err(Error::Facts { field, problem });
        self.geometry.validate()?;
        self.lineage.validate(Self::MAX_CUTS)?;
        if self.layers.len() > Self::MAX_LAYERS {
            return wrong("layers", "are too many");
        }
        let names: usize = self.layers.iter().map(|layer| layer.name.names.len()).sum();
        if names > Self::MAX_NAMES {
            return wrong("layers", "have too many names");
        }
        self.layers.iter().try_for_each(|layer| layer.name.validate())?;
        let total = self.geometry.total_grains();
        let counts = [
            ("layers", self.layers.iter().map(|layer| layer.grains.0).max().unwrap_or(0)),
            ("open grains", self.open_grains),
            ("damaged grains", self.copy.missing.damaged),
            ("grains not loaded", self.copy.missing.not_loaded),
            ("remaining grains", self.copy.partial.map_or(0, |partial| partial.remaining)),
        ];
        if let Some((field, _)) = counts.iter().find(|(_, count)| *count > total) {
            return wrong(field, "are more than the volumes have");
        }
        if self.is_empty() && (self.serves() || self.sequence > 0 || self.copy.consistent) {
            return wrong("lineage", "is empty, but the site claims to hold something");
        }
        Ok(())
    }

    /// A digest of all of it: each side echoes that of the facts it heard (rule 15). BLAKE3 in a
    /// domain of its own over the bincode form with fixed-size integers.
    pub fn hash(&self) -> Result<[u8; 32], Error> {
        let config = bincode::config::standard().with_fixed_int_encoding();
        let mut hasher = blake3::Hasher::new_derive_key("grainhaul attach facts 1");
        match bincode::serde::encode_into_std_write(self, &mut hasher, config) {
            Ok(_) => Ok(*hasher.finalize().as_bytes()),
            Err(_) => Err(Error::Encode("facts of the attach")),
        }
    }

    /// The same facts in the terms of the lineage rules, over counts.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            open: Count(self.open_grains),
            missing: Count(self.copy.missing.total()),
            remaining: Count(self.copy.partial.map_or(0, |partial| partial.remaining)),
        }
    }

    /// What it brings to a delta, with the counts that [`Facts::counts`] gave.
    pub(super) fn holding<'a>(&'a self, counts: &'a Counts) -> Holding<'a, Count> {
        let partial = self.copy.partial.map(|partial| PartialSession {
            session: partial.session,
            cut: partial.cut,
            remaining: &counts.remaining,
        });
        Holding {
            lineage: &self.lineage,
            layers: &self.layers,
            open: &counts.open,
            direct: &Count(0),
            missing: &counts.missing,
            partial,
            fuzzy_end: self.copy.fuzzy_end,
        }
    }
}

/// Counts of [`Facts`] as the lineage rules take them.
pub(super) struct Counts {
    open: Count,
    missing: Count,
    remaining: Count,
}
