//! The replica's redo journal: everything newer than its base goes here first. What a copy session
//! brings counts only with a commit; the writes of a stream count one by one after the commit that they
//! follow.
//!
//! What it promises:
//! * a commit that returned is there after any crash; what was not committed is never taken for
//!   committed; half of a commit is never visible;
//! * of a stream a prefix is there, at least all that was durable;
//! * a record left over in a recycled file never comes back to life;
//! * bytes are checked against their digest whenever they are read; damage of what was durable is
//!   named, with the grains that it hits, and the rest is kept;
//! * memory and disk space have limits, and reaching one loses nothing.
//!
//! What it does not do: it never reads or writes the base (its owner applies what it hands out), it
//! keeps nothing of what it has applied (what the base held before is another log's, [`history`]), and it
//! does not decide which sessions to adopt. The format: `docs/formats/journal.md`.

mod apply;
mod chain;
mod codec;
mod commit;
mod config;
mod damage;
mod error;
mod files;
mod generations;
pub mod history;
mod index;
mod journal;
mod layout;
mod record;
mod recovery;
mod replay;
mod scan;
mod seal;
mod segment;
mod state;
mod stream;
mod writer;

pub use apply::{ApplyBatch, Piece};
pub use config::Config;
pub use damage::{Damage, Stretch, What};
pub use error::Error;
pub use history::Moment;
pub use journal::{Journal, Received, Stats};
pub use recovery::{Commit, Recovered, SessionState, StreamState};
pub use stream::StreamProgress;
