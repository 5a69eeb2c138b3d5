//! [`Reply`]: the single-use handle by which an export answers one command.
//!
//! It owns the command's place in its connection's limits. Answered or dropped, it gives that place
//! back exactly once; an answer to a connection that has gone is dropped silently.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;

use crate::encode::{self, StatusBounds, Style, Tag};
use crate::export::{Extent, Part};
use crate::link::Link;
use crate::{Errno, protocol};

/// What was asked, as far as the answer's form depends on it.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A read; with `whole` it must be answered in one piece.
    Read { whole: bool },
    /// Block status of these contexts, each answered at most once.
    Status { missing: Vec<usize>, req_one: bool },
    /// Anything that is answered without data.
    Plain,
}

/// The most extents of one block status chunk.
const MAX_EXTENTS: usize = 1 << 16;

/// Answers one command; see [`Export::submit`](crate::Export::submit).
pub struct Reply {
    link: Rc<Link>,
    cookie: u64,
    offset: u64,
    /// The length asked, in bytes.
    len: u64,
    /// Counted against the connection's limits.
    weight: u64,
    asked: Asked,
    /// Chunks of this reply went out already.
    chunked: bool,
    answered: bool,
}

impl Reply {
    pub(crate) fn new(link: &Rc<Link>, cookie: u64, offset: u64, len: u64, asked: Asked) -> Reply {
        Reply {
            link: Rc::clone(link),
            cookie,
            offset,
            len,
            weight: 0,
            asked,
            chunked: false,
            answered: false,
        }
    }

    /// Counts the command as in flight with `weight` bytes until it is answered.
    pub(crate) fn begin(mut self, weight: u64) -> Reply {
        self.weight = weight;
        self.link.begin(weight);
        self
    }

    fn tag(&self) -> Tag {
        Tag { style: self.link.style, cookie: self.cookie, offset: self.offset }
    }

    fn finish(&mut self) {
        self.answered = true;
        self.link.end(self.weight);
    }

    /// The command was carried out. For block status: all contexts were answered.
    pub fn done(mut self) {
        let complete = match &self.asked {
            Asked::Plain => true,
            Asked::Status { missing, .. } => missing.is_empty(),
            Asked::Read { .. } => false,
        };
        if !complete {
            return self.broken("a read or block status was reported done without its content");
        }
        if self.link.is_open() {
            encode::done(&mut self.link.outbox.borrow_mut(), self.tag(), self.chunked);
        }
        self.finish();
    }

    /// The command failed.
    pub fn error(self, errno: Errno) {
        self.error_because(errno, errno.words());
    }

    /// The command failed; `message` (at most 4096 bytes of it) is for people at the other end.
    pub fn error_because(mut self, errno: Errno, message: &str) {
        self.fail(errno, message);
    }

    fn fail(&mut self, errno: Errno, message: &str) {
        self.link.counters.change(|c| c.errors += 1);
        if self.link.is_open() {
            encode::error(&mut self.link.outbox.borrow_mut(), self.tag(), errno, message);
        }
        self.finish();
    }

    /// The export did something that cannot be sent.
    fn broken(mut self, what: &str) {
        tracing::error!(offset = self.offset, len = self.len, "{what}");
        self.fail(Errno::Io, what);
    }

    /// Answers a read in place: `read` gets the bytes of the reply themselves (content undefined,
    /// length as asked) and says `Ok(true)` when it filled them, `Ok(false)` when it would have to
    /// wait; the handle then comes back in `Err`, to be answered later. `read` must not answer other
    /// commands. It is not called when the client has gone.
    pub fn fill<F>(mut self, read: F) -> Result<(), Reply>
    where
        F: FnOnce(&mut [u8]) -> Result<bool, Errno>,
    {
        if !matches!(self.asked, Asked::Read { .. }) {
            self.broken("data for a command that is not a read");
            return Ok(());
        }
        if !self.link.is_open() {
            self.finish();
            return Ok(());
        }
        let tag = self.tag();
        let head_len = tag.style.data_header_len();
        let total = head_len + self.len as usize;
        let mut outbox = self.link.outbox.borrow_mut();
        let space = outbox.space(total);
        let (head, body) = space.split_at_mut(head_len);
        let outcome = read(body);
        match outcome {
            Ok(true) => encode::data_header(head, tag, self.len as usize),
            _ => outbox.take_back(total),
        }
        drop(outbox);
        match outcome {
            Ok(true) => self.finish(),
            Ok(false) => return Err(self),
            Err(errno) => self.fail(errno, errno.words()),
        }
        Ok(())
    }

    /// Answers a read with `data`, which has the length asked.
    pub fn data(self, data: Bytes) {
        self.parts(vec![Part::Data(data)]);
    }

    /// Answers a read with stretches of data and holes, which together have the length asked.
    pub fn parts(mut self, mut parts: Vec<Part>) {
        let Asked::Read { whole } = self.asked else {
            return self.broken("data for a command that is not a read");
        };
        parts.retain(|part| !part.is_empty());
        if parts.iter().map(|part| part.len() as u64).sum::<u64>() != self.len {
            return self.broken("a read was answered with another length than asked");
        }
        if self.link.is_open() {
            encode::parts(&mut self.link.outbox.borrow_mut(), self.tag(), parts, whole);
        }
        self.finish();
    }

    /// Answers one context of a block status; [`Reply::done`] ends the answer. `extents` follow
    /// each other from the offset asked; they may cover less than asked, but at least a byte, and
    /// what reaches too far is cut off. Answering a context that was not asked is ignored.
    pub fn extents(&mut self, context: usize, extents: &[Extent]) {
        let Asked::Status { missing, req_one } = &mut self.asked else { return };
        let Some(at) = missing.iter().position(|&m| m == context) else { return };
        let compact = self.link.style != Style::Extended;
        let bounds = StatusBounds {
            asked: self.len,
            room: self.link.size_bytes.saturating_sub(self.offset),
            req_one: *req_one,
            compact,
            count: (self.link.max_payload / 16).clamp(1, MAX_EXTENTS),
        };
        let fitted = encode::fit(extents, bounds);
        if fitted.is_empty() {
            return;
        }
        missing.swap_remove(at);
        if self.link.is_open() {
            let tag = self.tag();
            let mut outbox = self.link.outbox.borrow_mut();
            encode::block_status(&mut outbox, tag, context as u32, &fitted);
        }
        self.chunked = true;
    }

    /// True when the client has gone: the command still has to be carried out, but nobody reads its
    /// data.
    pub fn is_orphan(&self) -> bool {
        !self.link.is_open()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.fail(Errno::Io, Errno::Io.words());
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("offset", &self.offset)
            .field("len", &self.len)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

// A reply's messages come from us or the export; both respect the protocol's bound.
const _: () = assert!(protocol::MAX_STRING <= u16::MAX as usize);
