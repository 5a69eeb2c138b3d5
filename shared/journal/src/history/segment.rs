//! One segment file: its name, its header and marks, and reading a verified payload.
//!
//! A segment becomes part of the history by the rename to its `history-` name, after its header is on
//! stable storage. A file of that name without a readable header is therefore always damage.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File};

use crate::layout::{HEADER_AT, HEADER_LEN, MARK_AT, MARK_LEN, Nonce, RECORDS_START};
use crate::segment::{ReadError, digest_of, read_if_there, read_twice};

use super::layout::{HeaderFound, Mark, SegmentHeader};
use super::record::{RECORD_HEADER, RecordHeader};

const LIVE: &str = "history-";
const SUFFIX: &str = ".ghu";
/// The name of a segment while it is being made.
const FRESH: &str = "fresh.ghu";

/// A segment, by its name and nonce; its file is opened when it is needed.
#[derive(Debug)]
pub(super) struct Segment {
    pub number: u64,
    pub nonce: Nonce,
    pub path: PathBuf,
}

/// What a file in the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    Live(u64),
    Fresh,
}

impl FileName {
    /// The path of segment `number`.
    pub(super) fn live(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{LIVE}{number:08}{SUFFIX}"))
    }

    /// The path of a segment that is being made.
    pub(super) fn fresh(dir: &Path) -> PathBuf {
        dir.join(FRESH)
    }

    pub(super) fn parse(name: &str) -> Option<FileName> {
        if name == FRESH {
            return Some(FileName::Fresh);
        }
        let digits = name.strip_suffix(SUFFIX)?.strip_prefix(LIVE)?;
        let plain = digits.len() >= 8 && digits.bytes().all(|c| c.is_ascii_digit());
        let number = plain.then(|| digits.parse().ok()).flatten()?;
        (number > 0 && crate::layout::is_possible_counter(number)).then_some(FileName::Live(number))
    }
}

/// Reads the header: the first copy that checks.
pub(super) async fn read_header(file: &Rc<dyn File>) -> io::Result<HeaderFound> {
    let mut found = HeaderFound::Bad;
    for at in HEADER_AT {
        if let HeaderFound::Bad = found {
            found = SegmentHeader::decode(&read_if_there(file, at, HEADER_LEN).await?);
        }
    }
    Ok(found)
}

/// Reads the newest mark that checks.
pub(super) async fn read_mark(file: &Rc<dyn File>, nonce: &Nonce) -> io::Result<Option<Mark>> {
    let mut newest: Option<Mark> = None;
    for at in MARK_AT {
        let mark = Mark::decode(&read_if_there(file, at, MARK_LEN).await?, nonce);
        if mark.is_some_and(|m| newest.is_none_or(|n| m.generation > n.generation)) {
            newest = mark;
        }
    }
    Ok(newest)
}

/// Reads the payload of a record whose header was checked, and checks it.
pub(super) async fn read_payload(
    ctx: &Context,
    file: &Rc<dyn File>,
    header: &RecordHeader,
) -> Result<Bytes, ReadError> {
    if header.payload == 0 {
        return Ok(Bytes::new());
    }
    let len = file.len().map_err(ReadError::Io)?;
    if header.end() > len.next_multiple_of(super::record::ALIGN) || header.offset < RECORDS_START {
        return Err(ReadError::Damaged("the record reaches beyond its segment"));
    }
    let at = header.offset + RECORD_HEADER as u64;
    let payload = read_twice(file, at, header.payload as usize).await;
    let payload = Bytes::from(payload.map_err(ReadError::Io)?);
    if digest_of(ctx, &payload).await != header.digest {
        return Err(ReadError::Damaged("the payload does not match its digest"));
    }
    Ok(payload)
}
