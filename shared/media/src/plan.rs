//! What a caller says about a set before and after it is written, and what it is told.

use std::path::PathBuf;
use std::rc::Rc;

use grain::fingerprint::Fingerprint;
use grain::{CutId, Geometry, GrainSet, RelationshipId, SetId};
use serde::{Deserialize, Serialize};
use wire::{Recipient, SiteKeys};

use crate::error::MediaError;

/// Bounded size of a segment unless said otherwise: 1 GiB.
pub const DEFAULT_SEGMENT_BYTES: u64 = 1 << 30;
/// The smallest segment that is accepted: room for one record of the largest grain.
pub const MIN_SEGMENT_BYTES: u64 = 64 << 10;
/// Memory for content on its way to the media unless said otherwise: 48 MiB.
pub const DEFAULT_QUEUE_BYTES: u64 = 48 << 20;
/// The most media of one set.
pub const MAX_MEDIA: usize = 999;
/// The most grains of a geometry that a set covers (4 PiB at 64 KiB): bounds the memory that a
/// directory can ask of its reader.
pub const MAX_GRAINS: u64 = 1 << 36;

/// The cut that a set holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutFacts {
    /// Its id.
    pub cut: CutId,
    /// When it was made, milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// The source's lineage up to it, in the caller's own form.
    pub lineage: Vec<u8>,
}

/// Everything about a set that is known before its first grain.
#[derive(Clone)]
pub struct SetPlan {
    /// The id of the set, fresh.
    pub set: SetId,
    /// The relationship.
    pub relationship: RelationshipId,
    /// Its name at the source, for the label.
    pub relationship_name: String,
    /// Grain size and volumes.
    pub geometry: Geometry,
    /// What is copied.
    pub cut: CutFacts,
    /// The cut that the receiver must hold already (a differential); none for a full copy.
    pub basis: Option<CutId>,
    /// One directory a medium, at least one, in the order of their numbers.
    pub media: Vec<PathBuf>,
    /// The largest size of a segment file in bytes; see [`DEFAULT_SEGMENT_BYTES`].
    pub segment_bytes: u64,
    /// The bytes of content that may wait in memory; see [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: u64,
    /// The zstd level (negative ones are faster), or none to store raw.
    pub level: Option<i32>,
    /// For whom the set is sealed beside the source itself; none leaves it unencrypted.
    pub sealing: Option<Vec<Recipient>>,
    /// For whom, in words, for the label.
    pub recipient_names: Vec<String>,
    /// The keys of the source, which sign the set.
    pub keys: Rc<SiteKeys>,
    /// The relationship's ticket, for the label.
    pub ticket: String,
}

impl SetPlan {
    /// Checks the plan against itself.
    pub(crate) fn check(&self) -> Result<(), MediaError> {
        let bad = |why: String| Err(MediaError::Plan(why));
        check_geometry(&self.geometry).map_err(MediaError::Plan)?;
        if self.media.is_empty() || self.media.len() > MAX_MEDIA {
            return bad(format!("a set has 1 to {MAX_MEDIA} media, not {}", self.media.len()));
        }
        for (i, dir) in self.media.iter().enumerate() {
            if self.media.iter().take(i).any(|other| other == dir) {
                return bad(format!("{} is given twice", dir.display()));
            }
        }
        if self.segment_bytes < MIN_SEGMENT_BYTES {
            return bad(format!("segments of {} bytes are too small", self.segment_bytes));
        }
        if self.ticket.len() + self.relationship_name.len() > 128 << 10 {
            return bad("the ticket is too long for a label".into());
        }
        if self.cut.lineage.len() > wire::codec::MAX_BYTES / 4 {
            return bad("the lineage is too long for a directory".into());
        }
        Ok(())
    }

    /// Whether the content is encrypted.
    pub fn sealed(&self) -> bool {
        self.sealing.is_some()
    }
}

/// Checks a geometry from a plan or a directory.
pub(crate) fn check_geometry(geometry: &Geometry) -> Result<(), String> {
    geometry.validate().map_err(|e| e.to_string())?;
    let grains = geometry.total_grains();
    if grains > MAX_GRAINS {
        return Err(format!("{grains} grains are more than {MAX_GRAINS}; choose larger grains"));
    }
    Ok(())
}

/// What is known when the last grain was pushed.
#[derive(Clone, Default)]
pub struct FinishInfo {
    /// Set when the copy is not exactly the cut: the cut that must be passed before it is consistent.
    pub fuzzy_end: Option<CutId>,
    /// Grains that the source could not read: named in the directory, never silently zero.
    pub unreadable: GrainSet,
}

/// Progress of a set being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Bytes of content taken, zero runs not counted.
    pub bytes_in: u64,
    /// Grains taken as zero runs.
    pub zero_grains: u64,
    /// Records written.
    pub records: u64,
    /// Bytes written to each medium, in order.
    pub medium_bytes: Vec<u64>,
    /// Bytes waiting for each medium.
    pub queued_bytes: Vec<u64>,
    /// Segments that are finished and durable.
    pub segments: u64,
    /// Grains that are durable on the media.
    pub durable_grains: u64,
}

/// What a finished set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSummary {
    /// Which set.
    pub set: SetId,
    /// The root digest over all its grains; belongs beside the cut in the lineage.
    pub root_digest: [u8; 32],
    /// The fingerprint over the sampled chunks of all its grains.
    pub fingerprint: Fingerprint,
    /// Grains held, zero ones included.
    pub grains: u64,
    /// Of them, not zero.
    pub data_grains: u64,
    /// Segment files.
    pub segments: u64,
    /// Bytes on each medium, all files.
    pub medium_bytes: Vec<u64>,
}
