//! What a daemon and its verbs need beside the rules of replication: where state lives, the control
//! socket, the printer and its prose, hooks round a cut, the runtime.
//!
//! Both agents and the media tools use it. It holds no rule of replication and no state of a
//! relationship: status is a JSON value that somebody else publishes, a verb is a name and a JSON value
//! that somebody else answers. It owns sockets, threads, processes and the terminal, and is the one
//! library crate that may.

pub mod amount;
pub mod control;
mod error;
pub mod hooks;
pub mod location;
pub mod logging;
pub mod options;
pub mod printer;
pub mod program;
pub mod runtime;

pub use error::{Error, Result};
pub use printer::{Exit, Printer, Problem};
