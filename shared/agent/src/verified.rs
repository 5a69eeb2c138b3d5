//! Verification for people: what was found, how far one is, and what that means for who asked.

use grain::Geometry;
use replication::state::Verified;
use serde::{Deserialize, Serialize};
use site::amount::counted;
use site::{Exit, Problem};

use crate::problem::of_replication;

/// What is asked of `verify`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyArguments {
    /// Bytes a second read at each site at most; 0 for no limit.
    pub rate_bytes: u64,
    /// What differs is pulled from the source.
    pub repair: bool,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifiedStatus {
    /// The cut that was compared.
    pub cut: String,
    /// When it ended, milliseconds since 1970, by the replica's clock.
    pub unix_ms: u64,
    /// Share of all grains that was found equal by digest, 0 to 1.
    pub share: f64,
    /// Grains of all volumes.
    pub total_grains: u64,
    /// Grains whose digests were compared.
    pub compared_grains: u64,
    /// Not compared because they were written meanwhile.
    pub written_grains: u64,
    /// Not compared because the replica lacks them.
    pub missing_grains: u64,
    /// Not compared because the source's disk does not give them.
    pub unreadable_at_source_grains: u64,
    /// Differed twice, or cannot be read at the replica.
    pub different_grains: u64,
    /// Of them, those that cannot be read at the replica.
    pub unreadable_grains: u64,
    /// Of them, those that were pulled since and are right.
    pub repaired_grains: u64,
    /// The first places of what differs, in words.
    pub places: Vec<String>,
    /// At the replica: the index of what a repair overwrote.
    pub kept: Option<String>,
}

impl VerifiedStatus {
    /// The same with places in words.
    pub fn of(verified: &Verified, geometry: &Geometry) -> VerifiedStatus {
        VerifiedStatus {
            cut: verified.cut.map(|cut| cut.to_string()).unwrap_or_default(),
            unix_ms: verified.unix_ms,
            share: verified.share(),
            total_grains: verified.total_grains,
            compared_grains: verified.compared_grains,
            written_grains: verified.written_grains,
            missing_grains: verified.missing_grains,
            unreadable_at_source_grains: verified.unreadable_at_source_grains,
            different_grains: verified.different_grains,
            unreadable_grains: verified.unreadable_grains,
            repaired_grains: verified.repaired_grains,
            places: verified
                .places
                .iter()
                .map(|run| crate::status::place(*run, geometry))
                .collect(),
            kept: verified.kept.as_ref().map(|path| path.display().to_string()),
        }
    }

    /// Grains that still differ.
    pub fn wrong_grains(&self) -> u64 {
        self.different_grains.saturating_sub(self.repaired_grains)
    }

    /// What differs, in words; nothing where nothing does.
    pub fn difference(&self) -> Option<String> {
        let wrong = self.wrong_grains();
        if wrong == 0 {
            return None;
        }
        let shown = self.places.join(", ");
        let more = if (self.places.len() as u64) < wrong { ", ..." } else { "" };
        let verb = if wrong == 1 { "differs" } else { "differ" };
        Some(format!("{} {verb} from the source: {shown}{more}", counted(wrong as usize, "grain")))
    }

    /// What the caller is told beside the figures, if anything.
    pub fn problem(&self) -> Option<Problem> {
        if let Some(difference) = self.difference() {
            let safe = match &self.kept {
                None => "Nothing was changed at either site.".to_owned(),
                Some(path) => format!("What was overwritten at the replica is kept: {path}"),
            };
            return Some(Problem::new("differs", difference, Exit::FINGERPRINT).safe(safe).todo(
                "Look at the disk under the replica's volumes and at who else opens them, and decide which \
                 side is right: no digest of an older copy is kept that could tell. `verify NAME --repair` \
                 takes the source's bytes, and keeps the replica's aside.",
            ));
        }
        if self.unreadable_at_source_grains > 0 {
            let grains = counted(self.unreadable_at_source_grains as usize, "grain");
            let what = format!("the source's disk does not give {grains}, which prove nothing");
            return Some(
                Problem::new("unreadable", what, Exit::UNREADABLE)
                    .safe("Everything else was compared.")
                    .todo("See to the disk of the source."),
            );
        }
        None
    }
}

/// How far a verification is, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VerifyProgress {
    /// Counts up.
    pub number: u32,
    /// What it does, in words.
    pub doing: String,
    /// Grains of that.
    pub total_grains: u64,
    /// Of them, those that are done.
    pub done_grains: u64,
    /// Bytes read here.
    pub read_bytes: u64,
    /// Why it ended without a result.
    pub problem: Option<Problem>,
    /// What it found.
    pub result: Option<VerifiedStatus>,
}

impl VerifyProgress {
    /// Whether it is under way.
    pub fn is_running(&self) -> bool {
        self.result.is_none() && self.problem.is_none()
    }
}

/// A verification that ended without a result, in words.
pub(crate) fn of_verify(e: &replication::Error) -> Problem {
    match e {
        replication::Error::Link(what) => Problem::new("link", what.clone(), Exit::RETRY)
            .safe("Nothing was overwritten that is not kept.")
            .todo("Look at `status`, and try again when the sites are connected."),
        other => of_replication(other),
    }
}
