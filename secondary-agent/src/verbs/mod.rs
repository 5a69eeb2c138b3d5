//! The verbs of this agent alone, one file each: flags and words.

pub mod init;
pub mod load;

pub use agent::verbs::Context;
