//! Keeping what the base holds before it is overwritten.

use std::rc::Rc;

use bytes::Bytes;
use grain::{Content, Span, SpanData};
use journal::ApplyBatch;
use journal::history::{History, MAX_RECORD_BYTES};

use super::Replica;
use crate::{Error, Result};

/// Bytes kept with one sync.
const TOGETHER: u64 = 16 << 20;
/// And pieces.
const PIECES: usize = 1024;

/// What was read and not kept yet.
#[derive(Default)]
struct Read {
    data: Vec<SpanData>,
    bytes: u64,
}

impl Replica {
    /// Keeps what the base holds where these pieces go. Where that cannot be, the history ends: the
    /// mirroring goes before it.
    pub(in crate::replica) async fn keep_what_was(&self, batch: &ApplyBatch) -> Result<()> {
        let Some(history) = self.history() else { return Ok(()) };
        match self.keep_all(&history, batch).await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.give_up_history(&format!("what is overwritten cannot be kept: {error}")).await
            }
        }
    }

    async fn keep_all(&self, history: &Rc<History>, batch: &ApplyBatch) -> Result<()> {
        let moment = batch.moment();
        let mut read = Read::default();
        for piece in batch.pieces() {
            for span in history.uncaptured(moment, piece.span()) {
                let mut at = span.start;
                while at < span.end() {
                    let next = self.read_some(Span { start: at, bytes: span.end() - at, ..span });
                    let next = next.await?;
                    at = next.span.end();
                    if matches!(next.content, Content::Data(_)) {
                        read.bytes += next.span.bytes;
                    }
                    read.data.push(next);
                    if read.bytes >= TOGETHER || read.data.len() >= PIECES {
                        let full = std::mem::take(&mut read);
                        history.capture(moment, full.data).await?;
                    }
                }
            }
        }
        if read.data.is_empty() { Ok(()) } else { Ok(history.capture(moment, read.data).await?) }
    }

    /// The first bytes of a span: a hole, or as much data as a record takes.
    async fn read_some(&self, span: Span) -> Result<SpanData> {
        let volume = self.volumes.get(span.volume)?;
        let mut span = span;
        // Only where it saves reading.
        if span.bytes > MAX_RECORD_BYTES {
            let found = volume.file.extents(span.start, span.bytes, 1).await;
            let found = found.map_err(Error::io("map", &volume.path))?;
            if let Some(first) = found.first().filter(|extent| extent.offset == span.start) {
                span.bytes = span.bytes.min(first.len);
                if !first.data {
                    return Ok(SpanData { span, content: Content::Zero });
                }
            }
        }
        span.bytes = span.bytes.min(MAX_RECORD_BYTES);
        let read = volume.file.read_at(span.start, span.bytes as usize).await;
        let bytes = Bytes::from(read.map_err(Error::io("read", &volume.path))?);
        // The log finds out by itself whether they are zeros.
        Ok(SpanData { span, content: Content::Data(bytes) })
    }
}
