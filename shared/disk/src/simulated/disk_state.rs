//! The whole disk of a simulated machine as plain data, and the steps that change it.
//!
//! Everything that changes it is a [`Step`], so that a recorded list of steps, played again on a
//! copy, gives the same state. Nothing here waits, draws or fails by order.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::inode::{Choose, Inode, torn};
use super::names::{Change, Names, Node};
use crate::FileKind;

/// One change of a simulated disk. Files are named by the number of their inode; `upto` is the
/// number of the step that was the next one when a sync started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // each is the method of the trait of the same name
pub enum Step {
    Create { path: PathBuf },
    CreateDir { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    RemoveDir { path: PathBuf },
    SyncDir { path: PathBuf, upto: u64 },
    Write { inode: u64, offset: u64, data: Bytes, durable: bool },
    Zero { inode: u64, range: Range<u64>, punch: bool },
    SetLen { inode: u64, len: u64 },
    Allocate { inode: u64, range: Range<u64> },
    Sync { inode: u64, upto: u64 },
    SyncFailed { inode: u64, upto: u64 },
}

/// See the module.
#[derive(Clone)]
pub struct DiskState {
    pub inodes: BTreeMap<u64, Inode>,
    pub names: Names,
    /// How often each inode is open: a removed file lives on while it is.
    pub open: BTreeMap<u64, u32>,
    /// Bytes that regular files can take together.
    pub capacity: u64,
    next_inode: u64,
    /// The number of the next step.
    pub next_seq: u64,
}

impl DiskState {
    pub fn new(capacity: u64) -> Self {
        DiskState {
            inodes: BTreeMap::new(),
            names: Names::default(),
            open: BTreeMap::new(),
            capacity,
            next_inode: 1,
            next_seq: 1,
        }
    }

    /// Bytes that can still be written.
    pub fn free(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.live_inodes().collect();
        let held = |inode: &u64| named.contains(inode) || self.open.contains_key(inode);
        let used = self.inodes.iter().filter(|(id, _)| held(id)).map(|(_, inode)| inode.used());
        self.capacity.saturating_sub(used.sum())
    }

    /// Puts a block device of `len` zero bytes at `path`.
    pub fn add_block_device(&mut self, path: &Path, len: u64) {
        let inode = self.new_inode(FileKind::Block, len);
        self.names.create_durable(path, inode);
    }

    /// Puts an empty file at `path`, its name durable at once, in the place of what stands there.
    pub fn add_file(&mut self, path: &Path, kind: FileKind) -> &mut Inode {
        let id = self.new_inode(kind, 0);
        self.names.remove_durable(path);
        self.names.create_durable(path, id);
        self.inodes.entry(id).or_insert_with(|| Inode::new(kind, 0))
    }

    fn new_inode(&mut self, kind: FileKind, len: u64) -> u64 {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, Inode::new(kind, len));
        id
    }

    /// The file at `path`.
    pub fn file_at(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory at `path`.
    pub fn dir_at(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn parent_of(&self, path: &Path) -> io::Result<()> {
        self.dir_at(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// The inode `id`.
    pub fn inode(&self, id: u64) -> io::Result<&Inode> {
        self.inodes.get(&id).ok_or_else(|| io::Error::other("no such inode (bug)"))
    }

    fn inode_mut(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::Error::other("no such inode (bug)"))
    }

    /// Makes one step; a step that fails changes nothing.
    pub fn apply(&mut self, step: &Step) -> io::Result<()> {
        let seq = self.next_seq;
        self.check(step)?;
        match step {
            Step::Create { path } => {
                let inode = self.new_inode(FileKind::Regular, 0);
                self.names.change(seq, Change::Link(path.clone(), inode));
            }
            Step::CreateDir { path } => {
                let missing = path.ancestors().filter(|dir| self.names.get(dir).is_none());
                let missing: Vec<_> = missing.map(Path::to_owned).collect();
                missing.iter().rev().for_each(|dir| self.names.create_dir(dir));
            }
            Step::Rename { from, to } if from == to => {}
            Step::Rename { from, to } => {
                self.names.change(seq, Change::Rename(from.clone(), to.clone()));
            }
            Step::Remove { path } => self.names.change(seq, Change::Unlink(path.clone())),
            Step::RemoveDir { path } => self.names.change(seq, Change::RemoveDir(path.clone())),
            Step::SyncDir { path, upto } => self.names.sync_dir(path, *upto),
            Step::Write { inode, offset, data, durable } => {
                let inode = self.inode_mut(*inode)?;
                inode.write(seq, *offset, data.clone());
                if *durable {
                    inode.sync_write(seq);
                }
            }
            Step::Zero { inode, range, punch } => {
                self.inode_mut(*inode)?.zero(seq, range.clone(), *punch);
            }
            Step::SetLen { inode, len } => self.inode_mut(*inode)?.set_len(seq, *len),
            Step::Allocate { inode, range } => self.inode_mut(*inode)?.allocate(seq, range.clone()),
            Step::Sync { inode, upto } => self.inode_mut(*inode)?.sync(*upto),
            Step::SyncFailed { inode, upto } => self.inode_mut(*inode)?.sync_failed(*upto),
        }
        self.next_seq += 1;
        Ok(())
    }

    /// Whether a step can be made.
    fn check(&self, step: &Step) -> io::Result<()> {
        match step {
            Step::Create { path } => match self.names.get(path) {
                Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
                None => self.parent_of(path),
            },
            Step::CreateDir { path } => {
                path.ancestors().find(|dir| self.names.get(dir).is_some()).map_or(Ok(()), |dir| {
                    self.dir_at(dir).map_err(|_| io::ErrorKind::NotADirectory.into())
                })
            }
            Step::Rename { from, to } => {
                self.file_at(from)?;
                if self.names.get(to) == Some(Node::Dir) {
                    return Err(io::ErrorKind::IsADirectory.into());
                }
                self.parent_of(to)
            }
            Step::Remove { path } => self.file_at(path).map(|_| ()),
            Step::RemoveDir { path } => {
                self.dir_at(path)?;
                match self.names.below(path).next() {
                    Some(_) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
                    None => Ok(()),
                }
            }
            Step::SyncDir { path, .. } => self.dir_at(path),
            Step::Write { inode, offset, data, .. } => {
                self.room(*inode, *offset..offset.saturating_add(data.len() as u64))
            }
            Step::Zero { inode, range, punch: false } => {
                let end = self.inode(*inode)?.live.len;
                self.room(*inode, range.start.min(end)..range.end.min(end))
            }
            Step::Allocate { inode, range } => {
                self.regular(*inode)?;
                self.room(*inode, range.clone())
            }
            Step::SetLen { inode, .. } => self.regular(*inode),
            _ => Ok(()),
        }
    }

    fn regular(&self, inode: u64) -> io::Result<()> {
        match self.inode(inode)?.kind {
            FileKind::Regular => Ok(()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn room(&self, inode: u64, range: Range<u64>) -> io::Result<()> {
        let file = self.inode(inode)?;
        let beyond = file.kind == FileKind::Block && range.end > file.live.len;
        let growth = file.growth(range);
        if beyond || (growth > 0 && self.capacity < u64::MAX && growth > self.free()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    /// Makes a step that a crash or an error interrupted: done, not done, or torn.
    pub fn interrupt(&mut self, step: &Step, choose: Choose<'_>) -> Vec<Step> {
        let steps = match (choose(3), step) {
            (0, _) => Vec::new(),
            (1, Step::Write { inode, offset, data, .. }) => {
                let range = *offset..offset.saturating_add(data.len() as u64);
                let part = |part: Range<u64>| Step::Write {
                    inode: *inode,
                    offset: part.start,
                    data: data.slice((part.start - offset) as usize..(part.end - offset) as usize),
                    durable: false,
                };
                torn(range, choose).into_iter().map(part).collect()
            }
            _ => vec![step.clone()],
        };
        steps.into_iter().filter(|step| self.apply(step).is_ok()).collect()
    }

    /// Kills the process.
    pub fn kill(&mut self, choose: Choose<'_>) {
        self.open.clear();
        self.inodes.values_mut().for_each(|inode| inode.kill(choose));
        self.forget_nameless();
    }

    /// Cuts the power.
    pub fn power_cut(&mut self, choose: Choose<'_>) {
        self.open.clear();
        self.names.power_cut(|_| choose(2) == 0);
        self.forget_nameless();
        self.inodes.values_mut().for_each(|inode| inode.power_cut(choose));
    }

    /// Forgets an inode that nobody can reach any more.
    pub fn forget_if_nameless(&mut self, id: u64) {
        if !self.open.contains_key(&id) && !self.names.all_inodes().any(|named| named == id) {
            self.inodes.remove(&id);
        }
    }

    /// Forgets those inodes that lost a name and that nobody can reach any more. Not part of a step either.
    pub fn forget_lost(&mut self) {
        for inode in self.names.take_lost() {
            self.forget_if_nameless(inode);
        }
    }

    /// Forgets inodes that nobody can reach any more. Not part of a step: a recording that is played
    /// again does not know what was open.
    pub fn forget_nameless(&mut self) {
        let mut named: Vec<u64> = self.names.all_inodes().collect();
        named.sort_unstable();
        let open = &self.open;
        self.inodes.retain(|id, _| named.binary_search(id).is_ok() || open.contains_key(id));
    }
}
