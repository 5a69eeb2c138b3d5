//! One file a verb: its flags, and its words.

pub mod dump;
pub mod identity;
pub mod init;
pub mod plan;
pub mod serve;
pub mod status;

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
