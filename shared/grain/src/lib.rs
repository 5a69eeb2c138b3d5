//! Pure data about grains: identifiers, geometry, sparse sets of grains, lineage arithmetic and
//! fingerprint sampling.
//!
//! Nothing in this crate does I/O, waits, reads a clock or draws a random number: whoever needs an
//! id or a sample position passes the random bytes in. That keeps every rule testable on its own.

pub mod attach;
mod error;
mod error_class;
pub mod fingerprint;
mod geometry;
mod ids;
pub mod lineage;
mod run;
mod set;
mod zero;

pub use error::Error;
pub use error_class::ErrorClass;
pub use geometry::{Geometry, GeometryError, GrainSize, VolumeId, VolumeShape};
pub use ids::{CutId, HistoryId, IdError, LayerId, RelationshipId, SessionId, SetId};
pub use lineage::{Cut, CutReason, Layer, LayerName, Lineage, Position};
pub use run::{Content, GrainData, Run, Span, SpanData};
pub use set::{ChunkCursor, GrainSet, GrainSetDecoder};
pub use zero::is_zero;
