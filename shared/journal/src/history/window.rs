//! Record headers of a file through a buffer, so that small records do not cost a read each.

use std::io;
use std::rc::Rc;

use disk::File;

use crate::layout::Nonce;
use crate::segment::read_twice;

use super::record::{ALIGN, RECORD_HEADER, RecordHeader};

/// Bytes read at a time.
const WINDOW: u64 = 256 << 10;

/// See the top of this file.
pub(super) struct Window<'a> {
    file: &'a Rc<dyn File>,
    nonce: &'a Nonce,
    start: u64,
    bytes: Vec<u8>,
    /// The first offset that could not be read, and why.
    unreadable: Option<(u64, io::Error)>,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a Rc<dyn File>, nonce: &'a Nonce) -> Self {
        Window { file, nonce, start: 0, bytes: Vec::new(), unreadable: None }
    }

    /// The header at `at`, if one stands there and its record ends at or before `limit`.
    pub(super) async fn header(&mut self, at: u64, limit: u64) -> Option<RecordHeader> {
        if at + RECORD_HEADER as u64 > limit {
            return None;
        }
        if self.get(at).is_none() {
            self.fill(at, limit).await;
        }
        let header = RecordHeader::decode(self.get(at)?, self.nonce)?;
        (header.offset == at && header.end() <= limit).then_some(header)
    }

    fn get(&self, at: u64) -> Option<&[u8]> {
        let from = usize::try_from(at.checked_sub(self.start)?).ok()?;
        self.bytes.get(from..from.checked_add(RECORD_HEADER)?)
    }

    /// The first place from `at` on where a header may begin, as far as what was read ahead tells.
    pub(super) fn skip(&self, mut at: u64, limit: u64) -> u64 {
        while at < limit && self.get(at).is_some_and(|bytes| !RecordHeader::may_begin(bytes)) {
            at += ALIGN;
        }
        at
    }

    /// Reads ahead from `at`; where the disk cannot read, zeros stand for what it did not give.
    async fn fill(&mut self, at: u64, limit: u64) {
        let len = WINDOW.min(limit - at) as usize;
        self.start = at;
        if let Ok(bytes) = self.file.read_at(at, len).await {
            self.bytes = bytes;
            return;
        }
        // One sector may be bad: take what can be had of the others.
        self.bytes = Vec::with_capacity(len);
        while self.bytes.len() < len {
            let step = 4096.min(len - self.bytes.len());
            let from = at + self.bytes.len() as u64;
            match read_twice(self.file, from, step).await {
                Ok(part) => self.bytes.extend(part),
                Err(error) => {
                    self.bytes.resize(self.bytes.len() + step, 0);
                    self.unreadable.get_or_insert((from, error));
                }
            }
        }
    }

    /// Fails when what stands at `at` or a little before could not be read: then nothing says that the
    /// records end here.
    pub(super) fn readable(&mut self, at: u64) -> io::Result<()> {
        match self.unreadable.take() {
            Some((from, error)) if from < at + WINDOW => Err(error),
            _ => Ok(()),
        }
    }
}
