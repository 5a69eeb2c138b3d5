//! The replication protocol: messages, sets, and the connection that carries them.

mod attach;
mod connection;
mod message;
mod sets;
mod verify;

pub use attach::{Attached, answer_as_replica, asked, attach, take_streamed};
pub use connection::{Connection, Diverted, Inbox, body, open, unexpected};
pub use message::{MAX_DIGESTS, MAX_RUNS_A_PULL, Message, Refusal, Sample, SetName, Want};
pub use sets::{SetInbox, send_set};
pub use verify::{Compared, MAX_ZERO_GRAINS, Report, VERIFY_WINDOW, VerifyMessage};

pub(crate) use verify::{VERIFY_WAITING, may_ask};
