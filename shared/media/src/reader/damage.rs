//! Damage: what is wrong with a file of a set, where, and which grains it cost.

use std::fmt;
use std::path::{Path, PathBuf};

use grain::{ErrorClass, GrainSet, SetId};

use crate::fields::BadField;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file is not there.
    Missing,
    /// The file system could not read it.
    Unreadable(String),
    /// The file has another length than signed.
    Length {
        /// Its length in bytes.
        found: u64,
        /// The signed length.
        signed: u64,
    },
    /// The bytes of the file do not have the signed hash.
    Hash,
    /// A field of a header, index or trailer.
    Field(BadField),
    /// The index is damaged; `recovered_from` says where its content came from.
    Index {
        /// What is wrong with it.
        why: String,
        /// Where the index was taken from instead.
        recovered_from: IndexSource,
    },
    /// A record's seal does not open: damaged, forged or moved.
    Seal,
    /// A record opens, but it is not the one that the source signed.
    NotSigned,
    /// A record's content does not match its digests.
    Content,
    /// The file belongs to another set.
    OtherSet(SetId),
    /// The file is another segment of this set.
    OtherSegment(u64),
    /// A file with this name was made again later: same set, same number, other content.
    OtherVersion,
    /// A copy of the directory of this set that is older than another medium's.
    Stale,
    /// A file that the signed directory does not know.
    Unlisted,
    /// The plain hash list does not say what the signed directory says.
    HashList,
}

/// Where an index was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexSource {
    /// The copy in the part directory.
    Part,
    /// All records were found by scanning.
    Scan,
    /// Scanning found what is still whole; the rest is lost.
    PartialScan,
    /// Nothing could be recovered.
    Nothing,
}

/// One thing that is wrong on a medium. Reading goes on behind it.
#[derive(Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub path: PathBuf,
    /// On which medium, from 1.
    pub medium: u16,
    /// In which segment, if in one.
    pub segment: Option<u64>,
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub fault: Fault,
    /// The grains that it cost; empty when it cost none.
    pub grains: GrainSet,
}

impl Damage {
    pub(crate) fn of_file(path: &Path, medium: u16, fault: Fault) -> Damage {
        let (path, grains) = (path.to_owned(), GrainSet::new());
        Damage { path, medium, segment: None, offset: 0, fault, grains }
    }

    /// Damage of stored bytes is always the same class; the enum is for callers that treat it as an
    /// error.
    pub fn class(&self) -> ErrorClass {
        match self.fault {
            Fault::Unreadable(_) | Fault::Missing => ErrorClass::Operator,
            _ => ErrorClass::Corrupt,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => f.write_str("the file is missing"),
            Fault::Unreadable(why) => write!(f, "cannot be read: {why}"),
            Fault::Length { found, signed } if found < signed => {
                write!(f, "cut off: {found} of {signed} bytes are there")
            }
            Fault::Length { found, signed } => {
                write!(f, "too long: {found} bytes instead of {signed}")
            }
            Fault::Hash => f.write_str("does not have the signed hash"),
            Fault::Field(field) => field.fmt(f),
            Fault::Index { why, recovered_from } => {
                write!(f, "index: {why} (")?;
                f.write_str(match recovered_from {
                    IndexSource::Part => "taken from the part directory)",
                    IndexSource::Scan => "rebuilt from the records)",
                    IndexSource::PartialScan => "rebuilt from the records that are whole)",
                    IndexSource::Nothing => "nothing could be recovered)",
                })
            }
            Fault::Seal => f.write_str("a record does not open: damaged, forged or moved"),
            Fault::NotSigned => f.write_str("a record is not the one that the source signed"),
            Fault::Content => f.write_str("a record does not match its digests"),
            Fault::OtherSet(set) => write!(f, "the file belongs to another set ({set})"),
            Fault::OtherSegment(number) => write!(f, "the file is segment {number}"),
            Fault::OtherVersion => f.write_str("the file is not the version that was signed"),
            Fault::Stale => f.write_str("an older directory of the same set"),
            Fault::Unlisted => f.write_str("the signed directory does not know this file"),
            Fault::HashList => f.write_str("the hash list contradicts the signed directory"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: byte {}: {}", self.path.display(), self.offset, self.fault)?;
        match self.grains.len() {
            0 => Ok(()),
            n => write!(f, "; {n} grains lost"),
        }
    }
}

impl fmt::Debug for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Damage({self})")
    }
}
