//! The session: moves frames between the queues of a link and a byte stream that was greeted.
//!
//! One future, without threads or sockets of its own, so that the simulator runs the same code. It
//! ends for exactly one reason, which it leaves behind for everybody who waits on the link.

use std::cell::Cell;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::queue::Ends;
use super::{Closing, LinkConfig};
use crate::Error;
use crate::frame::Decoder;

mod reader;
mod writer;

use reader::Reader;
use writer::Writer;

/// After a failed write: how long to listen for the reason that the peer may have given.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the reading side asks the writing side to do beside frames.
struct Signs {
    /// The newest ping that was not answered yet.
    pong: Cell<Option<u64>>,
    wake: Notify,
    /// Pings carry the time since then.
    born: Instant,
}

/// Runs until the link has ended, and says why to everybody who waits on it. `input` holds what came
/// behind the greeting.
pub(super) async fn run<S: AsyncRead + AsyncWrite>(
    stream: S,
    input: BytesMut,
    decoder: Decoder,
    mut ends: Ends,
    config: LinkConfig,
) {
    let ending = converse(stream, input, decoder, &mut ends, &config).await;
    tracing::debug!(remote = %ends.shared.about().remote, %ending, "the link has ended");
    ends.end(ending);
}

async fn converse<S: AsyncRead + AsyncWrite>(
    stream: S,
    input: BytesMut,
    decoder: Decoder,
    ends: &mut Ends,
    config: &LinkConfig,
) -> Error {
    let (mut read_half, mut write_half) = tokio::io::split(stream);
    let signs = Signs { pong: Cell::new(None), wake: Notify::new(), born: Instant::now() };
    let Ends { to_send, received, receive_credits, shared, .. } = ends;
    let mut reader = Reader::new(input, decoder, received, receive_credits, shared, &signs);
    let mut writer = Writer::new(to_send, shared, &signs, config);
    let closing = {
        let overdue = async {
            shared.close_requested().await;
            sleep(config.linger).await;
        };
        let read = reader.run(&mut read_half, config.keep_alive.map(|k| k.dead_after));
        let write = writer.run(&mut write_half);
        tokio::pin!(read, write, overdue);
        tokio::select! {
            biased;
            ended = &mut read => return ended,
            closed = &mut write => match closed {
                Ok(closing) => closing,
                Err(e) => return timeout(LAST_WORDS, &mut read).await.unwrap_or(e),
            },
            () = &mut overdue => {
                return Error::TimedOut { what: "closing the link", after: config.linger };
            }
        }
    };
    // Closing a socket with unread bytes would reset it, and our last words might be lost.
    let mut scratch = vec![0u8; 16 << 10];
    let until_the_end = async { while matches!(read_half.read(&mut scratch).await, Ok(1..)) {} };
    if timeout(config.linger, until_the_end).await.is_err() {
        tracing::debug!("the peer did not hang up after the link was closed");
    }
    match closing {
        Closing::Done => Error::Closed,
        Closing::Refused { code, text } => Error::Refused { by_peer: false, code, text },
    }
}
