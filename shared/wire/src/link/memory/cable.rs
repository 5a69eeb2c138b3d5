//! The cable of a memory pair: two pipes of bytes whose pieces arrive when the weather says.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Direction, Fate, Weather};

/// How many bytes may be under way in one direction, as in a socket's buffers.
const PIPE_BYTES: usize = 256 << 10;

/// What lies between the two sides. Clones are the same cable.
#[derive(Clone)]
pub struct Cable {
    near_to_far: Rc<RefCell<Pipe>>,
    far_to_near: Rc<RefCell<Pipe>>,
    weather: Rc<RefCell<dyn Weather>>,
}

#[derive(Default)]
struct Pipe {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// No more will be written; what is under way still arrives, then comes this.
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

struct Piece {
    arrives: Instant,
    content: Content,
}

enum Content {
    Whole(Bytes),
    /// What arrives is not what was sent.
    Corrupt,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The writer shut its side down or went away.
    Finished,
    /// The cable broke, or the reader went away.
    Broken,
}

impl Cable {
    pub(super) fn new(weather: Rc<RefCell<dyn Weather>>) -> Self {
        Cable { near_to_far: Rc::default(), far_to_near: Rc::default(), weather }
    }

    /// Breaks the cable now: what is under way is lost, both sides notice.
    pub fn cut(&self) {
        for pipe in [&self.near_to_far, &self.far_to_near] {
            let mut pipe = pipe.borrow_mut();
            pipe.pieces.clear();
            pipe.bytes = 0;
            pipe.end(End::Broken);
        }
    }

    /// Bytes that were sent and have not been taken.
    pub fn bytes_under_way(&self, direction: Direction) -> usize {
        self.pipe(direction).borrow().bytes
    }

    fn pipe(&self, direction: Direction) -> &Rc<RefCell<Pipe>> {
        match direction {
            Direction::NearToFar => &self.near_to_far,
            Direction::FarToNear => &self.far_to_near,
        }
    }

    /// The end that writes in `direction`.
    pub(super) fn end(&self, direction: Direction) -> CableEnd {
        CableEnd { cable: self.clone(), direction, sleep: None }
    }
}

impl Pipe {
    fn end(&mut self, end: End) {
        if self.end != Some(End::Broken) {
            self.end = Some(end);
        }
        self.wake();
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn push(&mut self, after: Duration, content: Content, bytes: usize) {
        let earliest = self.pieces.back().map(|piece| piece.arrives);
        let arrives = (Instant::now() + after).max(earliest.unwrap_or_else(Instant::now));
        self.pieces.push_back(Piece { arrives, content });
        self.bytes += bytes;
        self.wake();
    }
}

/// One side's stream.
pub(super) struct CableEnd {
    cable: Cable,
    direction: Direction,
    /// Until the first piece that comes to us arrives.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl CableEnd {
    fn outgoing(&self) -> RefMut<'_, Pipe> {
        self.cable.pipe(self.direction).borrow_mut()
    }

    fn incoming_pipe(&self) -> Rc<RefCell<Pipe>> {
        let other = match self.direction {
            Direction::NearToFar => Direction::FarToNear,
            Direction::FarToNear => Direction::NearToFar,
        };
        self.cable.pipe(other).clone()
    }
}

impl Drop for CableEnd {
    fn drop(&mut self) {
        self.outgoing().end(End::Finished);
        self.incoming_pipe().borrow_mut().end(End::Broken);
    }
}

fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the cable is cut")
}

impl AsyncRead for CableEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let pipe = self.incoming_pipe();
        let mut pipe = pipe.borrow_mut();
        pipe.reader = Some(cx.waker().clone());
        let Some(first) = pipe.pieces.front_mut() else {
            return match pipe.end {
                Some(End::Finished) => Poll::Ready(Ok(())),
                Some(End::Broken) => Poll::Ready(Err(reset())),
                None => Poll::Pending,
            };
        };
        if first.arrives > Instant::now() {
            let mut sleep = Box::pin(sleep_until(first.arrives));
            if sleep.as_mut().poll(cx).is_pending() {
                self.sleep = Some(sleep);
                return Poll::Pending;
            }
        }
        self.sleep = None;
        let taken = match &mut first.content {
            Content::Corrupt => {
                let why = "a record does not authenticate";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
            }
            Content::Whole(bytes) => {
                let taken = bytes.len().min(buf.remaining());
                buf.put_slice(&bytes[..taken]);
                bytes.advance(taken);
                if bytes.is_empty() {
                    pipe.pieces.pop_front();
                }
                taken
            }
        };
        pipe.bytes -= taken;
        if let Some(writer) = pipe.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CableEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = {
            let mut pipe = self.outgoing();
            if pipe.end.is_some() {
                return Poll::Ready(Err(reset()));
            }
            if pipe.bytes >= PIPE_BYTES {
                pipe.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            PIPE_BYTES - pipe.bytes
        };
        let piece = Bytes::copy_from_slice(&data[..data.len().min(room)]);
        let len = piece.len();
        let fate = self.cable.weather.borrow_mut().fate(self.direction, len);
        match fate {
            Fate::Deliver { after } => self.outgoing().push(after, Content::Whole(piece), len),
            Fate::Corrupt { after } => self.outgoing().push(after, Content::Corrupt, 0),
            Fate::Cut { delivered_bytes } => {
                let piece = piece.slice(..delivered_bytes.min(len));
                let arriving = piece.len();
                // A piece of no bytes would read as an end in good order.
                if arriving > 0 {
                    self.outgoing().push(Duration::ZERO, Content::Whole(piece), arriving);
                }
                self.outgoing().end(End::Broken);
                self.incoming_pipe().borrow_mut().end(End::Broken);
            }
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing().end(End::Finished);
        Poll::Ready(Ok(()))
    }
}
