//! [`Limits`]: everything that a client could make large, and how large it may get.

use std::time::Duration;

/// Bounds of a server. The defaults suit a handful of local clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one listener at a time, those in the handshake included; further ones are
    /// closed at once.
    pub connections: usize,
    /// Commands in flight on one connection; when reached its socket is not read.
    pub commands: usize,
    /// Bytes of reads and writes in flight on one connection, in bytes; when reached its socket is
    /// not read. One command may always run.
    pub command_bytes: u64,
    /// Bytes of replies waiting to be sent on one connection; when reached no further request is
    /// taken up.
    pub reply_bytes: usize,
    /// Requests of one wake-up after which their replies are sent: the client then works on them
    /// while the next ones are carried out.
    pub batch: usize,
    /// Options of one handshake.
    pub options: usize,
    /// Data of one option, in bytes; longer data is skipped and refused.
    pub option_bytes: usize,
    /// The longest handshake, TLS included.
    pub handshake: Duration,
    /// How long a client that is being let go may take to accept its last replies.
    pub farewell: Duration,
    /// Allows TCP without TLS on loopback addresses.
    pub plain_loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 64,
            commands: 256,
            command_bytes: 64 << 20,
            reply_bytes: 1 << 20,
            batch: 8,
            options: 1024,
            option_bytes: 64 << 10,
            handshake: Duration::from_secs(30),
            farewell: Duration::from_secs(5),
            plain_loopback: false,
        }
    }
}
