//! The names of the files of a medium. Every medium is one directory with nothing below it.

use std::path::{Path, PathBuf};

/// The label.
pub const LABEL: &str = "LABEL.json";
/// The wrapped set key.
pub const ENVELOPE: &str = "KEY.age";
/// The set's signed directory.
pub const DIRECTORY: &str = "DIRECTORY.ghd";
/// File hashes in plain, as `b3sum` prints and checks them.
pub const HASHES: &str = "HASHES.b3";

/// The suffix under which a file is made before it is renamed into place.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// The name of segment `number`.
pub fn segment(number: u64) -> String {
    format!("segment-{number:08}.ghs")
}

/// The name of the part directory of medium `medium` (from 1).
pub fn part(medium: u16) -> String {
    format!("PART-{medium:03}.ghp")
}

/// The path of segment `number` on the medium at `dir`.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(segment(number))
}

/// The number in a segment's name.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".ghs")?;
    let number = digits.parse().ok()?;
    // Only the form that we write: `segment-17.ghs` is not ours.
    (segment(number) == name).then_some(number)
}

/// What a name on a medium stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Segment(u64),
    Part,
    Label,
    Envelope,
    Directory,
    Hashes,
}

/// Recognises the names that this format uses, with or without the suffix of a file being made.
pub(crate) fn recognise(name: &str) -> Option<Named> {
    let name = name.strip_suffix(NEW_SUFFIX).unwrap_or(name);
    match name {
        LABEL => Some(Named::Label),
        ENVELOPE => Some(Named::Envelope),
        DIRECTORY => Some(Named::Directory),
        HASHES => Some(Named::Hashes),
        _ => match name.strip_prefix("PART-").and_then(|n| n.strip_suffix(".ghp")) {
            Some(digits) if digits.parse::<u16>().is_ok() => Some(Named::Part),
            _ => segment_number(name).map(Named::Segment),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for number in [0, 17, 99_999_999, 123_456_789_012] {
            assert_eq!(segment_number(&segment(number)), Some(number));
        }
        assert_eq!(segment(17), "segment-00000017.ghs");
        for other in ["segment-17.ghs", "segment-.ghs", "segment--0000001.ghs", "notes.txt", ""] {
            assert_eq!(recognise(other), None, "{other}");
        }
        assert_eq!(recognise(&part(3)), Some(Named::Part));
        assert_eq!(recognise("LABEL.json.new"), Some(Named::Label));
    }
}
