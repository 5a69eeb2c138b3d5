//! An NBD server over the trait [`Export`], and a small client.
//!
//! Fixed newstyle with `GO`, `INFO`, `LIST`, `EXPORT_NAME`, `STARTTLS`, structured replies, extended
//! headers and metadata contexts. Runs on one thread: tokio's `current_thread` runtime with a
//! `LocalSet`. Everything that a client can make large is bounded by [`Limits`]; hostile bytes end in
//! an error or a closed connection. What a command was submitted for runs to its end even when its
//! client goes away.
//!
//! Knows nothing of what is behind an export. The protocol is described in `doc/proto.md` of the
//! NetworkBlockDevice project; `docs/nbd.md` says what of it is spoken here and how.

mod client;
mod connection;
mod encode;
mod error;
mod export;
mod fields;
mod handshake;
mod limits;
mod link;
mod listen;
mod memory;
mod negotiation;
mod outbox;
mod protocol;
mod reply;
mod request;
mod server;
mod stats;
mod stream;

#[cfg(test)]
mod tests;

pub use client::{Client, ConnectOptions, ZeroFlags};
pub use error::{Errno, Error, ErrorClass};
pub use export::{
    BASE_ALLOCATION, BlockSizes, Command, Description, Export, Extent, Features, Part, Payload,
    STATE_HOLE, STATE_ZERO,
};
pub use limits::Limits;
pub use memory::MemoryExport;
pub use reply::Reply;
pub use server::Server;
pub use stats::{ConnectionStats, Counts};
