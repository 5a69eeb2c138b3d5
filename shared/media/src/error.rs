//! What can go wrong with media, by name: which path, which field, and who must act.

use std::io;
use std::path::{Path, PathBuf};

use grain::{ErrorClass, SetId};

use crate::fields::BadField;

/// An error about a medium or a set. Damage to single records is not an error but a
/// [`Damage`](crate::Damage): reading goes on.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// The file system said no.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// No label: not a medium of ours, or it never became one.
    #[error("{}: no LABEL.json here; this is not a Grainhaul medium", .0.display())]
    NotAMedium(PathBuf),
    /// A file holds what it may not hold.
    #[error("{}: {field}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        field: BadField,
    },
    /// The bytes of a file are not those that the signed directory names.
    #[error("{}: the file is not the one that the signed directory names ({what})", path.display())]
    NotAsSigned {
        /// Which file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// A directory that holds files of another set.
    #[error("{}: holds files of another media set ({found}); choose an empty directory", path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// Media of different sets were given as one.
    #[error("{}: belongs to set {found}, not to set {wanted}", path.display())]
    OtherSet {
        /// Which medium or file.
        path: PathBuf,
        /// The set that it belongs to.
        found: SetId,
        /// The set that was asked for.
        wanted: SetId,
    },
    /// No signed directory on any of the media: the set was never finished, or lost it.
    #[error("set {set}: no signed directory on {}: {why}", list(media))]
    NoDirectory {
        /// Which set.
        set: SetId,
        /// Where it was looked for.
        media: Vec<PathBuf>,
        /// What was found instead.
        why: String,
    },
    /// The signature is not that of the source that the file itself names.
    #[error("{}: the signature does not match: damaged or forged", .0.display())]
    BadSignature(PathBuf),
    /// Signed, but by someone else.
    #[error("{}: signed by {found}, but the source of this relationship is {expected}", path.display())]
    WrongSource {
        /// Which file.
        path: PathBuf,
        /// Fingerprint of the signer.
        found: String,
        /// Fingerprint of the expected source.
        expected: String,
    },
    /// No given key opens the set.
    #[error("{}: {why}", path.display())]
    NoKey {
        /// The envelope.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The plan of a new set contradicts itself or the media.
    #[error("this set cannot be written: {0}")]
    Plan(String),
    /// A set that was to be resumed is another one than the plan says.
    #[error("{}: cannot be resumed: {why}", path.display())]
    CannotResume {
        /// Which file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The writer has stopped after an earlier error or a cancel.
    #[error("the set is not being written any more: {0}")]
    Stopped(String),
    /// A caller broke the contract.
    #[error("bug: {0}")]
    Bug(String),
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(", ")
}

impl MediaError {
    /// Who must act.
    pub fn class(&self) -> ErrorClass {
        match self {
            MediaError::Io { source, .. } => match source.kind() {
                io::ErrorKind::Interrupted | io::ErrorKind::TimedOut => ErrorClass::Retry,
                _ => ErrorClass::Operator,
            },
            MediaError::NotAMedium(_)
            | MediaError::InUse { .. }
            | MediaError::OtherSet { .. }
            | MediaError::NoDirectory { .. }
            | MediaError::NoKey { .. }
            | MediaError::Plan(_)
            | MediaError::Stopped(_)
            | MediaError::CannotResume { .. } => ErrorClass::Operator,
            MediaError::Damaged { .. }
            | MediaError::NotAsSigned { .. }
            | MediaError::BadSignature(_) => ErrorClass::Corrupt,
            MediaError::WrongSource { .. } => ErrorClass::Peer,
            MediaError::Bug(_) => ErrorClass::Bug,
        }
    }

    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> MediaError {
        let path = path.to_owned();
        move |source| MediaError::Io { path, doing, source }
    }

    pub(crate) fn damaged(path: &Path) -> impl FnOnce(BadField) -> MediaError {
        let path = path.to_owned();
        move |field| MediaError::Damaged { path, field }
    }

    /// The same error once more, for each of several waiters; the system's error keeps its kind and
    /// words.
    pub(crate) fn again(&self) -> MediaError {
        match self {
            MediaError::Io { path, doing, source } => MediaError::Io {
                path: path.clone(),
                doing,
                source: io::Error::new(source.kind(), source.to_string()),
            },
            other => MediaError::Stopped(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_path_and_who_must_act() {
        let path = Path::new("/media/a/LABEL.json");
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = MediaError::io(path, "writing")(full);
        assert_eq!(error.class(), ErrorClass::Operator);
        assert!(error.to_string().starts_with("/media/a/LABEL.json: writing: "));
        assert_eq!(error.again().class(), ErrorClass::Operator);
        let bad = BadField { field: "salt", offset: 64, why: "cut off" };
        let error = MediaError::damaged(path)(bad);
        assert_eq!(error.class(), ErrorClass::Corrupt);
        assert_eq!(error.to_string(), "/media/a/LABEL.json: field `salt` at byte 64: cut off");
        assert_eq!(MediaError::Bug("x".into()).class(), ErrorClass::Bug);
    }
}
