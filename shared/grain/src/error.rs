//! The crate's error type: foreign bytes and facts that cannot be right, named by field and place.

use crate::{CutId, ErrorClass, GeometryError, IdError};

/// What this crate refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A geometry outside its bounds.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// A text that is not an identifier.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The wire form of a grain set is malformed.
    #[error("grain map, byte {offset}: {field} {problem}")]
    Map {
        /// Which field of the format.
        field: &'static str,
        /// Offset in the chunk, in bytes, where reading stopped.
        offset: usize,
        /// What is wrong, as the predicate of a sentence.
        problem: &'static str,
    },
    /// A cut that cannot stand where it is said to.
    #[error("cut {cut} {problem}")]
    Lineage {
        /// Which cut.
        cut: CutId,
        /// What is wrong, as the predicate of a sentence.
        problem: &'static str,
    },
    /// Facts of an attach that cannot be true or are too large.
    #[error("facts of the attach: {field} {problem}")]
    Facts {
        /// Which field.
        field: &'static str,
        /// What is wrong, as the predicate of a sentence.
        problem: &'static str,
    },
    /// A stored fingerprint is malformed.
    #[error("the stored fingerprint {problem}")]
    Fingerprint {
        /// What is wrong, as the predicate of a sentence.
        problem: &'static str,
    },
    /// Our own data has no encoded form.
    #[error("the {0} cannot be encoded")]
    Encode(&'static str),
}

impl Error {
    /// Who must act. What comes over the link is the peer's; a reader of stored bytes knows that
    /// they are its own and says so.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Geometry(_) | Error::Id(_) => ErrorClass::Operator,
            Error::Map { .. } | Error::Lineage { .. } | Error::Facts { .. } => ErrorClass::Peer,
            Error::Fingerprint { .. } => ErrorClass::Corrupt,
            Error::Encode(_) => ErrorClass::Bug,
        }
    }
}
