//! What can go wrong with a history, and who must act on it.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use grain::{ErrorClass, Span};

use super::Moment;

/// An error of the history.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed before anything was promised on it (opening, reading).
    #[error("history: cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: Rc<io::Error>,
    },
    /// A write or a sync failed. What was not durable is unknown, and no sync of that segment is believed
    /// again: drop this history and open it anew. Nothing durable is lost; reading goes on.
    #[error("history: {action} of segment {segment} failed, reopen the history: {source}")]
    Failed {
        /// `write`, `sync` and the like.
        action: &'static str,
        /// The segment's number.
        segment: u64,
        /// Why.
        source: Rc<io::Error>,
    },
    /// The file system has no room. What the call did not yet make durable does not count; it may be tried
    /// again.
    #[error("history: no space for {bytes} more bytes in {path}")]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// How many were wanted.
        bytes: u64,
    },
    /// The configuration cannot work.
    #[error("history: {0}")]
    Config(String),
    /// A segment was written for other volumes or another grain size.
    #[error("history: {path} belongs to another geometry")]
    OtherGeometry {
        /// The segment.
        path: PathBuf,
    },
    /// A segment or record was written by a newer version.
    #[error("history: segment {segment}: {what} {value} is of a newer version than this program")]
    Newer {
        /// The segment's number.
        segment: u64,
        /// `version`, `record kind` or `record flags`.
        what: &'static str,
        /// What stands there.
        value: u32,
    },
    /// Stored bytes are not what was written.
    #[error("history: segment {segment} offset {offset}: {what}")]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// Where it starts.
        offset: u64,
        /// What does not check.
        what: &'static str,
    },
    /// The moment lies before what is kept.
    #[error("history: commit {} is withdrawn, the oldest that is kept is {oldest}", .moment.commit)]
    Withdrawn {
        /// What was asked.
        moment: Moment,
        /// See [`super::History::oldest`].
        oldest: u64,
    },
    /// Bytes outside the volumes, or content of another length.
    #[error("history: {span:?} cannot be kept: {why}")]
    BadSpan {
        /// The span.
        span: Span,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A point older than the newest, a label that is too long, or a number that no commit has.
    #[error("history: commit {commit}: {why}")]
    BadPoint {
        /// Its commit.
        commit: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Error {
    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Failed { .. } => ErrorClass::Retry,
            Error::Io { .. }
            | Error::NoSpace { .. }
            | Error::Config(_)
            | Error::OtherGeometry { .. }
            | Error::Withdrawn { .. }
            | Error::Newer { .. } => ErrorClass::Operator,
            Error::Damaged { .. } => ErrorClass::Corrupt,
            Error::BadSpan { .. } | Error::BadPoint { .. } => ErrorClass::Bug,
        }
    }

    /// True when this history takes nothing more and has to be opened anew.
    pub fn needs_reopen(&self) -> bool {
        matches!(self, Error::Failed { .. })
    }

    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), source: Rc::new(source) }
    }
}
