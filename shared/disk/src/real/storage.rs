//! [`RealStorage`]: the file systems of this machine.
//!
//! New files have mode 0600, new directories 0700, unless others may read them; descriptors do not survive an `exec`. Everything
//! goes to the pool: even a look at a name may wait for a network file system.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::{RealFile, ThreadPool, run};
use crate::{DirEntry, File, FileKind, Local, OpenMode, Storage};

/// The file systems of this machine, see the module.
pub struct RealStorage {
    pool: Arc<ThreadPool>,
    modes: Modes,
}

/// Access to what is made.
#[derive(Clone, Copy)]
struct Modes {
    file: u32,
    directory: u32,
}

const PRIVATE: Modes = Modes { file: 0o600, directory: 0o700 };
const READABLE: Modes = Modes { file: 0o644, directory: 0o755 };

impl RealStorage {
    /// Storage whose waiting operations run in `pool`.
    pub fn new(pool: Arc<ThreadPool>) -> Self {
        RealStorage { pool, modes: PRIVATE }
    }

    fn in_pool<'a, T, F>(&'a self, path: &Path, job: F) -> Local<'a, io::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let path = path.to_owned();
        Box::pin(run(&self.pool, move || job(&path)))
    }
}

impl Storage for RealStorage {
    fn readable_by_others(&self) -> Rc<dyn Storage> {
        Rc::new(RealStorage { pool: self.pool.clone(), modes: READABLE })
    }

    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> Local<'a, io::Result<Rc<dyn File>>> {
        Box::pin(async move {
            let bits = self.modes.file;
            let (fd, kind) = self.in_pool(path, move |path| open(path, mode, bits)).await?;
            Ok(Rc::new(RealFile::new(fd, kind, self.pool.clone())) as Rc<dyn File>)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        let to = to.to_owned();
        self.in_pool(from, move |from| fs::rename(from, to))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.in_pool(path, |path| fs::remove_file(path))
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.in_pool(path, |path| fs::remove_dir(path))
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        let bits = self.modes.directory;
        self.in_pool(path, move |path| create_dir(path, bits))
    }

    fn list<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Vec<DirEntry>>> {
        self.in_pool(path, list)
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.in_pool(path, sync_dir)
    }

    fn exists<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<FileKind>>> {
        self.in_pool(path, |path| match fs::metadata(path) {
            Ok(found) => kind_of(&found).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<u64>> {
        self.in_pool(path, |path| {
            let stat = rustix::fs::statvfs(path)?;
            Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
        })
    }

    fn canonical<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<PathBuf>> {
        self.in_pool(path, |path| fs::canonicalize(path))
    }
}

fn kind_of(found: &fs::Metadata) -> io::Result<FileKind> {
    let kind = found.file_type();
    match () {
        () if kind.is_file() => Ok(FileKind::Regular),
        () if kind.is_block_device() => Ok(FileKind::Block),
        () if kind.is_dir() => Ok(FileKind::Directory),
        () => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a regular file, a block device nor a directory",
        )),
    }
}

/// Opens, checks what was opened, and locks.
fn open(path: &Path, mode: OpenMode, bits: u32) -> io::Result<(OwnedFd, FileKind)> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(mode != OpenMode::Read).mode(bits);
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY;
    if mode == OpenMode::CreateNew {
        options.create_new(true);
    } else {
        // A look before the open: opening a pipe would wait for its other end, and O_EXCL has a
        // meaning on devices only.
        match kind_of(&fs::metadata(path)?)? {
            FileKind::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            FileKind::Block if mode == OpenMode::Exclusive => flags |= OFlags::EXCL,
            _ => {}
        }
    }
    let held = || {
        let what = format!("{} is in use (locked or mounted)", path.display());
        io::Error::new(io::ErrorKind::WouldBlock, what)
    };
    let file = options.custom_flags(flags.bits() as i32).open(path).map_err(|error| {
        // Only an exclusive open of a device answers so: it is mounted, or held by another.
        if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) { held() } else { error }
    })?;
    let kind = kind_of(&file.metadata()?)?;
    if mode == OpenMode::Exclusive {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => return Err(held()),
            other => other?,
        }
    }
    Ok((file.into(), kind))
}

/// Makes the directory and the missing ones above it, each durable in the one that holds it.
fn create_dir(path: &Path, bits: u32) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(bits).create(dir) {
            Ok(()) => {}
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        if let Some(parent) = dir.parent() {
            sync_dir(parent)?;
        }
    }
    if path.is_dir() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let (is_dir, len) = match fs::metadata(entry.path()) {
            Ok(found) => (found.is_dir(), if found.is_file() { found.len() } else { 0 }),
            // A link to nothing is still a name.
            Err(_) => (false, 0),
        };
        entries.push(DirEntry { name, is_dir, len });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::CLOEXEC | OFlags::DIRECTORY).bits() as i32)
        .open(path)?
        .sync_all()
}
