//! One segment file: its name, its header and marks, and reading verified records from it.
//!
//! A segment becomes part of the journal by the rename to its `journal-` name, after its header is on
//! stable storage. A file of that name without a readable header is therefore always damage, never
//! a file that was just being made.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use disk::{Context, File};

use crate::layout::{HEADER_AT, HEADER_LEN, HeaderFound, MARK_AT, MARK_LEN, Mark, Nonce};
use crate::layout::{RECORDS_START, SegmentHeader};
use crate::record::{RECORD_HEADER, RecordHeader};

/// Payloads above this are digested in the pool.
const OFFLOAD_FROM: usize = 128 << 10;

const LIVE: &str = "journal-";
const SPARE: &str = "spare-";
const SUFFIX: &str = ".ghj";
/// The name of a segment while it is being made.
pub(crate) const FRESH: &str = "fresh.ghj";

/// An open segment. Who holds one keeps its file from being recycled.
pub(crate) struct Segment {
    pub number: u64,
    pub nonce: Nonce,
    pub file: Rc<dyn File>,
    /// Size of the file.
    pub bytes: u64,
}

/// What a file in the journal's directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    Live(u64),
    Spare(u64),
    Fresh,
}

impl FileName {
    /// The path of segment `number`.
    pub(crate) fn live(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{LIVE}{number:08}{SUFFIX}"))
    }

    /// The path of what was segment `number`, to be recycled.
    pub(crate) fn spare(dir: &Path, number: u64) -> PathBuf {
        dir.join(format!("{SPARE}{number:08}{SUFFIX}"))
    }

    pub(crate) fn parse(name: &str) -> Option<FileName> {
        if name == FRESH {
            return Some(FileName::Fresh);
        }
        let stem = name.strip_suffix(SUFFIX)?;
        let number = |digits: &str| {
            let plain = digits.len() >= 8 && digits.bytes().all(|c| c.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten()
        };
        if let Some(digits) = stem.strip_prefix(LIVE) {
            return number(digits).map(FileName::Live);
        }
        stem.strip_prefix(SPARE).and_then(number).map(FileName::Spare)
    }
}

/// Reads the header: the first copy that checks.
pub(crate) async fn read_header(file: &Rc<dyn File>) -> io::Result<HeaderFound> {
    let mut found = HeaderFound::Bad;
    for at in HEADER_AT {
        if let HeaderFound::Bad = found {
            found = SegmentHeader::decode(&read_if_there(file, at, HEADER_LEN).await?);
        }
    }
    Ok(found)
}

/// Reads the newest mark that checks.
pub(crate) async fn read_mark(file: &Rc<dyn File>, nonce: &Nonce) -> io::Result<Option<Mark>> {
    let mut newest: Option<Mark> = None;
    for at in MARK_AT {
        let mark = Mark::decode(&read_if_there(file, at, MARK_LEN).await?, nonce);
        if mark.is_some_and(|m| newest.is_none_or(|n| m.generation > n.generation)) {
            newest = mark;
        }
    }
    Ok(newest)
}

/// `len` bytes, or nothing when the file is too short for them or the disk cannot read them: both
/// are for the caller what bytes that do not check are.
pub(crate) async fn read_if_there(file: &Rc<dyn File>, at: u64, len: usize) -> io::Result<Vec<u8>> {
    if at + len as u64 > file.len()? {
        return Ok(Vec::new());
    }
    Ok(read_twice(file, at, len).await.unwrap_or_default())
}

/// Reads, and once more when that fails: a passing error must not be taken for damage.
pub(crate) async fn read_twice(file: &Rc<dyn File>, at: u64, len: usize) -> io::Result<Vec<u8>> {
    match file.read_at(at, len).await {
        Ok(bytes) => Ok(bytes),
        Err(_) => file.read_at(at, len).await,
    }
}

/// Why a record could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// What stands there is not the record, or its payload is not what was written.
    Damaged(&'static str),
    /// The disk gave an error.
    Io(io::Error),
}

impl Segment {
    /// Reads the record at `offset` and checks header and payload.
    pub(crate) async fn read_record(
        &self,
        ctx: &Context,
        offset: u64,
    ) -> Result<(RecordHeader, Bytes), ReadError> {
        let head = read_twice(&self.file, offset, RECORD_HEADER).await.map_err(ReadError::Io)?;
        let header = RecordHeader::decode(&head, &self.nonce, offset)
            .ok_or(ReadError::Damaged("the record's header does not check"))?;
        let payload = self.read_payload(ctx, &header).await?;
        Ok((header, payload))
    }

    /// Reads the payload of a record whose header was checked, and checks it.
    pub(crate) async fn read_payload(
        &self,
        ctx: &Context,
        header: &RecordHeader,
    ) -> Result<Bytes, ReadError> {
        if header.payload == 0 {
            return Ok(Bytes::new());
        }
        if header.end() > self.bytes || header.offset < RECORDS_START {
            return Err(ReadError::Damaged("the record reaches beyond its segment"));
        }
        let at = header.offset + RECORD_HEADER as u64;
        let payload = read_twice(&self.file, at, header.payload as usize).await;
        let payload = Bytes::from(payload.map_err(ReadError::Io)?);
        let digest = digest_of(ctx, &payload).await;
        if digest != header.digest {
            return Err(ReadError::Damaged("the payload does not match its digest"));
        }
        Ok(payload)
    }
}

pub(crate) async fn digest_of(ctx: &Context, payload: &Bytes) -> [u8; 32] {
    if payload.len() < OFFLOAD_FROM {
        return *blake3::hash(payload).as_bytes();
    }
    let payload = payload.clone();
    ctx.offload(move || *blake3::hash(&payload).as_bytes()).await
}
