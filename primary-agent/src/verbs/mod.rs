//! The verbs of this agent alone, one file each: flags and words.

pub mod dump;
pub mod init;

pub use agent::verbs::Context;
