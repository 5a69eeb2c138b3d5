//! Hands and eyes at a simulated machine: looking at files and plugging media in without being an
//! operation of it. No fault hook is asked, no time passes, nothing is counted.

use std::io;
use std::path::{Path, PathBuf};

use super::disk_state::Step;
use super::image::Image;
use super::names::Node;
use super::{SimMachine, disk_state::DiskState};
use crate::FileKind;

/// What a file held at one instant. Cheap to keep: pages are shared.
#[derive(Clone)]
pub struct FileContent(Image);

impl From<&[u8]> for FileContent {
    fn from(bytes: &[u8]) -> FileContent {
        let mut image = Image::default();
        image.len = bytes.len() as u64;
        image.write(0, bytes);
        FileContent(image)
    }
}

impl FileContent {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// True when the length is 0.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// The bytes of a range; what lies beyond the end reads as zeros.
    pub fn read(&self, offset: u64, buf: &mut [u8]) {
        self.0.read(offset, buf);
    }

    /// The pages of 4096 bytes that hold data, by their number; all others read as zeros. What the
    /// last one holds beyond the end does not count.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.pages()
    }

    /// The page of this number, if it holds data.
    pub fn page(&self, number: u64) -> Option<&[u8]> {
        self.0.page(number)
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.bytes(0, self.0.len as usize)
    }
}

impl SimMachine {
    /// What a process would read of the file at `path` now.
    pub fn content(&self, path: impl AsRef<Path>) -> io::Result<FileContent> {
        self.with(|state| {
            let inode = state.disk.file_at(path.as_ref())?;
            Ok(FileContent(state.disk.inode(inode)?.live.clone()))
        })
    }

    /// The files at or below `dir`, in order, with their lengths.
    pub fn files(&self, dir: impl AsRef<Path>) -> Vec<(PathBuf, u64)> {
        self.with(|state| files(&state.disk, dir.as_ref()))
    }

    /// Puts a file there, durable at once with the directories above it, as when a medium that holds
    /// it is plugged in.
    pub fn plug_in(&self, path: impl AsRef<Path>, content: &[u8]) {
        let path = path.as_ref();
        self.with(|state| {
            if let Some(dir) = path.parent() {
                for dir in dir.ancestors().filter(|dir| dir.parent().is_some()) {
                    state.disk.names.create_dir(dir);
                }
            }
            let inode = state.disk.add_file(path, FileKind::Regular);
            inode.write(0, 0, bytes::Bytes::copy_from_slice(content));
            inode.sync(u64::MAX);
        });
    }

    /// Takes away, at once and for good, every file below `dir`.
    pub fn unplug(&self, dir: impl AsRef<Path>) {
        self.with(|state| {
            for (path, _) in files(&state.disk, dir.as_ref()) {
                state.disk.names.remove_durable(&path);
            }
            state.disk.forget_nameless();
        });
    }

    /// How many changes of the content of the file at `path` were started and have not taken effect.
    pub fn changes_under_way(&self, path: impl AsRef<Path>) -> usize {
        self.with(|state| {
            let Ok(file) = state.disk.file_at(path.as_ref()) else { return 0 };
            let changes = |step: &&Step| match step {
                Step::Write { inode, .. } | Step::Zero { inode, .. } => *inode == file,
                _ => false,
            };
            state.in_flight.values().filter(changes).count()
        })
    }
}

fn files(disk: &DiskState, dir: &Path) -> Vec<(PathBuf, u64)> {
    let file = |(path, node): (&Path, Node)| match node {
        Node::File(inode) => Some((path.to_owned(), disk.inode(inode).ok()?.live.len)),
        Node::Dir => None,
    };
    disk.names.all_below(dir).filter_map(file).collect()
}
