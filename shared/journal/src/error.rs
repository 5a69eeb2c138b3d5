//! What can go wrong with a journal, and who must act on it.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use grain::{CutId, ErrorClass, Run, SessionId};

/// An error of the journal.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed before anything was promised on it (opening, creating, reading).
    #[error("journal: cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: Rc<io::Error>,
    },
    /// A write or a sync of the current segment failed. What was appended since the last good sync
    /// is unknown, and no sync of that segment is believed again: drop this journal and open it
    /// anew, which keeps what was durable and starts a fresh segment. Nothing durable is lost.
    #[error("journal: {action} of segment {segment} failed, reopen the journal: {source}")]
    Failed {
        /// `write` or `sync`.
        action: &'static str,
        /// The segment's number.
        segment: u64,
        /// Why.
        source: Rc<io::Error>,
    },
    /// The journal has no room below its limits. Nothing was appended; there is room again when
    /// committed records are applied or sessions aborted.
    #[error("journal: full: {needed} more bytes wanted, {room} left of {limit}")]
    Full {
        /// Bytes that the record takes.
        needed: u64,
        /// Bytes left.
        room: u64,
        /// `max_bytes` of the configuration.
        limit: u64,
    },
    /// As many records wait as the index in memory may hold. As [`Error::Full`].
    #[error("journal: {records} records wait to be applied, the limit in memory")]
    TooManyRecords {
        /// How many.
        records: u64,
    },
    /// The file system has no room for another segment. Nothing was appended.
    #[error("journal: no space for a segment of {bytes} bytes in {path}")]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Size of a segment.
        bytes: u64,
    },
    /// The configuration cannot work.
    #[error("journal: {0}")]
    Config(String),
    /// A segment was written for other volumes or another grain size.
    #[error("journal: {path} belongs to another relationship or geometry")]
    OtherGeometry {
        /// The segment.
        path: PathBuf,
    },
    /// A segment or record was written by a newer version.
    #[error("journal: segment {segment}: {what} {value} is of a newer version than this program")]
    Newer {
        /// The segment's number.
        segment: u64,
        /// `version` or `record kind`.
        what: &'static str,
        /// What stands there.
        value: u32,
    },
    /// Stored bytes of these grains are not what was written.
    #[error("journal: segment {segment} offset {offset}: {what}; grains {run:?} are damaged")]
    Damaged {
        /// The segment's number.
        segment: u64,
        /// Where the record starts.
        offset: u64,
        /// What does not check.
        what: &'static str,
        /// The grains that cannot be had from here.
        run: Run,
    },
    /// The session was never begun.
    #[error("journal: session {0} was not begun")]
    UnknownSession(SessionId),
    /// The session was committed or aborted, or its commit is under way.
    #[error("journal: session {0} has ended")]
    SessionEnded(SessionId),
    /// The session was begun for another cut.
    #[error("journal: session {session} belongs to cut {has}, not {asked}")]
    SessionCut {
        /// Which session.
        session: SessionId,
        /// The cut that it was begun with.
        has: CutId,
        /// The cut now named.
        asked: CutId,
    },
    /// A stream record without a stream or out of order, or a second stream.
    #[error("journal: {0}")]
    Stream(&'static str),
    /// The run is not in the geometry, or its content has another length, or it is longer than a
    /// record may be.
    #[error("journal: {run:?} cannot be a record: {why}")]
    BadRecord {
        /// The run.
        run: Run,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The body of a commit is longer than allowed.
    #[error("journal: a commit body of {bytes} bytes is more than {limit}")]
    BodyTooLong {
        /// Its length.
        bytes: u64,
        /// The most.
        limit: u64,
    },
}

impl Error {
    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Failed { .. } | Error::Full { .. } | Error::TooManyRecords { .. } => {
                ErrorClass::Retry
            }
            Error::Io { .. }
            | Error::NoSpace { .. }
            | Error::Config(_)
            | Error::OtherGeometry { .. }
            | Error::Newer { .. } => ErrorClass::Operator,
            Error::Damaged { .. } => ErrorClass::Corrupt,
            Error::UnknownSession(_)
            | Error::SessionEnded(_)
            | Error::SessionCut { .. }
            | Error::BadRecord { .. }
            | Error::BodyTooLong { .. }
            | Error::Stream(_) => ErrorClass::Bug,
        }
    }

    /// True when there is no room below the limits: what is applied or committed may make some.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. } | Error::TooManyRecords { .. })
    }

    /// True when this journal takes nothing more and has to be opened anew.
    pub fn needs_reopen(&self) -> bool {
        matches!(self, Error::Failed { .. })
    }

    pub(crate) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), source: Rc::new(source) }
    }
}
