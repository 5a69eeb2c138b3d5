//! Where a journal lives and how large it may become.

use std::path::PathBuf;

use crate::Error;
use crate::layout::{MIN_SEGMENT_BYTES, RECORDS_START};

/// A segment that takes any record: its payload is one grain of the largest size at most.
const LEAST_SEGMENT: u64 = 5 << 20;

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
    /// The base passes through the image at every commit, so that a history can keep them. Else only the
    /// newest version of a byte is kept.
    pub keep_points: bool,
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
            keep_points: false,
        }
    }

    /// A journal of at most `max_bytes`, in segments of an eighth of that, but no more than 64 MiB each and
    /// no less than what takes any record; so the least is 20 MiB, and a smaller limit counts as that.
    pub fn limited(dir: impl Into<PathBuf>, max_bytes: u64) -> Self {
        let config = Config::new(dir);
        let segment_bytes =
            (max_bytes / 8 / 4096 * 4096).clamp(LEAST_SEGMENT, config.segment_bytes);
        Config { segment_bytes, max_bytes: max_bytes.max(4 * segment_bytes), ..config }
    }

    /// The journal of a process that appends nothing: it takes what another one left, whatever its limit, and
    /// begins no segment that would break a limit that it does not know.
    pub fn at_rest(dir: impl Into<PathBuf>) -> Self {
        Config { segment_bytes: LEAST_SEGMENT, ..Config::new(dir) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{MAX_PAYLOAD, stride};

    #[test]
    fn a_limit_is_kept_down_to_the_least_journal() {
        let limited = |max_bytes| Config::limited("/journal", max_bytes);
        assert_eq!(limited(4 << 30), Config::new("/journal"));
        for max_bytes in [0, 1, 20 << 20, (20 << 20) + 1, 100_000_000, 1 << 29, 1 << 40] {
            let config = limited(max_bytes);
            config.validate().unwrap();
            assert!(Config::at_rest("/journal").segment_bytes <= config.segment_bytes);
            assert_eq!(config.max_bytes, max_bytes.max(20 << 20));
            assert!(config.max_segments() * config.segment_bytes <= config.max_bytes);
            assert!(config.capacity() >= stride(MAX_PAYLOAD), "{config:?}");
        }
    }
}
