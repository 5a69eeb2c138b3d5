//! The error type of this crate, and how each error reads for people.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use grain::ErrorClass;

use crate::printer::{Exit, Problem};

/// What can go wrong round a daemon. Every variant has a class that drives retry and exit code.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb with its preposition: `read`, `listen on`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// A name that cannot name a relationship.
    #[error(
        "`{0}` cannot name a relationship: use 1 to 64 of A-Z a-z 0-9 . _ -, not starting with a dot"
    )]
    Name(String),
    /// An amount that cannot be read.
    #[error("`{text}` is not {wanted}")]
    Amount {
        /// What was given.
        text: String,
        /// What was expected, with an example.
        wanted: &'static str,
    },
    /// Neither an option nor the environment says where state lives.
    #[error(
        "no place for state: neither --state-dir, GRAINHAUL_STATE, XDG_STATE_HOME nor HOME is set"
    )]
    NoStateDir,
    /// There is no such relationship here.
    #[error("there is no relationship `{name}` in {}", root.display())]
    NoRelationship {
        /// Its name.
        name: String,
        /// The state directory.
        root: PathBuf,
    },
    /// A directory is not private to its owner.
    #[error("{} can be read or written by others (mode {mode:o})", path.display())]
    NotPrivate {
        /// Which directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process serves the relationship.
    #[error("the relationship `{name}` is in use by {holder}")]
    InUse {
        /// Its name.
        name: String,
        /// Who holds it, as far as is known.
        holder: String,
    },
    /// No process serves the relationship.
    #[error("no process serves this relationship ({} does not answer)", .0.display())]
    NotRunning(PathBuf),
    /// The control socket does not let us in.
    #[error("{} refuses this user: {reason}", path.display())]
    ControlRefused {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The process did not answer in time.
    #[error("no answer within {} s; it may still be carried out", .0.as_secs())]
    ControlTimeout(std::time::Duration),
    /// What answered does not speak our protocol.
    #[error("the control socket answered what cannot be understood: {0}")]
    ControlProtocol(String),
    /// The process answered with a problem of its own.
    #[error("{}", .0.what)]
    Answered(Box<Problem>),
    /// A hook cannot be used.
    #[error("the hook `{hook}` cannot be used: {reason}")]
    HookRefused {
        /// The hook as given.
        hook: String,
        /// Why.
        reason: String,
    },
    /// A hook failed.
    #[error("the hook `{hook}` failed: {reason}")]
    HookFailed {
        /// The hook as given.
        hook: String,
        /// How, with the end of what it printed.
        reason: String,
    },
    /// A log filter that cannot be read.
    #[error("`{filter}` is no log filter: {reason}")]
    LogFilter {
        /// What was given.
        filter: String,
        /// Why not.
        reason: String,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { what, path, source: Arc::new(source) }
    }

    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::ControlTimeout(_) => ErrorClass::Retry,
            Error::ControlProtocol(_) => ErrorClass::Peer,
            Error::Answered(problem) => problem.exit.class(),
            _ => ErrorClass::Operator,
        }
    }

    /// The code by which scripts tell errors apart; stable.
    pub fn code(&self) -> &str {
        match self {
            Error::Io { .. } => "io",
            Error::Name(_) => "bad-name",
            Error::Amount { .. } => "bad-amount",
            Error::NoStateDir => "no-state-dir",
            Error::NoRelationship { .. } => "no-relationship",
            Error::NotPrivate { .. } => "not-private",
            Error::InUse { .. } => "in-use",
            Error::NotRunning(_) => "not-running",
            Error::ControlRefused { .. } => "control-refused",
            Error::ControlTimeout(_) => "control-timeout",
            Error::ControlProtocol(_) => "control-protocol",
            Error::Answered(problem) => &problem.code,
            Error::HookRefused { .. } => "hook-refused",
            Error::HookFailed { .. } => "hook-failed",
            Error::LogFilter { .. } => "bad-log-filter",
        }
    }

    fn todo(&self) -> &'static str {
        match self {
            Error::Io { .. } => "Look at the cause, put it right and try again.",
            Error::Name(_) | Error::Amount { .. } | Error::LogFilter { .. } => {
                "Give another value."
            }
            Error::NoStateDir => "Name the directory with --state-dir.",
            Error::NoRelationship { .. } => {
                "Check the name and --state-dir; `init` makes a relationship."
            }
            Error::NotPrivate { .. } => "Take the rights of others away with `chmod go-rwx`.",
            Error::InUse { .. } => "Stop that process, or use a verb that talks to it.",
            Error::NotRunning(_) => "Start it with `serve`.",
            Error::ControlRefused { .. } => "Use the account that runs it, or root.",
            Error::ControlTimeout(_) => "Look at `status`, then try again.",
            Error::ControlProtocol(_) => "Use the same version as the running process.",
            Error::Answered(_) => "",
            Error::HookRefused { .. } => "Give other hooks, or move what stands in their way.",
            Error::HookFailed { .. } => "Run the hook by hand, put it right and try again.",
        }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Problem {
        if let Error::Answered(problem) = error {
            return (**problem).clone();
        }
        let exit = match error {
            Error::Name(_) | Error::Amount { .. } | Error::LogFilter { .. } | Error::NoStateDir => {
                Exit::USAGE
            }
            other => Exit::of_class(other.class()),
        };
        let safe = match error {
            Error::ControlTimeout(_) | Error::ControlProtocol(_) => {
                "The running process goes on; what it was asked for may or may not be done."
            }
            Error::HookFailed { .. } => "The application was thawed, or its thaw is being retried.",
            _ => "Nothing was changed.",
        };
        Problem::new(error.code(), error.to_string(), exit).safe(safe).todo(error.todo())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        Problem::from(&error)
    }
}
