//! Files below a folder: made from a seed, read back, compared file by file.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::Random;

/// Every file below a folder: its path from there, and what it holds.
pub type FileTree = BTreeMap<PathBuf, Vec<u8>>;

fn fail<T>(path: &Path, done: std::io::Result<T>) -> T {
    done.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Makes `count` files of up to `longest` bytes in a few folders below `root`, and writes them through
/// to the disk.
///
/// # Panics
/// When one cannot be made.
pub fn make_files(root: &Path, count: u64, longest: u64, seed: u64) {
    let mut random = Random::new(seed);
    for number in 0..count {
        let folder = root.join(format!("folder-{}", number % 7));
        fail(&folder, fs::create_dir_all(&folder));
        let mut bytes = vec![0; random.below(longest) as usize];
        random.fill(&mut bytes);
        write_through(&folder.join(format!("file-{number}")), &bytes);
    }
}

fn write_through(path: &Path, bytes: &[u8]) {
    let mut file = fail(path, fs::File::create(path));
    fail(path, file.write_all(bytes));
    fail(path, file.sync_all());
}

/// Reads every file below `root`. What a file system makes for itself (`lost+found`) is left out.
///
/// # Panics
/// When something cannot be read.
pub fn read_files(root: &Path) -> FileTree {
    let mut tree = FileTree::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fail(&folder, fs::read_dir(&folder)) {
            let path = fail(&folder, entry).path();
            if path.ends_with("lost+found") {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
                tree.insert(name, fail(&path, fs::read(&path)));
            }
        }
    }
    tree
}

/// The first file that is not the same in both, with what is the matter.
pub fn first_difference(left: &FileTree, right: &FileTree) -> Option<String> {
    let names = left.keys().chain(right.keys());
    names.into_iter().find_map(|name| match (left.get(name), right.get(name)) {
        (Some(one), Some(other)) if one == other => None,
        (Some(one), Some(other)) => {
            let at = one.iter().zip(other).position(|(x, y)| x != y);
            let lengths = (one.len(), other.len());
            Some(format!("{}: lengths {lengths:?}, first difference {at:?}", name.display()))
        }
        (one, _) => {
            let side = if one.is_some() { "left" } else { "right" };
            Some(format!("{}: only on the {side}", name.display()))
        }
    })
}

/// A thread that makes, rewrites and removes files, each written through, until it is stopped.
pub struct FileWriter {
    stop: Arc<AtomicBool>,
    files: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl FileWriter {
    /// Starts it in the folder `busy` below `root`.
    pub fn start(root: &Path, seed: u64) -> FileWriter {
        let (stop, files) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, count, folder) = (stop.clone(), files.clone(), root.join("busy"));
        let thread = std::thread::spawn(move || {
            fail(&folder, fs::create_dir_all(&folder));
            let mut random = Random::new(seed);
            while !ended.load(Ordering::Relaxed) {
                let path = folder.join(format!("file-{}", random.below(40)));
                if random.below(5) == 0 && path.exists() {
                    fail(&path, fs::remove_file(&path));
                } else {
                    let mut bytes = vec![0; 1 + random.below(60_000) as usize];
                    random.fill(&mut bytes);
                    write_through(&path, &bytes);
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        FileWriter { stop, files, thread: Some(thread) }
    }

    /// How many files it has written or removed.
    pub fn count(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// Stops it.
    ///
    /// # Panics
    /// With what it met.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A panic of the thread is told by `stop`; here there may be another under way.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        make_files(&a, 20, 5000, 3);
        make_files(&b, 20, 5000, 3);
        let (mut one, two) = (read_files(&a), read_files(&b));
        assert_eq!(one.len(), 20);
        assert_eq!(first_difference(&one, &two), None);
        let name = PathBuf::from("folder-3/file-3");
        one.get_mut(&name).unwrap()[2] ^= 1;
        let said = first_difference(&one, &two).unwrap();
        assert!(said.starts_with("folder-3/file-3") && said.contains("Some(2)"), "{said}");
        one.remove(&name);
        assert!(first_difference(&one, &two).unwrap().contains("only on the right"));
    }

    #[test]
    fn a_writer_writes_until_it_is_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let writer = FileWriter::start(folder.path(), 1);
        let soon = std::time::Duration::from_secs(20);
        crate::wait_for("ten files", soon, || (writer.count() >= 10).then_some(()));
        writer.stop();
        assert!(!read_files(folder.path()).is_empty());
    }
}
