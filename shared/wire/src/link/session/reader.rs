//! The reading side of a session: bytes to frames to the queue.
//!
//! Memory for a frame is granted before its payload is collected; while the queue is full nothing is
//! read, and the peer's silence is not held against it, since it cannot be heard.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::Signs;
use crate::Error;
use crate::frame::{Decoder, FIRST_FREE_KIND, Frame};
use crate::link::connect::stream_error;
use crate::link::hello::{Close, kind, message_of};
use crate::link::queue::{Queued, Shared};

/// Room for reading headers, control parts and small payloads.
const READ_BYTES: usize = 64 << 10;
/// Payloads with more than this to come are read straight into their own buffer.
const DIRECT_BYTES: usize = 4 << 10;
/// After so many reads in a row the writing side gets its turn. Well below the 128 operations after
/// which tokio makes the whole task wait, both sides of it.
const READS_IN_A_ROW: u32 = 32;

pub(super) struct Reader<'a> {
    input: BytesMut,
    decoder: Decoder,
    received: &'a mpsc::UnboundedSender<Queued>,
    credits: &'a Arc<Semaphore>,
    shared: &'a Shared,
    signs: &'a Signs,
    /// Granted for the frame under way.
    credit: Option<OwnedSemaphorePermit>,
}

impl<'a> Reader<'a> {
    pub fn new(
        input: BytesMut,
        decoder: Decoder,
        received: &'a mpsc::UnboundedSender<Queued>,
        credits: &'a Arc<Semaphore>,
        shared: &'a Shared,
        signs: &'a Signs,
    ) -> Self {
        Reader { input, decoder, received, credits, shared, signs, credit: None }
    }

    /// Reads until the link ends, and says how.
    pub async fn run<R>(&mut self, stream: &mut R, dead_after: Option<Duration>) -> Error
    where
        R: AsyncRead + Unpin,
    {
        let mut reads: u32 = 0;
        loop {
            reads = reads.wrapping_add(1);
            if reads.is_multiple_of(READS_IN_A_ROW) {
                tokio::task::yield_now().await;
            }
            match self.decode_all().await {
                Ok(None) => {}
                Ok(Some(ending)) | Err(ending) => return ending,
            }
            let read = match dead_after {
                Some(limit) => match timeout(limit, self.read_more(stream)).await {
                    Ok(read) => read,
                    Err(_) => return Error::TimedOut { what: "a sign of life", after: limit },
                },
                None => self.read_more(stream).await,
            };
            match read {
                Ok(0) if self.decoder.is_idle() && self.input.is_empty() => {
                    return Error::Cut("the peer hung up without a word".into());
                }
                Ok(0) => return Error::Cut("the connection ended inside a frame".into()),
                Ok(bytes) => self.shared.counters.received_bytes(bytes as u64),
                Err(e) => return stream_error(e),
            }
        }
    }

    /// Takes all frames that are complete. `Some` when one of them ends the link.
    async fn decode_all(&mut self) -> Result<Option<Error>, Error> {
        while let Some(weight) = self.decoder.pending(&mut self.input)? {
            if self.credit.is_none() {
                let weight = self.shared.capped(weight);
                let credit = self.credits.clone().acquire_many_owned(weight).await;
                self.credit = Some(credit.map_err(|_| Error::Closed)?);
            }
            let Some(frame) = self.decoder.decode(&mut self.input)? else { return Ok(None) };
            self.shared.counters.received_frame();
            let credit = self.credit.take();
            if frame.kind < FIRST_FREE_KIND {
                if let Some(ending) = self.obey(&frame)? {
                    return Ok(Some(ending));
                }
            } else if let Some(credit) = credit {
                // Nobody may be receiving any more; then the frame is dropped here.
                drop(self.received.send(Queued { frame, credit }));
            }
        }
        Ok(None)
    }

    /// A frame that belongs to the link itself.
    fn obey(&mut self, frame: &Frame) -> Result<Option<Error>, Error> {
        match frame.kind {
            kind::PING => {
                self.signs.pong.set(Some(message_of(frame)?));
                self.signs.wake.notify_one();
                Ok(None)
            }
            kind::PONG => {
                let sent = Duration::from_micros(message_of(frame)?);
                // A pong that answers no ping of ours measures nothing.
                if let Some(round_trip) = self.signs.born.elapsed().checked_sub(sent) {
                    self.shared.counters.round_trip(round_trip);
                }
                Ok(None)
            }
            kind::CLOSE => Ok(Some(message_of::<Close>(frame)?.into_error())),
            other => Err(Error::Protocol(format!("it sent a frame of kind {other} at this time"))),
        }
    }

    async fn read_more<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
    ) -> Result<usize, std::io::Error> {
        if let Some((payload, missing)) = self.decoder.gap()
            && missing > DIRECT_BYTES
        {
            return stream.read_buf(&mut payload.limit(missing)).await;
        }
        self.input.reserve(READ_BYTES);
        stream.read_buf(&mut self.input).await
    }
}
