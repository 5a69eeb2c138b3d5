//! Whether freezing a file system would freeze ourselves.
//!
//! Looked at: the device of the file system, its mount source (the subvolumes of one btrfs have
//! devices of their own), and the files behind loop devices, through several layers. Not looked at:
//! what stands behind device-mapper, overlay and network file systems; a freeze that stalls us there ends
//! with its timeout, by the guard.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// How many loop devices may stand on each other.
const LAYERS: usize = 8;

/// The reason why the file system at `path` must not be frozen, where one of `own` lives on it.
pub fn check(path: &Path, own: &[PathBuf]) -> Result<(), String> {
    let target = fs::metadata(path).map_err(|error| error.to_string())?;
    if !target.is_dir() {
        return Err("it is not the directory of a mounted file system".to_owned());
    }
    let source = mount_source(path);
    for file in own {
        let looked = |error: io::Error| format!("{}: {error}", file.display());
        for place in places(file).map_err(looked)? {
            let found = fs::metadata(&place).map_err(looked)?;
            let same_source = source.is_some() && source == mount_source(&place);
            if found.dev() == target.dev() || same_source {
                return Err(format!(
                    "it would freeze {}, which this process writes itself",
                    file.display()
                ));
            }
        }
    }
    Ok(())
}

/// The existing places in file systems that writing `file` writes into: the file or the directory that
/// it would be in, and the files behind loop devices below it.
fn places(file: &Path) -> io::Result<Vec<PathBuf>> {
    let mut places = Vec::new();
    let mut at = existing(file);
    for _ in 0..LAYERS {
        let found = fs::metadata(&at)?;
        let device = if found.file_type().is_block_device() {
            found.rdev()
        } else {
            places.push(at.clone());
            found.dev()
        };
        match backing_file(device) {
            Some(below) => at = existing(&below),
            None => break,
        }
    }
    Ok(places)
}

/// The path itself, or the nearest one above it that exists.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|at| at.exists());
    found.unwrap_or(Path::new("/")).to_owned()
}

/// The file behind a loop device.
fn backing_file(device: u64) -> Option<PathBuf> {
    let device = format!("{}:{}", major(device), minor(device));
    let text = fs::read_to_string(format!("/sys/dev/block/{device}/loop/backing_file")).ok()?;
    Some(PathBuf::from(text.trim_end_matches('\n')))
}

/// From which device the file system that holds `path` is mounted, where it is one.
fn mount_source(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    source_in(&fs::read_to_string("/proc/self/mountinfo").ok()?, &path)
}

/// [`mount_source`] in the text of `/proc/self/mountinfo` (proc(5)): the last of the deepest mounts
/// covers the others.
fn source_in(mounts: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4).map(unescaped) else { continue };
        let Some(source) = right.split(' ').nth(1) else { continue };
        let depth = point.components().count();
        if path.starts_with(&point) && best.is_none_or(|(deepest, _)| depth >= deepest) {
            best = Some((depth, source));
        }
    }
    best.map(|(_, source)| source).filter(|source| source.starts_with('/')).map(str::to_owned)
}

/// Space, tab, newline and backslash stand as three octal digits after a backslash.
fn unescaped(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (escape, letter) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escape, letter);
    }
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_file_system_is_not_frozen() {
        let dir = tempfile::tempdir().unwrap();
        let own = [dir.path().join("not/there/yet")];
        let reason = check(dir.path(), &own).unwrap_err();
        assert!(reason.contains("would freeze"), "{reason}");
        assert!(check(dir.path(), &[]).is_ok());
        // Another file system.
        assert!(check(Path::new("/proc"), &own).is_ok());
        assert!(check(Path::new("/nowhere"), &own).is_err());
        assert!(check(Path::new("/proc/version"), &own).unwrap_err().contains("not the directory"));
    }

    #[test]
    fn the_source_of_the_deepest_mount_counts() {
        let mounts = "\
            21 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            30 21 0:40 /a /srv/a\\040b rw shared:1 - btrfs /dev/sdb rw\n\
            31 21 0:41 /c /srv/c rw - btrfs /dev/sdb rw\n\
            32 21 0:5 / /proc rw - proc proc rw\nodd line\n";
        let source = |path: &str| source_in(mounts, Path::new(path));
        assert_eq!(source("/srv/a b/x").as_deref(), Some("/dev/sdb"));
        assert_eq!(source("/srv/c"), source("/srv/a b"));
        assert_eq!(source("/srv/cd").as_deref(), Some("/dev/sda1"));
        assert_eq!(source("/proc/1"), None);
    }
}
