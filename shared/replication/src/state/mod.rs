//! The durable state of a relationship at one site: its types, and `state.json`.

mod mode;
mod store;
mod types;
mod verified;

pub use mode::{Mode, OnLinkLoss};
pub use store::{StateStore, decode, encode};
pub use types::*;
pub use verified::{MOST_PLACES, Verified};
