//! Keeping what the base holds before it is overwritten.

use bytes::Bytes;
use grain::{Content, Span, SpanData, is_zero};
use journal::ApplyBatch;
use journal::history::History;

use super::Replica;
use crate::{Error, Result};

/// Bytes kept with one sync.
const TOGETHER: u64 = 16 << 20;
/// Bytes of a record.
const RECORD: u64 = 1 << 20;
/// Extents asked for at a time.
const EXTENTS: usize = 256;

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

    async fn keep_all(&self, history: &std::rc::Rc<History>, batch: &ApplyBatch) -> Result<()> {
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
                    if read.bytes >= TOGETHER || read.data.len() >= 4 * EXTENTS {
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
        if span.bytes > RECORD {
            let found = volume.file.extents(span.start, span.bytes, 1).await;
            let found = found.map_err(Error::io("map", &volume.path))?;
            if let Some(first) = found.first().filter(|extent| extent.offset == span.start) {
                span.bytes = span.bytes.min(first.len);
                if !first.data {
                    return Ok(SpanData { span, content: Content::Zero });
                }
            }
        }
        span.bytes = span.bytes.min(RECORD);
        let read = volume.file.read_at(span.start, span.bytes as usize).await;
        let bytes = Bytes::from(read.map_err(Error::io("read", &volume.path))?);
        let content = if is_zero(&bytes) { Content::Zero } else { Content::Data(bytes) };
        Ok(SpanData { span, content })
    }
}
