//! The client's connection after the handshake: one local task that sends requests and hands out
//! answers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::negotiate::Agreed;
pub(crate) use super::replies::Answer;
use super::replies::{Next, Pending, take_reply};
use crate::Error;
use crate::encode::Style;
use crate::outbox::Outbox;
use crate::protocol::{EXTENDED_REQUEST_MAGIC, REQUEST_MAGIC, command, flag};
use crate::stream::Stream;

const READ_CHUNK_BYTES: usize = 256 << 10;

/// A command to send.
pub(crate) struct Request {
    pub(crate) command: u16,
    pub(crate) flags: u16,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) data: Bytes,
}

type Waiting = oneshot::Sender<Result<Answer, Error>>;

/// What the client's handles and its task share.
pub(crate) struct Session {
    agreed: Agreed,
    outbox: RefCell<Outbox>,
    pending: RefCell<BTreeMap<u64, Pending>>,
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    next_cookie: Cell<u64>,
    /// A goodbye was sent; no command follows.
    leaving: Cell<bool>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    ended: Notify,
}

impl Session {
    /// Starts the task.
    pub(crate) fn start(stream: Stream, agreed: Agreed) -> Rc<Session> {
        let session = Rc::new(Session {
            agreed,
            outbox: RefCell::default(),
            pending: RefCell::default(),
            waiting: RefCell::default(),
            next_cookie: Cell::new(1),
            leaving: Cell::new(false),
            over: Cell::new(false),
            waker: RefCell::new(None),
            ended: Notify::new(),
        });
        tokio::task::spawn_local(Task::new(stream, Rc::clone(&session)).run());
        session
    }

    pub(crate) fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, Error> {
        if self.over.get() || self.leaving.get() {
            return Err(Error::Closed);
        }
        let cookie = self.next_cookie.replace(self.next_cookie.get() + 1);
        self.put(cookie, &request)?;
        let pending = Pending::new(request.command, request.offset, request.len);
        self.pending.borrow_mut().insert(cookie, pending);
        let (send, receive) = oneshot::channel();
        self.waiting.borrow_mut().insert(cookie, send);
        self.wake();
        receive.await.unwrap_or(Err(Error::Closed))
    }

    fn put(&self, cookie: u64, request: &Request) -> Result<(), Error> {
        let extended = self.agreed.style == Style::Extended;
        let mut head = Vec::with_capacity(32);
        let (magic, mut flags) = (REQUEST_MAGIC, request.flags);
        let magic = if extended { EXTENDED_REQUEST_MAGIC } else { magic };
        if extended && request.command == command::WRITE {
            flags |= flag::PAYLOAD_LEN;
        }
        head.extend_from_slice(&magic.to_be_bytes());
        head.extend_from_slice(&flags.to_be_bytes());
        head.extend_from_slice(&request.command.to_be_bytes());
        head.extend_from_slice(&cookie.to_be_bytes());
        head.extend_from_slice(&request.offset.to_be_bytes());
        match (extended, u32::try_from(request.len)) {
            (true, _) => head.extend_from_slice(&request.len.to_be_bytes()),
            (false, Ok(len)) => head.extend_from_slice(&len.to_be_bytes()),
            (false, Err(_)) => return Err(Error::Command(crate::Errno::Overflow)),
        }
        let mut outbox = self.outbox.borrow_mut();
        outbox.put(&head);
        outbox.put_owned(request.data.clone());
        Ok(())
    }

    /// Says goodbye once, after what was asked before.
    pub(crate) fn leave(&self) {
        if self.leaving.replace(true) || self.over.get() {
            return;
        }
        let goodbye =
            Request { command: command::DISC, flags: 0, offset: 0, len: 0, data: Bytes::new() };
        // A length of 0 always fits.
        drop(self.put(0, &goodbye));
        self.wake();
    }

    /// Waits until the task has ended.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.over.get() {
                return;
            }
            ended.await;
        }
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The task's own half.
struct Task {
    stream: Stream,
    session: Rc<Session>,
    input: BytesMut,
    want: usize,
}

impl Task {
    fn new(stream: Stream, session: Rc<Session>) -> Task {
        Task { stream, session, input: BytesMut::new(), want: 0 }
    }

    async fn run(mut self) {
        let outcome = poll_fn(|cx| self.poll(cx)).await;
        if let Err(error) = outcome {
            tracing::debug!(%error, "the NBD connection ended");
        }
        // The other end may be gone already.
        drop(self.stream.shutdown().await);
        self.session.over.set(true);
        self.session.pending.borrow_mut().clear();
        // Dropping the senders answers every command that still waits.
        self.session.waiting.borrow_mut().clear();
        self.session.ended.notify_waiters();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            self.take_replies()?;
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(Error::io("send")(error)));
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Error::io("receive")(error))),
                Poll::Pending => {
                    *self.session.waker.borrow_mut() = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
    }

    fn take_replies(&mut self) -> Result<(), Error> {
        loop {
            let mut pending = self.session.pending.borrow_mut();
            match take_reply(&mut self.input, &self.session.agreed, &mut pending)? {
                Next::More => {}
                Next::Need(count) => {
                    self.want = count;
                    return Ok(());
                }
                Next::Complete(cookie) => {
                    let answer = pending.remove(&cookie).map(Pending::finish);
                    let waiting = self.session.waiting.borrow_mut().remove(&cookie);
                    if let (Some(answer), Some(waiting)) = (answer, waiting) {
                        // Whoever asked may have stopped waiting.
                        drop(waiting.send(answer));
                    }
                }
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut outbox = self.session.outbox.borrow_mut();
            if outbox.waiting() == 0 {
                return Pin::new(&mut self.stream).poll_flush(cx);
            }
            let mut slices = [IoSlice::new(&[]); 32];
            let used = outbox.gather(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let count = ready!(stream.poll_write_vectored(cx, &slices[..used]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outbox.sent(count);
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let missing = self.want.saturating_sub(self.input.len());
        self.input.reserve(missing.clamp(READ_CHUNK_BYTES, 4 * READ_CHUNK_BYTES));
        pin!(self.stream.read_buf(&mut self.input)).poll(cx)
    }
}
