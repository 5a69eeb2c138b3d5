//! One file for each target.

pub mod certificate;
pub mod control;
pub mod envelope;
pub mod frame;
pub mod grain_set;
pub mod greeting;
pub mod history;
pub mod journal;
pub mod kept;
pub mod label;
pub mod map;
pub mod marker;
pub mod media_set;
pub mod message;
pub mod nbd_client;
pub mod nbd_server;
pub mod passphrase;
pub mod state;
pub mod texts;
pub mod ticket;
