//! One file a verb: its flags, and its words.

pub mod extract;
pub mod inspect;
pub mod kept;
pub mod keygen;
pub mod list;
mod open;
pub mod verify;

use media::MediaError;
use site::options::GlobalOptions;
use site::{Printer, Problem};

/// What every verb gets.
pub struct Context {
    /// Clock, randomness, disk.
    pub ctx: disk::Context,
    /// The options of every command.
    pub global: GlobalOptions,
    /// The door to the terminal.
    pub printer: Printer,
}

/// The prose of an error of a set.
fn problem(e: &MediaError) -> Problem {
    let (code, todo) = match e {
        MediaError::OtherSet { .. } => (
            "several-sets",
            "Give the directories of one set; `media-tools list DIR...` says which belong together.",
        ),
        _ => ("media", ""),
    };
    Problem::of_class(code, e.to_string(), e.class()).safe("The media were only read.").todo(todo)
}
