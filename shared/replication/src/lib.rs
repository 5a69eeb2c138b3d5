//! The heart of Grainhaul: tracking, copy sessions, the source role, the replica role.
//!
//! Everything runs on the one thread of a relationship. State is changed by plain synchronous methods
//! that decide; async code waits and carries out. The outside is reached only through
//! [`disk::Context`] and the channels of a link, so that the same code runs in the simulator.

pub mod dump;
mod error;
mod group_commit;
mod kept;
pub mod map;
mod pace;
pub mod protocol;
pub mod replica;
mod rest;
mod seal;
pub mod session;
pub mod source;
pub mod state;
pub mod track;
pub mod volumes;

pub use error::{Error, Result};
pub use pace::{Pace, PaceSettings, PaceShown};
pub use rest::{AtRest, at_rest};
