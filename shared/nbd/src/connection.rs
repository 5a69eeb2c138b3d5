//! The transmission phase of one connection: requests in, replies out, in one task.
//!
//! A wake-up reads what the socket holds into one buffer, submits every complete request in it, and
//! sends the replies that came at once with one vectored write. Answers that come later wake the
//! task. Bounded: commands and bytes in flight, and replies waiting; beyond them requests stay in
//! the socket. When the client goes, what is in flight runs to its end before the task does.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::export::{Command, Export, Payload};
use crate::link::Link;
use crate::reply::{Asked, Reply};
use crate::request::{Header, Plan, Rules};
use crate::{Errno, Error, Limits};

/// The read buffer's usual size, and the most that one read takes beyond what is needed, in bytes.
const READ_CHUNK_BYTES: usize = 256 << 10;
/// Up to this size the buffer for a payload is made at once, in bytes; above, as the payload comes.
const TRUST_BYTES: usize = 2 << 20;
/// An empty read buffer above this size is given back, in bytes.
const KEEP_BYTES: usize = 4 << 20;
/// Batches and reads of one wake-up after which the other tasks of the thread get their turn.
const TURNS: usize = 16;
/// The most pieces of one vectored write.
const SLICES: usize = 32;

/// Why a connection stopped taking requests.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said goodbye.
    Disconnect,
    /// The client closed its side without a word.
    Closed,
    /// The server is being shut down.
    Shutdown,
    /// The client sent something impossible.
    Violation(Error),
    /// The socket failed; nothing more can be sent.
    Broken(io::Error),
}

/// A connection after its handshake.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    pub(crate) link: Rc<Link>,
    pub(crate) export: Rc<dyn Export>,
    pub(crate) rules: Rules,
    pub(crate) limits: Limits,
    input: BytesMut,
    /// Bytes that complete the message at the front of `input`.
    want: usize,
    /// Payload bytes of refused requests still to be thrown away.
    skip: u64,
    /// The bytes of the command that a limit holds back.
    held_weight: u64,
}

/// What holds the next request back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    /// More bytes are needed.
    Input,
    /// A limit is reached.
    Limit,
    /// Nothing, but what was answered should go out first.
    Batch,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(
        stream: S,
        link: Rc<Link>,
        export: Rc<dyn Export>,
        rules: Rules,
        limits: Limits,
    ) -> Self {
        let input = BytesMut::new();
        Connection { stream, link, export, rules, limits, input, want: 0, skip: 0, held_weight: 0 }
    }

    /// Serves until the client goes or the server is shut down, then waits until nothing is in
    /// flight any more.
    pub(crate) async fn run(mut self) -> End {
        let end = poll_fn(|cx| self.poll_serve(cx)).await;
        if let End::Broken(_) = end {
            self.link.close();
        }
        poll_fn(|cx| self.poll_drain(cx)).await;
        if self.link.is_open() {
            let farewell = self.limits.farewell;
            // A client that does not take its last replies loses them; there is nobody to tell.
            drop(tokio::time::timeout(farewell, self.farewell()).await);
        }
        self.link.close();
        end
    }

    /// One wake-up: takes up requests, sends replies, reads, until nothing moves or the others want
    /// their turn.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS {
            self.link.set_submitting(true);
            let held = self.take_requests();
            self.link.set_submitting(false);
            let held = match held {
                Ok(held) => held,
                Err(end) => return Poll::Ready(end),
            };
            let sent = match self.poll_send(cx) {
                Poll::Ready(Err(e)) => return Poll::Ready(End::Broken(e)),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            let idle = sent && self.link.in_flight() == 0;
            if idle && self.link.commons.stopping.get() {
                return Poll::Ready(End::Shutdown);
            }
            if held == Held::Batch {
                continue;
            }
            if held == Held::Limit {
                if sent && !self.is_full(self.held_weight) {
                    continue;
                }
                self.link.park(cx.waker());
                return Poll::Pending;
            }
            match self.poll_receive(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(End::Closed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(End::Broken(e)),
                Poll::Pending => {
                    self.link.park(cx.waker());
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits until nothing is in flight, sending what is answered meanwhile.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(Err(_)) = self.poll_send(cx) {
            self.link.close();
        }
        if self.link.in_flight() == 0 {
            return Poll::Ready(());
        }
        self.link.park(cx.waker());
        Poll::Pending
    }

    async fn farewell(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await?;
        self.stream.shutdown().await
    }

    /// Whether one more command of `weight` bytes would break a limit.
    fn is_full(&self, weight: u64) -> bool {
        let commands = self.link.in_flight();
        let bytes = self.link.in_flight_bytes().saturating_add(weight);
        commands >= self.limits.commands
            || (commands > 0 && bytes > self.limits.command_bytes)
            || self.link.outbox.borrow().waiting() >= self.limits.reply_bytes
    }

    /// Submits the complete requests in the buffer.
    fn take_requests(&mut self) -> Result<Held, End> {
        let header_len = self.rules.style.request_len();
        let mut taken = 0;
        loop {
            if self.skip > 0 {
                let now = self.skip.min(self.input.len() as u64);
                self.input.advance(now as usize);
                self.skip -= now;
                if self.skip > 0 {
                    self.want = self.skip.min(READ_CHUNK_BYTES as u64) as usize;
                    return Ok(Held::Input);
                }
            }
            let Some(bytes) = self.input.get(..header_len) else {
                self.want = header_len;
                return Ok(Held::Input);
            };
            let header = Header::parse(self.rules.style, bytes).map_err(End::Violation)?;
            let plan = self.rules.check(&header);
            let stopping = self.link.commons.stopping.get();
            match plan {
                Ok(Plan::Disconnect) => return Err(End::Disconnect),
                Ok(_) if stopping => self.refuse(&header, Errno::Shutdown)?,
                Err(errno) => self.refuse(&header, errno)?,
                Ok(plan) => {
                    let total = header_len + header.payload_len as usize;
                    if self.input.len() < total {
                        self.want = total;
                        return Ok(Held::Input);
                    }
                    let weight = match plan {
                        Plan::Read { .. } | Plan::Write { .. } => header.len,
                        _ => 0,
                    };
                    if self.is_full(weight) {
                        self.held_weight = weight;
                        return Ok(Held::Limit);
                    }
                    self.input.advance(header_len);
                    let data = match header.payload_len {
                        0 => Bytes::new(),
                        len => self.input.split_to(len as usize).freeze(),
                    };
                    self.submit(&header, plan, weight, Payload(data));
                }
            }
            if self.is_full(0) {
                self.held_weight = 0;
                return Ok(Held::Limit);
            }
            taken += 1;
            if taken >= self.limits.batch {
                return Ok(Held::Batch);
            }
        }
    }

    /// Answers a request with an error and throws its payload away.
    fn refuse(&mut self, header: &Header, errno: Errno) -> Result<(), End> {
        let bound = Header::payload_bound(self.rules.description.blocks.max_payload);
        if header.payload_len > bound {
            let problem = format!("{} bytes of payload, more than {bound}", header.payload_len);
            return Err(End::Violation(Error::protocol("length", 24, problem)));
        }
        self.input.advance(self.rules.style.request_len());
        self.skip = header.payload_len;
        let reply = Reply::new(&self.link, header.cookie, header.offset, header.len, Asked::Plain);
        reply.begin(0).error(errno);
        Ok(())
    }

    fn submit(&mut self, header: &Header, plan: Plan, weight: u64, data: Payload) {
        let Header { offset, len, cookie, .. } = *header;
        let counters = &self.link.counters;
        let mut asked = Asked::Plain;
        let command = match plan {
            Plan::Read { whole } => {
                counters.change(|c| (c.reads, c.read_bytes) = (c.reads + 1, c.read_bytes + len));
                asked = Asked::Read { whole };
                Command::Read { offset, len: len as u32 }
            }
            Plan::Write { fua } => {
                let add = |c: &mut crate::Counts| {
                    c.writes += 1;
                    c.written_bytes += len;
                };
                counters.change(add);
                Command::Write { offset, data, fua }
            }
            Plan::Flush => {
                counters.change(|c| c.flushes += 1);
                Command::Flush
            }
            Plan::Trim { fua } => {
                counters.change(|c| c.trims += 1);
                Command::Trim { offset, len, fua }
            }
            Plan::WriteZeroes { fua, no_hole, fast_zero } => {
                counters.change(|c| c.zeroes += 1);
                Command::WriteZeroes { offset, len, fua, no_hole, fast_zero }
            }
            Plan::Cache => {
                counters.change(|c| c.others += 1);
                Command::Cache { offset, len }
            }
            Plan::BlockStatus { req_one } => {
                counters.change(|c| c.others += 1);
                let contexts = self.rules.contexts.clone();
                asked = Asked::Status { missing: contexts.clone(), req_one };
                Command::BlockStatus { offset, len, contexts, req_one }
            }
            // Never submitted: a disconnect ends the loop that calls this.
            Plan::Disconnect => return,
        };
        let reply = Reply::new(&self.link, cookie, offset, len, asked).begin(weight);
        self.export.submit(command, reply);
    }

    /// Sends until nothing waits (`Ready`) or the socket is full (`Pending`).
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.link.is_open() {
            return Poll::Ready(Ok(()));
        }
        let mut sent_any = false;
        loop {
            let mut outbox = self.link.outbox.borrow_mut();
            if outbox.waiting() == 0 {
                break;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let used = outbox.gather(&mut slices);
            let stream = Pin::new(&mut self.stream);
            let count = match &slices[..used] {
                [one] => ready!(stream.poll_write(cx, one))?,
                many => ready!(stream.poll_write_vectored(cx, many))?,
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outbox.sent(count);
            sent_any = true;
        }
        if sent_any {
            return Pin::new(&mut self.stream).poll_flush(cx);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once; `Ok(0)` is the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let missing = self.want.saturating_sub(self.input.len()).max(1);
        if self.input.is_empty() && self.input.capacity() > KEEP_BYTES && missing < KEEP_BYTES {
            self.input = BytesMut::new();
        }
        // A payload that is longer than one chunk is read to its end and not beyond, so that the
        // next request starts at the front of the buffer and nothing is moved.
        let take = missing.max(READ_CHUNK_BYTES);
        let room = match missing {
            0..=READ_CHUNK_BYTES => READ_CHUNK_BYTES,
            _ => missing.min(self.input.len().max(TRUST_BYTES)),
        };
        let least = if missing > READ_CHUNK_BYTES { room } else { missing.max(room / 2) };
        if self.input.capacity() - self.input.len() < least {
            self.input.reserve(room);
        }
        let spare = self.input.capacity() - self.input.len();
        let mut target = (&mut self.input).limit(take.min(spare));
        let read = pin!(self.stream.read_buf(&mut target));
        read.poll(cx)
    }
}
