//! The assembly that both agents share: a relationship from its first command to its daemon.
//!
//! Either site can take either role, so neither agent's binary can own this. It puts together what the
//! crates below offer (roles, NBD server, links, media, control socket) and turns their errors into
//! prose; it decides nothing about replication.

mod control;
mod events;
pub mod flags;
pub mod hours;
mod passphrase;
pub mod past;
mod peer;
pub mod problem;
pub mod reach;
pub mod relationship;
pub mod replica;
pub mod serve;
pub mod show;
pub mod source;
pub mod status;
pub mod verbs;
mod verdict;
mod verified;

pub use events::Events;
pub use passphrase::passphrase_from;
pub use peer::{FollowArguments, PeerArguments, read_ticket};
pub use relationship::Relationship;
pub use verdict::explain;
pub use verified::{VerifiedStatus, VerifyArguments, VerifyProgress};
