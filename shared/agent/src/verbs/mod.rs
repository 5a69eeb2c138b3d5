//! The verbs that both agents have, one file each: flags and words.

pub mod bookmark;
pub mod export;
pub mod follow;
pub mod identity;
pub mod mode;
pub mod pace;
pub mod peer;
pub mod plan;
pub mod points;
pub mod promote;
pub mod rejoin;
pub mod serve;
pub mod status;
pub mod switchover;
pub mod verify;

use site::Printer;
use site::location::StateDir;
use site::runtime::Shutdown;

/// What every verb gets.
pub struct Context {
    /// Clock, randomness, disk.
    pub ctx: disk::Context,
    /// Where state lives.
    pub state: StateDir,
    /// The door to the terminal.
    pub printer: Printer,
    /// The notice to end.
    pub shutdown: Shutdown,
}
