//! Reading media: what is on these disks, are they whole, and their content with proof.
//!
//! [`Medium`] looks at one directory, [`SignedSet`] at the media of one set without a key,
//! [`SetView`] with one, [`SegmentReader`] reads a segment. Every byte is foreign until its digest
//! was compared with one that the source signed.

mod damage;
mod extract;
mod medium;
mod recover;
mod segment_reader;
mod signed;
mod view;

pub use damage::{Damage, Fault, IndexSource};
pub use extract::{Proof, RootVerdict};
pub use medium::Medium;
pub use segment_reader::{SegmentEvent, SegmentReader, VerifiedRun};
pub use signed::SignedSet;
pub use view::{KeySource, SegmentPlace, SegmentStatus, SetView};
