//! Media sets: the disks that are shipped. Writing, reading, checking.
//!
//! A set holds one copy session on one or more media; a medium is a directory on any file system.
//! [`SetWriter`] makes a set, [`Medium`] and [`SetView`] read one. All file access goes through
//! [`disk::Context`], everything that burns CPU through its pool; the rest runs on one thread.
//!
//! Promises: nothing counts as complete without the source's signature over it; damage costs only the
//! records that it hit; bytes that do not match a signed digest are never handed out; a reader needs
//! no trust in what it reads, and no memory of the writer's choosing.
//!
//! It does not know where grains come from or go to, and judges no cut: the lineage passes through as
//! opaque bytes. Formats: `docs/formats/media-set.md`, `media-segment.md`,
//! `media-directory.md`.

mod directory;
mod error;
mod fields;
mod frame;
mod hashes;
mod index;
mod kept;
mod label;
pub mod names;
mod part;
mod plan;
mod reader;
mod record;
mod root_digest;
mod runs;
mod scan;
mod seal;
mod segment;
mod writer;

pub use directory::{
    Directory, MAX_DIRECTORY_BYTES, Manifest, ManifestFile, SegmentFacts, SetFacts, SignedDirectory,
};
pub use error::MediaError;
pub use fields::BadField;
pub use kept::{KeptBytes, KeptIndex, KeptPiece};
pub use label::{Label, MAX_LABEL_BYTES, MediumState};
pub use plan::{
    CutFacts, DEFAULT_QUEUE_BYTES, DEFAULT_SEGMENT_BYTES, FinishInfo, MAX_GRAINS, MAX_MEDIA,
    MIN_SEGMENT_BYTES, SetPlan, SetSummary, WriterCounters,
};
pub use reader::*;
pub use record::{Encoding, MAX_RECORD_BYTES};
pub use root_digest::{LANES, RootSum, SUM_BYTES};
pub use seal::{SALT_BYTES, SetKey, TAG_BYTES};
pub use segment::Stripe;
pub use writer::{SetWriter, remove_set};
