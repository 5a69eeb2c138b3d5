//! The one error type of this crate, and who must act on it.
//!
//! Errors are values that can be cloned, because the end of a link is told to everybody who waits on
//! it. Prose for people (what is safe, what to do next) is the binaries' part.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use grain::ErrorClass;

use crate::link::refusal;

/// What can go wrong with keys, envelopes, tickets, frames and links.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// More bytes than the stated bound.
    #[error("{what} has {bytes} bytes; the limit is {limit}")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// How long it is, or says it is.
        bytes: u64,
        /// The bound, in bytes.
        limit: u64,
    },
    /// Bytes that are no message of the expected type.
    #[error("a message of {bytes} bytes cannot be decoded: {why}")]
    Message {
        /// Length of the whole message.
        bytes: usize,
        /// What the decoder found.
        why: String,
    },
    /// One of our own values cannot be encoded.
    #[error("a message cannot be encoded: {0}")]
    Encode(String),
    /// A line that is no identity.
    #[error("not an identity: {0}")]
    Identity(String),
    /// A key file that is damaged or of another kind.
    #[error("the key file is not usable: {0}")]
    KeyFile(String),
    /// Text that names no recipient.
    #[error("not a recipient: {0}")]
    Recipient(String),
    /// A damaged envelope.
    #[error("the envelope is damaged: {field} at byte {offset}: {why}")]
    Envelope {
        /// Which part.
        field: &'static str,
        /// Where it stands in the envelope.
        offset: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The envelope is whole, and none of the keys at hand opens it.
    #[error("none of the {tried} keys given opens this envelope")]
    NoKey {
        /// How many were tried.
        tried: usize,
    },
    /// A passphrase blob that asks for more work than we are willing to do.
    #[error("a passphrase needs 2^{asked} rounds of scrypt; at most 2^{limit} are accepted")]
    WorkFactor {
        /// What the envelope asks for.
        asked: u8,
        /// What is accepted.
        limit: u8,
    },
    /// A signature that its claimed signer did not make over these bytes.
    #[error("the signature is not by {signer} over this {domain}")]
    Signature {
        /// Fingerprint of the claimed signer.
        signer: String,
        /// What was signed.
        domain: String,
    },
    /// A ticket that is damaged, of another version or out of bounds.
    #[error("the ticket is not usable: {0}")]
    Ticket(String),
    /// Files of an own PKI that do not fit.
    #[error("the TLS {part} is not usable: {why}")]
    Pki {
        /// Which: `authority`, `certificate` or `key`.
        part: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes on the link that are no frame.
    #[error("the peer sent a bad frame: {field} at byte {offset}: {why}")]
    Frame {
        /// Which part.
        field: &'static str,
        /// Where it stands in the frame.
        offset: usize,
        /// What is wrong with it.
        why: String,
    },
    /// Text that is no address.
    #[error("{0}")]
    Address(String),
    /// An address of this machine that cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The operating system's word.
        source: Arc<io::Error>,
    },
    /// None of the peer's addresses answered.
    #[error("the peer cannot be reached: {}", tried.join("; "))]
    Unreachable {
        /// What happened at each address.
        tried: Vec<String>,
    },
    /// The link was closed in good order.
    #[error("the link was closed")]
    Closed,
    /// The connection broke.
    #[error("the link was cut: {0}")]
    Cut(String),
    /// Something did not happen in time.
    #[error("{what} took longer than {after:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        after: Duration,
    },
    /// The peer does not keep to the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
    /// One side said no, in words. Both sides see the same code and words.
    #[error("{} refused: {text}", if *by_peer { "the peer" } else { "this site" })]
    Refused {
        /// Who said it.
        by_peer: bool,
        /// For programs: [`crate::link::refusal`].
        code: u16,
        /// For people.
        text: String,
    },
    /// Whoever is at the other end did not prove to hold a pinned key.
    #[error("a stranger is at the other end: {0}")]
    Stranger(&'static str),
    /// Too many connections that have not proven who they are.
    #[error("{limit} visitors are being checked already")]
    TooManyVisitors {
        /// The bound.
        limit: usize,
    },
    /// The kernel gave no random bytes, or a cryptographic primitive refused to work.
    #[error("cryptography is not available: {0}")]
    Crypto(&'static str),
    /// An operation of the operating system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The operating system's word.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::TooLong { .. } | Error::Message { .. } => ErrorClass::Peer,
            Error::Signature { .. } | Error::Frame { .. } => ErrorClass::Peer,
            Error::Encode(_) => ErrorClass::Bug,
            Error::KeyFile(_) | Error::Envelope { .. } => ErrorClass::Corrupt,
            Error::Identity(_) | Error::Recipient(_) => ErrorClass::Operator,
            Error::NoKey { .. } | Error::WorkFactor { .. } => ErrorClass::Operator,
            Error::Ticket(_) | Error::Pki { .. } => ErrorClass::Operator,
            Error::Crypto(_) => ErrorClass::Operator,
            Error::Address(_) | Error::Listen { .. } => ErrorClass::Operator,
            Error::Refused { code: refusal::BUSY, .. } => ErrorClass::Retry,
            Error::Refused { by_peer: true, .. } => ErrorClass::Peer,
            Error::Refused { .. } => ErrorClass::Operator,
            Error::Protocol(_) | Error::Stranger(_) => ErrorClass::Peer,
            Error::Unreachable { .. } | Error::TooManyVisitors { .. } => ErrorClass::Retry,
            Error::Closed | Error::Cut(_) | Error::TimedOut { .. } => ErrorClass::Retry,
            Error::Io { .. } => ErrorClass::Retry,
        }
    }

    /// True when the one whom we called has spoken; another address of the same site would not say
    /// anything better.
    pub(crate) fn is_an_answer(&self) -> bool {
        use Error::{Frame, Message, Protocol, Refused, Stranger};
        matches!(self, Refused { .. } | Stranger(_) | Protocol(_) | Frame { .. } | Message { .. })
    }

    /// Wraps an error of the operating system with what was being done.
    pub(crate) fn io(doing: impl Into<String>, source: io::Error) -> Self {
        Error::Io { doing: doing.into(), source: Arc::new(source) }
    }
}
