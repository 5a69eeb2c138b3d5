//! The control socket: HTTP and JSON over a Unix socket, between a daemon and its verbs.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | `{age_ms, status}`: what was last published, and how long ago |
//! | `GET /v1/jobs` | `{age_ms, jobs: {ID: job}}` |
//! | `GET /v1/jobs/ID` | `{age_ms, job}` |
//! | `GET /v1/events?after=N&wait_ms=M` | `{events: [{number, unix_ms, kind, body}], next}`: those after number N; waits up to M for the first |
//! | `POST /v1/verbs/NAME` with a JSON body | what the relationship's thread answers |
//!
//! Errors have a status of 400 and above and a [`crate::Problem`] as JSON. The server runs on a thread
//! of its own, and everything but verbs is answered from what was published: a disk that is stuck in
//! the kernel cannot silence it. The socket has mode 0600, and the kernel's word on the peer is
//! checked besides: the same user or root. Sizes, times and the number of connections are limited.

mod client;
mod peer;
mod server;
mod snapshot;
mod socket;

use serde_json::Value;
use tokio::sync::oneshot;

pub use client::ControlClient;
pub use server::{ControlLimits, ControlServer};
pub use snapshot::Snapshot;

use crate::Problem;

/// The longest body of a request or answer, in bytes: a status of 64 volumes is far below it.
const MAX_BODY: usize = 8 << 20;

/// A verb that a client sends to the relationship's thread.
#[derive(Debug)]
pub struct ControlRequest {
    /// The verb's name.
    pub verb: String,
    /// Its arguments.
    pub body: Value,
    /// Where the answer goes. Dropping it answers that the verb was dropped, a bug.
    pub answer: oneshot::Sender<Result<Value, Problem>>,
}

#[cfg(test)]
mod tests;
