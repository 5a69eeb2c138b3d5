//! The replication protocol: messages, sets, and the connection that carries them.

mod attach;
mod connection;
mod message;
mod sets;

pub use attach::{Attached, answer_as_replica, asked, attach, take_streamed};
pub use connection::{Connection, Inbox, body, open, unexpected};
pub use message::{MAX_DIGESTS, MAX_RUNS_A_PULL, Message, Refusal, Sample, SetName, Want};
pub use sets::{SetInbox, send_set};
