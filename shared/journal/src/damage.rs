//! What recovery found damaged, in words and in grains.

use std::fmt;

use grain::{GrainSet, SessionId};

/// Where in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The segment's number.
    pub segment: u64,
    /// Byte offset in its file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A segment's file is not there.
    SegmentMissing,
    /// Neither copy of a segment's header checks, or it is another segment's.
    SegmentHeader,
    /// Bytes that were synced are no records.
    Bytes,
    /// A record's payload does not match its digest.
    Payload,
    /// A record checks and makes no sense.
    Record,
    /// A commit record is not there, or cannot be read.
    Commit {
        /// The commit's number.
        number: u64,
        /// False when its header is there and its payload is damaged.
        readable: bool,
    },
    /// A commit names more records of a session than are there, and nothing says which grains.
    Records {
        /// The commit's number.
        commit: u64,
        /// The session.
        session: SessionId,
    },
    /// Writes of the stream that follows a commit are not there, before others that are. The grains that
    /// they hit are among those that the owner knows to have been written in that epoch.
    Stream {
        /// The commit's number.
        commit: u64,
    },
    /// A commit names more records than are there; these grains stood in them.
    Grains {
        /// The commit's number.
        commit: u64,
    },
}

/// Damage below the durable mark, found when the journal was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where, when it has a place.
    pub place: Option<Stretch>,
    /// What.
    pub what: What,
    /// The grains that this makes missing. Empty when it hits none by itself (what it costs is named
    /// apart). `None` when nothing says which: then no grain of the replica can be relied on until it
    /// has been compared.
    pub grains: Option<GrainSet>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Stretch { segment, offset, bytes }) = self.place {
            write!(f, "segment {segment}, offset {offset}, {bytes} bytes: ")?;
        }
        match self.what {
            What::SegmentMissing => write!(f, "the segment's file is missing"),
            What::SegmentHeader => write!(f, "the segment's header does not check"),
            What::Bytes => write!(f, "no record where one was written"),
            What::Payload => write!(f, "a record does not match its digest"),
            What::Record => write!(f, "a record that makes no sense"),
            What::Commit { number, readable: true } => write!(f, "commit {number} is missing"),
            What::Commit { number, readable: false } => write!(f, "commit {number} is unreadable"),
            What::Records { commit, session } => {
                write!(f, "commit {commit} lacks records of session {session}")
            }
            What::Stream { commit } => write!(f, "the stream after commit {commit} lacks writes"),
            What::Grains { commit } => write!(f, "commit {commit} lacks records"),
        }?;
        match &self.grains {
            Some(grains) if grains.is_empty() => Ok(()),
            Some(grains) => write!(f, "; {} grains are missing", grains.len()),
            None => write!(f, "; which grains it hits is unknown"),
        }
    }
}
