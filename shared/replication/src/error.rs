//! The error type of this crate: what went wrong, and who must act.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use grain::{CutId, ErrorClass};

/// What can go wrong in a role. Every variant has a class that drives retry, exit code and log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `read`, `write`, `sync`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// A file of ours does not hold what we wrote.
    #[error("{} is damaged: {detail}", path.display())]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What does not fit, with offset where there is one.
        detail: String,
    },
    /// The tracking data cannot be made durable any more; writes are refused.
    #[error("changes can no longer be recorded: {0}")]
    TrackingFailed(String),
    /// A cut could not be made because writes inside the gate did not finish in time.
    #[error("no cut: writes under way did not finish within {0} ms")]
    CutTimeout(u64),
    /// Something was asked for that the present state forbids.
    #[error("{0}")]
    State(String),
    /// A cut is not known here.
    #[error("cut {0} is not known at this site")]
    UnknownCut(CutId),
    /// The peer broke the protocol, or sent what cannot be.
    #[error("the peer sent something that cannot be: {0}")]
    Peer(String),
    /// The session with the peer ended.
    #[error("the link ended: {0}")]
    Link(String),
    /// The attach rules refuse.
    #[error("attach refused by rule `{rule}`: {detail}")]
    Refused {
        /// The rule's name as in the attach table.
        rule: String,
        /// What is known of both sides.
        detail: String,
    },
    /// The sampled fingerprint differs.
    #[error("fingerprint mismatch: {0}")]
    Fingerprint(String),
    /// What was loaded reads back as something else than the source signed.
    #[error("fingerprint mismatch: {0}")]
    SeedFingerprint(String),
    /// The source's disk does not give grains that this replica needs.
    #[error("{0}")]
    Unreadable(String),
    /// A volume is not what it was: other size, other content behind our back.
    #[error("volume {alias}: {detail}")]
    Volume {
        /// The volume's alias.
        alias: String,
        /// What is different.
        detail: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(Rc<journal::Error>),
    /// The media set.
    #[error(transparent)]
    Media(Rc<media::MediaError>),
    /// The job was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with what was being done to which file.
    pub fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { what, path, source: Arc::new(source) }
    }

    /// A damaged file.
    pub fn corrupt(path: impl Into<PathBuf>, detail: impl Into<String>) -> Error {
        Error::Corrupt { path: path.into(), detail: detail.into() }
    }

    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::TimedOut => ErrorClass::Retry,
                _ => ErrorClass::Operator,
            },
            Error::Corrupt { .. } => ErrorClass::Corrupt,
            Error::CutTimeout(_) | Error::Link(_) => ErrorClass::Retry,
            Error::TrackingFailed(_)
            | Error::State(_)
            | Error::UnknownCut(_)
            | Error::Volume { .. }
            | Error::Cancelled => ErrorClass::Operator,
            Error::Peer(_) => ErrorClass::Peer,
            Error::Journal(e) => e.class(),
            Error::Media(e) => e.class(),
            Error::Refused { .. }
            | Error::Fingerprint(_)
            | Error::SeedFingerprint(_)
            | Error::Unreadable(_) => ErrorClass::Operator,
        }
    }
}

impl From<journal::Error> for Error {
    fn from(e: journal::Error) -> Error {
        Error::Journal(Rc::new(e))
    }
}

impl From<media::MediaError> for Error {
    fn from(e: media::MediaError) -> Error {
        Error::Media(Rc::new(e))
    }
}
