//! Where a journal lives and how large it may become.

use std::path::PathBuf;

use crate::Error;
use crate::layout::{MIN_SEGMENT_BYTES, RECORDS_START};

/// Place and limits of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory of the segments; made when it is not there. Nothing else may live in it.
    pub dir: PathBuf,
    /// Size of a segment file, in bytes; a multiple of 4 KiB. One record must fit into it.
    pub segment_bytes: u64,
    /// The most bytes that all segments together take on the file system; at least four segments.
    pub max_bytes: u64,
    /// The most records that may wait in memory (uncommitted, or committed and not applied). The
    /// index takes at most about 200 bytes for each: an entry of the session before the commit, at
    /// most two entries of the ordered map after it.
    pub max_records: u64,
}

impl Config {
    /// A journal of at most 4 GiB in segments of 64 MiB, and 4 million records (800 MiB of index at
    /// the very worst, reached only by runs of a single grain that overlap each other).
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            max_bytes: 4 << 30,
            max_records: 4 << 20,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.segment_bytes < MIN_SEGMENT_BYTES || !self.segment_bytes.is_multiple_of(4096) {
            return Err(Error::Config(format!(
                "a segment of {} bytes is less than {MIN_SEGMENT_BYTES} or no multiple of 4096",
                self.segment_bytes
            )));
        }
        if self.max_segments() < 4 {
            return Err(Error::Config(format!(
                "{} bytes are less than four segments of {}",
                self.max_bytes, self.segment_bytes
            )));
        }
        Ok(())
    }

    /// How many segment files there may be.
    pub(crate) fn max_segments(&self) -> u64 {
        self.max_bytes / self.segment_bytes
    }

    /// Bytes of records that a segment takes.
    pub(crate) fn capacity(&self) -> u64 {
        self.segment_bytes - RECORDS_START
    }
}
