//! What travels between sites, and what says who a site is: the codec of control messages, identities
//! and site keys, the envelope of a set key, tickets, TLS with pinned keys, frames and links.
//!
//! This crate knows bytes, keys and sockets. It does not know what the messages of the replication
//! protocol mean: they pass through it as opaque bytes (`docs/decisions/0030`). It opens no file; who
//! needs a key file or a ticket on disk brings the bytes.
//!
//! Randomness for keys comes from the kernel through `aws-lc-rs` and `age`, not from the
//! relationship's context: a key must never be reproducible (`docs/security.md`).

pub mod codec;
mod envelope;
mod error;
pub mod frame;
mod identity;
pub mod link;
mod peers;
mod recipient;
mod signature;
mod site_keys;
mod ticket;
pub mod tls;

pub use envelope::{Envelope, EnvelopeInfo, SetKey};
pub use error::Error;
pub use frame::Frame;
pub use identity::{AgeRecipient, Identity};
pub use peers::PeerSet;
pub use recipient::{EscrowKey, Opener, Passphrase, Recipient};
pub use signature::Signature;
pub use site_keys::SiteKeys;
pub use ticket::{Ticket, TicketContent};
