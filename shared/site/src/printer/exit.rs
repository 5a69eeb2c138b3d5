//! Exit codes. The table is `docs/exit-codes.md`; codes once given keep their meaning.

use grain::ErrorClass;
use serde::{Deserialize, Serialize};

/// What a process answers its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exit(pub u8);

impl Exit {
    /// Done, or already so.
    pub const OK: Exit = Exit(0);
    /// A bug in this program.
    pub const BUG: Exit = Exit(1);
    /// The command line cannot be understood.
    pub const USAGE: Exit = Exit(2);
    /// The operator of this site must act.
    pub const OPERATOR: Exit = Exit(3);
    /// The other site refused, or broke the protocol.
    pub const PEER: Exit = Exit(4);
    /// Stored bytes are damaged.
    pub const CORRUPT: Exit = Exit(5);
    /// The same thing may succeed later.
    pub const RETRY: Exit = Exit(6);
    /// The fingerprint of replica and source differs.
    pub const FINGERPRINT: Exit = Exit(19);

    /// Done, but for grains that the source's disk does not give.
    pub const UNREADABLE: Exit = Exit(20);

    /// The code of an error class.
    pub fn of_class(class: ErrorClass) -> Exit {
        match class {
            ErrorClass::Retry => Exit::RETRY,
            ErrorClass::Operator => Exit::OPERATOR,
            ErrorClass::Peer => Exit::PEER,
            ErrorClass::Corrupt => Exit::CORRUPT,
            ErrorClass::Bug => Exit::BUG,
        }
    }

    /// The code of an attach that the rule of this name refused.
    pub fn of_rule(rule: grain::attach::Rule) -> Exit {
        use grain::attach::Rule;
        match rule {
            Rule::InStep | Rule::Delta => Exit::OK,
            Rule::Unrelated => Exit(10),
            Rule::NoAncestor => Exit(11),
            Rule::Suspect => Exit(12),
            Rule::NoSource => Exit(13),
            Rule::Ahead => Exit(14),
            Rule::SplitBrain => Exit(15),
            Rule::Promoted => Exit(16),
            Rule::IdlePromotion => Exit(17),
            Rule::Diverged => Exit(18),
        }
    }

    /// Who must act, as far as the code says.
    pub fn class(self) -> ErrorClass {
        match self {
            Exit::BUG => ErrorClass::Bug,
            Exit::PEER => ErrorClass::Peer,
            Exit::CORRUPT => ErrorClass::Corrupt,
            Exit::RETRY => ErrorClass::Retry,
            _ => ErrorClass::Operator,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.0)
    }
}
