//! The trait [`Export`]: what a served volume must be able to do, and the types that it speaks in.
//!
//! Completion-based: a command comes with a [`Reply`], which the export answers at once or keeps and
//! answers later from any task of the same thread. A command that can be answered at once costs no
//! task, no allocation and no copy. What an export is asked was checked against its own description:
//! ranges lie inside the export and are aligned, flags and commands are among the offered ones.

use std::ops::Deref;

use bytes::Bytes;

use crate::Reply;

/// The metadata context that every client knows: which stretches are holes or zeros.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Flag of `base:allocation`: not allocated.
pub const STATE_HOLE: u64 = 1 << 0;
/// Flag of `base:allocation`: reads as zeros.
pub const STATE_ZERO: u64 = 1 << 1;

/// A volume that the server offers.
pub trait Export: 'static {
    /// Size, constraints and abilities. Asked at each negotiation; a connection keeps what it was
    /// told.
    fn describe(&self) -> Description;

    /// Takes a command. Must not block. Answers through `reply`, now or later; dropping the reply
    /// unanswered answers `EIO`.
    ///
    /// A command that was submitted runs to its end even when its client goes away; the answer is
    /// then dropped silently.
    fn submit(&self, command: Command, reply: Reply);
}

/// What an export is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Size in bytes.
    pub size_bytes: u64,
    /// A line for people, at most 4096 bytes; empty for none.
    pub text: String,
    /// Writes are refused with `EPERM`.
    pub read_only: bool,
    /// Offsets and lengths that clients may use.
    pub blocks: BlockSizes,
    /// The commands and flags offered.
    pub features: Features,
    /// Names of the metadata contexts offered, each `namespace:leaf`. [`Command::BlockStatus`]
    /// speaks of them by their position here.
    pub contexts: Vec<String>,
}

/// The constraints on offsets and lengths, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    /// Every offset and length is a multiple of this: a power of two up to 65536.
    pub minimum: u32,
    /// What the export likes: a power of two, at least 512 and at least the minimum.
    pub preferred: u32,
    /// The longest read or write; at least the preferred size.
    pub max_payload: u32,
}

impl Default for BlockSizes {
    fn default() -> Self {
        BlockSizes {
            minimum: 1,
            preferred: 4096,
            max_payload: crate::protocol::DEFAULT_MAX_PAYLOAD,
        }
    }
}

/// The commands and flags that an export offers beside reading and writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// [`Command::Flush`].
    pub flush: bool,
    /// Force unit access on writes, trims and zeroes.
    pub fua: bool,
    /// [`Command::Trim`].
    pub trim: bool,
    /// [`Command::WriteZeroes`].
    pub zeroes: bool,
    /// The fast-zero flag of [`Command::WriteZeroes`]; needs `zeroes`.
    pub fast_zero: bool,
    /// [`Command::Cache`].
    pub cache: bool,
    /// A flush on one connection covers the writes answered on all of them.
    pub multi_conn: bool,
    /// The medium spins; clients may order their requests.
    pub rotational: bool,
}

impl Features {
    /// Everything but `rotational`.
    pub const ALL: Features = Features {
        flush: true,
        fua: true,
        trim: true,
        zeroes: true,
        fast_zero: true,
        cache: true,
        multi_conn: true,
        rotational: false,
    };
}

/// What a client asks. Offsets and lengths are in bytes, inside the export, lengths at least 1.
#[derive(Debug)]
pub enum Command {
    /// Read; answered with [`Reply::fill`], [`Reply::data`] or [`Reply::parts`].
    Read {
        /// Where.
        offset: u64,
        /// How much; at most the maximum payload.
        len: u32,
    },
    /// Write.
    Write {
        /// Where.
        offset: u64,
        /// What.
        data: Payload,
        /// On stable storage before the answer.
        fua: bool,
    },
    /// Put every write answered before this command, on any connection, onto stable storage.
    Flush,
    /// The content of the range is no longer needed.
    Trim {
        /// Where.
        offset: u64,
        /// How much; more than 32 bits with extended headers.
        len: u64,
        /// On stable storage before the answer.
        fua: bool,
    },
    /// Make the range read as zeros.
    WriteZeroes {
        /// Where.
        offset: u64,
        /// How much; more than 32 bits with extended headers.
        len: u64,
        /// On stable storage before the answer.
        fua: bool,
        /// The range must stay allocated.
        no_hole: bool,
        /// Fail at once with `NotSupported` unless it is faster than writing zeros.
        fast_zero: bool,
    },
    /// The client will read this range soon.
    Cache {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
    },
    /// Describe a range: one [`Reply::extents`] for each context asked for, then [`Reply::done`].
    BlockStatus {
        /// Where.
        offset: u64,
        /// How much; a hint, extents may cover less.
        len: u64,
        /// Positions in [`Description::contexts`].
        contexts: Vec<usize>,
        /// Only the first extent of each context is wanted.
        req_one: bool,
    },
}

/// The bytes of a write.
///
/// Inline they are a slice of the connection's read buffer. [`Payload::into_bytes`] makes them
/// outlive the call.
#[derive(Debug)]
pub struct Payload(pub(crate) Bytes);

/// Payloads below this length are copied by [`Payload::into_bytes`]: sharing would keep a whole read
/// buffer alive for a few bytes, beyond what the connection's limits count.
const SHARE_FROM_BYTES: usize = 64 << 10;

impl Payload {
    /// The bytes, owned: shared without a copy from 64 KiB on, copied below.
    pub fn into_bytes(self) -> Bytes {
        if self.0.len() < SHARE_FROM_BYTES { Bytes::copy_from_slice(&self.0) } else { self.0 }
    }
}

impl Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Payload {
        Payload(bytes)
    }
}

/// One stretch of a metadata context. Extents follow each other from the offset that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes.
    pub len: u64,
    /// Flags as the context defines them. Without extended headers only the lower 32 bits travel.
    pub flags: u64,
}

/// One stretch of the answer to a read. Parts follow each other from the offset that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes.
    Data(Bytes),
    /// So many zeros; travels without them where the client allows.
    Hole(u32),
}

impl Part {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Part::Data(bytes) => bytes.len(),
            Part::Hole(len) => *len as usize,
        }
    }

    /// True for a part without a byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
