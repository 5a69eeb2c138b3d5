//! The writing side of a session: frames from the queue, pings and pongs, and the last words.

use std::sync::Arc;

use bytes::Buf;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep_until};

use super::Signs;
use crate::Error;
use crate::frame::Encoder;
use crate::link::connect::stream_error;
use crate::link::hello::{Close, frame_of, kind, presentable};
use crate::link::queue::{Queued, Shared};
use crate::link::{Closing, LinkConfig};

/// Frames are gathered up to this many bytes before they are written.
const BATCH_BYTES: usize = 1 << 20;

pub(super) struct Writer<'a> {
    to_send: &'a mut mpsc::UnboundedReceiver<Queued>,
    shared: &'a Arc<Shared>,
    signs: &'a Signs,
    config: &'a LinkConfig,
    encoder: Encoder,
    /// Of the frames that are being written.
    credits: Vec<OwnedSemaphorePermit>,
    frames: u64,
}

enum Wake {
    Close(Closing),
    Pong,
    Ping,
    Frame(Queued),
}

impl<'a> Writer<'a> {
    pub fn new(
        to_send: &'a mut mpsc::UnboundedReceiver<Queued>,
        shared: &'a Arc<Shared>,
        signs: &'a Signs,
        config: &'a LinkConfig,
    ) -> Self {
        let encoder = Encoder::new(config.compress);
        Writer { to_send, shared, signs, config, encoder, credits: Vec::new(), frames: 0 }
    }

    /// Writes until somebody here closes the link; returns when the last words are on their way.
    pub async fn run<W: AsyncWrite + Unpin>(&mut self, stream: &mut W) -> Result<Closing, Error> {
        let close = self.shared.close_requested();
        tokio::pin!(close);
        let interval = self.config.keep_alive.map(|keep_alive| keep_alive.interval);
        loop {
            let ping_at = interval.map(|interval| Instant::now() + interval);
            let ping = async {
                match ping_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let wake = tokio::select! {
                biased;
                closing = &mut close => Wake::Close(closing),
                () = self.signs.wake.notified() => Wake::Pong,
                Some(queued) = self.to_send.recv() => Wake::Frame(queued),
                () = ping => Wake::Ping,
            };
            match wake {
                Wake::Close(closing) => return self.close(stream, closing).await,
                Wake::Pong => {}
                Wake::Ping => {
                    let sent_us = self.signs.born.elapsed().as_micros() as u64;
                    self.encoder.push(frame_of(kind::PING, &sent_us)?)?;
                    self.frames += 1;
                }
                Wake::Frame(queued) => self.push(queued)?,
            }
            self.gather()?;
            self.write_out(stream).await?;
            // The reading side's turn, however fast the stream takes what we write.
            tokio::task::yield_now().await;
        }
    }

    fn push(&mut self, queued: Queued) -> Result<(), Error> {
        self.encoder.push(queued.frame)?;
        self.credits.push(queued.credit);
        self.frames += 1;
        Ok(())
    }

    /// Adds what else can go out with this write.
    fn gather(&mut self) -> Result<(), Error> {
        if let Some(pong) = self.signs.pong.take() {
            self.encoder.push(frame_of(kind::PONG, &pong)?)?;
            self.frames += 1;
        }
        // What is compressed counts as it was: the reading side must not wait for a queue to be packed.
        let mut raw = 0;
        while self.encoder.remaining() < BATCH_BYTES && raw < BATCH_BYTES {
            let Ok(queued) = self.to_send.try_recv() else { break };
            raw += queued.frame.payload.len();
            self.push(queued)?;
        }
        Ok(())
    }

    async fn write_out<W: AsyncWrite + Unpin>(&mut self, stream: &mut W) -> Result<(), Error> {
        self.encoder.seal();
        let bytes = self.encoder.remaining() as u64;
        if bytes == 0 {
            return Ok(());
        }
        let begun = std::time::Instant::now();
        stream.write_all_buf(&mut self.encoder).await.map_err(stream_error)?;
        stream.flush().await.map_err(stream_error)?;
        self.encoder.link_took(bytes as usize, begun.elapsed());
        self.shared.counters.sent(self.frames, bytes);
        self.frames = 0;
        self.credits.clear();
        Ok(())
    }

    /// What was queued before the wish to close still goes out, then the reason.
    async fn close<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        closing: Closing,
    ) -> Result<Closing, Error> {
        self.to_send.close();
        while let Ok(queued) = self.to_send.try_recv() {
            self.push(queued)?;
            self.gather()?;
            self.write_out(stream).await?;
        }
        let close = match &closing {
            Closing::Done => Close { code: 0, text: String::new() },
            Closing::Refused { code, text } => {
                // 0 would read as an end in good order.
                Close { code: (*code).max(1), text: presentable(text, 500) }
            }
        };
        self.encoder.push(frame_of(kind::CLOSE, &close)?)?;
        self.frames += 1;
        self.write_out(stream).await?;
        stream.shutdown().await.map_err(stream_error)?;
        Ok(closing)
    }
}
