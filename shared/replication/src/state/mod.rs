//! The durable state of a relationship at one site: its types, and `state.json`.

mod mode;
mod store;
mod types;

pub use mode::{Mode, OnLinkLoss};
pub use store::{StateStore, decode, encode};
pub use types::*;
