//! Who must act on an error: the one classification that every crate's error type maps onto.
//!
//! It drives the retry, the exit code and the log level. It does not say what happened; the error
//! itself does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// Nobody: the same thing may succeed when it is tried again later.
    Retry,
    /// The operator of this site: a full disk, a wrong option, a missing permission.
    Operator,
    /// The other site, or its operator: it broke the protocol or said something impossible.
    Peer,
    /// Stored bytes are not what was written.
    Corrupt,
    /// We: an assumption of the code does not hold.
    Bug,
}

impl ErrorClass {
    /// The class as one word, as logs and `--json` show it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::Retry => "retry",
            ErrorClass::Operator => "operator",
            ErrorClass::Peer => "peer",
            ErrorClass::Corrupt => "corrupt",
            ErrorClass::Bug => "bug",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
