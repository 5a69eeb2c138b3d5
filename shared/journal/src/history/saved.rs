//! Bytes that the base held, to be read when they are wanted.

use std::rc::Rc;

use disk::{Context, File};
use grain::{Content, Span, SpanData};

use crate::segment::{ReadError, read_twice};

use super::Error;
use super::index::Entry;
use super::record::{RECORD_HEADER, RecordHeader};
use super::segment::{Segment, read_payload};

/// What some record has of a span. It stays readable when its segment is removed meanwhile.
pub struct Saved {
    pub(super) ctx: Context,
    pub(super) segment: Rc<Segment>,
    pub(super) file: Rc<dyn File>,
    pub(super) entry: Entry,
    pub(super) span: Span,
}

impl Saved {
    /// The bytes that it is about.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Whether the base held zeros.
    pub fn is_zero(&self) -> bool {
        self.entry.zero
    }

    /// Reads the bytes and checks them. The whole record is read, at most
    /// [`super::MAX_RECORD_BYTES`].
    ///
    /// # Errors
    /// [`Error::Damaged`] when the record is not what was written, [`Error::Io`].
    pub async fn read(&self) -> Result<SpanData, Error> {
        if self.entry.zero {
            return Ok(SpanData { span: self.span, content: Content::Zero });
        }
        let offset = self.entry.offset;
        let damaged = |what| Error::Damaged { segment: self.segment.number, offset, what };
        let io = |e| Error::io("read", &self.segment.path, e);
        let len = self.file.len().map_err(io)?;
        if offset + RECORD_HEADER as u64 > len {
            return Err(damaged("the file is shorter than what was written"));
        }
        let head = read_twice(&self.file, offset, RECORD_HEADER).await.map_err(io)?;
        let header = RecordHeader::decode(&head, &self.segment.nonce)
            .filter(|h| h.offset == offset && h.kind.is_saved() && Entry::of(h) == self.entry)
            .ok_or(damaged("the record's header does not check"))?;
        let payload = match read_payload(&self.ctx, &self.file, &header).await {
            Ok(payload) => payload,
            Err(ReadError::Damaged(what)) => return Err(damaged(what)),
            Err(ReadError::Io(error)) => return Err(io(error)),
        };
        let from = (self.span.start - self.entry.start) as usize;
        let to = from + self.span.bytes as usize;
        if to > payload.len() {
            return Err(damaged("the record is shorter than its index says"));
        }
        Ok(SpanData { span: self.span, content: Content::Data(payload.slice(from..to)) })
    }
}
