//! [`SimStorage`]: the file systems of a simulated machine. One file system under `/`, no links.

use std::io;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use super::disk_state::{DiskState, Step};
use super::file::Handle;
use super::machine::{Call, State};
use super::names::Node;
use super::{OpKind, SimFile, SimMachine};
use crate::{DirEntry, File, FileKind, Local, OpenMode, Storage};

/// The file systems as one process sees them; dead after a crash.
#[derive(Clone)]
pub struct SimStorage {
    machine: SimMachine,
    incarnation: u64,
}

impl SimStorage {
    pub(super) fn new(machine: SimMachine, incarnation: u64) -> Self {
        SimStorage { machine, incarnation }
    }

    fn step<'a>(
        &'a self,
        kind: OpKind,
        path: &'a Path,
        step: impl FnOnce(PathBuf) -> io::Result<Step> + 'a,
    ) -> Local<'a, io::Result<()>> {
        Box::pin(async move {
            let path = plain(path)?;
            let call = Call { kind, path: path.as_path().into(), offset: 0, len: 0 };
            self.machine.step(self.incarnation, call, step(path)?, ()).await
        })
    }

    fn look<'a, T: 'a>(
        &'a self,
        kind: OpKind,
        path: &'a Path,
        look: impl FnOnce(&DiskState, &Path) -> io::Result<T> + 'a,
    ) -> Local<'a, io::Result<T>> {
        Box::pin(async move {
            let path = plain(path)?;
            let call = Call { kind, path: path.as_path().into(), offset: 0, len: 0 };
            self.machine.look(self.incarnation, call, |disk| look(disk, &path)).await
        })
    }
}

impl Storage for SimStorage {
    /// It has no modes.
    fn readable_by_others(&self) -> Rc<dyn Storage> {
        Rc::new(self.clone())
    }

    fn open<'a>(&'a self, path: &'a Path, mode: OpenMode) -> Local<'a, io::Result<Rc<dyn File>>> {
        Box::pin(async move {
            if mode == OpenMode::CreateNew {
                self.step(OpKind::Open, path, |path| Ok(Step::Create { path })).await?;
            } else {
                self.look(OpKind::Open, path, |disk, path| disk.file_at(path)).await?;
            }
            self.machine.alive(self.incarnation)?;
            let path = plain(path)?;
            let (inode, kind) = self.machine.with(|state| open(state, &path, mode))?;
            let handle = Handle {
                machine: self.machine.clone(),
                incarnation: self.incarnation,
                inode,
                exclusive: mode == OpenMode::Exclusive,
            };
            let writable = mode != OpenMode::Read;
            Ok(Rc::new(SimFile::new(handle, kind, path.into(), writable)) as Rc<dyn File>)
        })
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> Local<'a, io::Result<()>> {
        self.step(OpKind::Rename, from, |from| Ok(Step::Rename { from, to: plain(to)? }))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.step(OpKind::Remove, path, |path| Ok(Step::Remove { path }))
    }

    fn remove_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.step(OpKind::RemoveDir, path, |path| Ok(Step::RemoveDir { path }))
    }

    fn create_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.step(OpKind::CreateDir, path, |path| Ok(Step::CreateDir { path }))
    }

    fn list<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Vec<DirEntry>>> {
        self.look(OpKind::List, path, |disk, path| {
            disk.dir_at(path)?;
            let entry = |(path, node): (&Path, Node)| {
                let name = path.file_name()?.to_str()?.to_owned();
                let len = match node {
                    Node::File(inode) => {
                        disk.inodes.get(&inode).map_or(0, |file| match file.kind {
                            FileKind::Regular => file.live.len,
                            _ => 0,
                        })
                    }
                    Node::Dir => 0,
                };
                Some(DirEntry { name, is_dir: node == Node::Dir, len })
            };
            let mut entries: Vec<_> = disk.names.below(path).filter_map(entry).collect();
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
    }

    fn sync_dir<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<()>> {
        self.step(OpKind::SyncDir, path, |path| {
            let upto = self.machine.with(|state| state.disk.next_seq);
            Ok(Step::SyncDir { path, upto })
        })
    }

    fn exists<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<Option<FileKind>>> {
        self.look(OpKind::Exists, path, |disk, path| match disk.names.get(path) {
            None => Ok(None),
            Some(Node::Dir) => Ok(Some(FileKind::Directory)),
            Some(Node::File(inode)) => Ok(Some(disk.inode(inode)?.kind)),
        })
    }

    fn free_space<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<u64>> {
        self.look(OpKind::FreeSpace, path, |disk, path| match disk.names.get(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(_) => Ok(disk.free()),
        })
    }

    fn canonical<'a>(&'a self, path: &'a Path) -> Local<'a, io::Result<PathBuf>> {
        self.look(OpKind::Canonical, path, |disk, path| match disk.names.get(path) {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(_) => Ok(path.to_owned()),
        })
    }
}

/// Takes the file into use.
fn open(state: &mut State, path: &Path, mode: OpenMode) -> io::Result<(u64, FileKind)> {
    let inode = state.disk.file_at(path)?;
    let kind = state.disk.inode(inode)?.kind;
    if mode == OpenMode::Exclusive && !state.locks.insert(inode) {
        let what = format!("{} is in use (locked or mounted)", path.display());
        return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
    }
    *state.disk.open.entry(inode).or_insert(0) += 1;
    Ok((inode, kind))
}

/// The path in its one form. Only absolute paths without `..`, as the contract has it.
fn plain(path: &Path) -> io::Result<PathBuf> {
    if is_plain(path.as_os_str().as_encoded_bytes()) {
        return Ok(path.to_owned());
    }
    let odd = path.components().any(|part| matches!(part, Component::ParentDir));
    if !path.is_absolute() || odd {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(path.components().collect())
}

/// Whether it surely has that form: nearly every path does, and taking one apart costs more than the rest
/// of most operations.
fn is_plain(path: &[u8]) -> bool {
    let odd = |pair: &[u8]| matches!(pair, b"//" | b"/.");
    path.len() > 1 && path[0] == b'/' && !path.ends_with(b"/") && !path.windows(2).any(odd)
}
