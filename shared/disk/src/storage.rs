//! The trait [`Storage`]: names, directories and space of one machine's file systems.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::{File, FileKind, Local};

/// How to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing, for reading.
    Read,
    /// Existing, for reading and writing.
    ReadWrite,
    /// Existing, for reading and writing, locked against every other opener that asks for the lock
    /// (`O_EXCL` on a block device and an advisory lock). Fails with `WouldBlock` when held. The lock
    /// goes when the file is dropped and its running operations have ended.
    Exclusive,
    /// New, for reading and writing; fails with `AlreadyExists`.
    CreateNew,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name, without its directory. Names that are not UTF-8 are not listed.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
    /// Length in bytes for a regular file, else 0.
    pub len: u64,
}

/// The file systems of one machine. Paths are absolute.
///
/// A new name, a rename and a removal are on stable storage only after `sync_dir` of the directory
/// that holds the name.
pub trait Storage: 'static {
    /// The same storage, but that others on this machine may read the files (mode 0644) and
    /// directories (0755) made through it, as far as the umask lets them.
    fn readable_by_others(&self) -> Rc<dyn Storage>;

    /// Opens a file or block device.
    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> Local<'a, io::Result<Rc<dyn File>>>;

    /// Puts `from` in the place of `to`, atomically, whether or not `to` exists.
    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>>;

    /// Removes a file.
    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>>;

    /// Removes an empty directory.
    fn remove_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>>;

    /// Makes a directory (mode 0700, see [`Storage::readable_by_others`]) and the missing ones above it; fine if it is there. Unlike other
    /// names those of the directories made here are on stable storage when this returns, so that
    /// nobody has to know how many levels were missing.
    fn create_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>>;

    /// The entries of a directory, sorted by name.
    fn list<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Vec<DirEntry>>>;

    /// Makes the names in a directory durable.
    fn sync_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>>;

    /// Whether something is at `path`, and what. Fails with `InvalidInput` on what is neither a file,
    /// a directory nor a block device (a socket, a pipe).
    fn exists<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<FileKind>>>;

    /// Bytes that can still be written on the file system that holds `path`.
    fn free_space<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<u64>>;

    /// The absolute path without links, so that one volume is known under one name.
    fn canonical<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<PathBuf>>;

    /// Writes a small file whole so that after a crash either the old or the new content is there:
    /// new file, sync, rename, directory sync.
    fn replace<'a>(&'a self, path: &'a Path, content: bytes::Bytes) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
            let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
            name.push(".new");
            let temporary = dir.join(name);
            match self.remove(&temporary).await {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let file = self.open(&temporary, OpenMode::CreateNew).await?;
            file.write_at(0, content).await?;
            file.sync_data().await?;
            self.rename(&temporary, path).await?;
            self.sync_dir(dir).await
        })
    }

    /// Reads a whole file of at most `limit` bytes; a longer one fails with `FileTooLarge`.
    fn read_all<'a>(&'a self, path: &'a Path, limit: u64) -> Local<'a, io::Result<Vec<u8>>> {
        Box::pin(async move {
            let file = self.open(path, OpenMode::Read).await?;
            let len = file.len()?;
            if len > limit {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    format!("{} has {len} bytes, more than {limit}", path.display()),
                ));
            }
            file.read_at(0, len as usize).await
        })
    }
}
