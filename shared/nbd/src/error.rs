//! Errors: [`Errno`], what a command answers on the wire, and [`Error`], what the functions of this
//! crate return.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The error values of the NBD protocol; no other value ever goes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// A write to a read-only export.
    Perm = 1,
    /// The disk failed.
    Io = 5,
    /// Not enough memory.
    NoMemory = 12,
    /// A request that the protocol or the export does not allow.
    Invalid = 22,
    /// No space left, or a write past the end.
    NoSpace = 28,
    /// The request is too long.
    Overflow = 75,
    /// A fast zero that would not be fast.
    NotSupported = 95,
    /// The server is being shut down.
    Shutdown = 108,
}

impl Errno {
    /// The error behind a value from the wire; an unexpected one counts as `Invalid`, as the
    /// protocol asks.
    pub fn from_wire(value: u32) -> Errno {
        match value {
            1 => Errno::Perm,
            5 => Errno::Io,
            12 => Errno::NoMemory,
            28 => Errno::NoSpace,
            75 => Errno::Overflow,
            95 => Errno::NotSupported,
            108 => Errno::Shutdown,
            _ => Errno::Invalid,
        }
    }

    /// In words, for the message that goes with an error.
    pub fn words(self) -> &'static str {
        match self {
            Errno::Perm => "operation not permitted",
            Errno::Io => "input/output error",
            Errno::NoMemory => "not enough memory",
            Errno::Invalid => "invalid request",
            Errno::NoSpace => "no space left",
            Errno::Overflow => "request too long",
            Errno::NotSupported => "not supported",
            Errno::Shutdown => "the server is being shut down",
        }
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Errno {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => Errno::NoSpace,
            Kind::PermissionDenied | Kind::ReadOnlyFilesystem => Errno::Perm,
            Kind::OutOfMemory => Errno::NoMemory,
            Kind::Unsupported => Errno::NotSupported,
            Kind::InvalidInput => Errno::Invalid,
            _ => Errno::Io,
        }
    }
}

/// Who must act on an error. The same five classes as everywhere in the project, defined here
/// again because this crate depends on nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Nobody: trying again later may succeed.
    Retry,
    /// The operator: a path, an address, a permission.
    Operator,
    /// The other end of the connection.
    Peer,
    /// Stored bytes are not what was written. Never returned by this crate.
    Corrupt,
    /// We, or the code that calls us.
    Bug,
}

/// What the functions of this crate return.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket or file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The other end sent something that the protocol does not allow.
    #[error("the peer broke the NBD protocol: {field} at byte {offset} of its message: {problem}")]
    Protocol {
        /// Which field.
        field: &'static str,
        /// Where in the message, in bytes.
        offset: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The other end did not finish its part of the handshake in time.
    #[error("the peer took longer than {0} ms to {1}")]
    Slow(u64, &'static str),
    /// The connection ended before the answer came.
    #[error("the connection was closed")]
    Closed,
    /// The server refused an option.
    #[error("the server refuses {option} ({reply:#x}): {message}")]
    Refused {
        /// Which option, in the protocol's words.
        option: &'static str,
        /// The reply type.
        reply: u32,
        /// The server's words, or ours where it sent none.
        message: String,
    },
    /// The server answered a command with an error.
    #[error("the server answers: {}", .0.words())]
    Command(Errno),
    /// Another process answers on the socket.
    #[error("another process serves on {0}")]
    SocketInUse(PathBuf),
    /// Something that is not a socket stands at the path.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// Plain TCP on an address that is not loopback, or without the flag that allows it.
    #[error("{0} without TLS is refused: give certificates, or use a loopback address and say so")]
    PlainTcp(SocketAddr),
    /// Exports that cannot be served.
    #[error("export `{name}`: {problem}")]
    Export {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Error {
    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied
                | io::ErrorKind::NotFound
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::InvalidInput => ErrorClass::Operator,
                _ => ErrorClass::Retry,
            },
            Error::Protocol { .. } | Error::Slow(..) => ErrorClass::Peer,
            Error::Closed => ErrorClass::Retry,
            Error::Refused { .. } | Error::Command(_) => ErrorClass::Peer,
            Error::SocketInUse(_) | Error::NotASocket(_) | Error::PlainTcp(_) => {
                ErrorClass::Operator
            }
            Error::Export { .. } => ErrorClass::Bug,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| Error::Io { what, source }
    }

    pub(crate) fn protocol(
        field: &'static str,
        offset: usize,
        problem: impl Into<String>,
    ) -> Error {
        Error::Protocol { field, offset, problem: problem.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_values_round_trip_and_unknown_ones_are_invalid() {
        let all = [
            Errno::Perm,
            Errno::Io,
            Errno::NoMemory,
            Errno::Invalid,
            Errno::NoSpace,
            Errno::Overflow,
            Errno::NotSupported,
            Errno::Shutdown,
        ];
        for errno in all {
            assert_eq!(Errno::from_wire(errno as u32), errno);
            assert!(!errno.words().is_empty());
        }
        assert_eq!(Errno::from_wire(4711), Errno::Invalid);
    }

    #[test]
    fn a_full_disk_is_no_space_and_an_unknown_failure_is_io() {
        assert_eq!(Errno::from(&io::Error::from(io::ErrorKind::StorageFull)), Errno::NoSpace);
        assert_eq!(Errno::from(&io::Error::from_raw_os_error(28)), Errno::NoSpace);
        assert_eq!(Errno::from(&io::Error::from_raw_os_error(122)), Errno::NoSpace);
        assert_eq!(Errno::from(&io::Error::from_raw_os_error(27)), Errno::NoSpace);
        assert_eq!(Errno::from(&io::Error::from_raw_os_error(5)), Errno::Io);
    }
}
