//! The names of a simulated machine: those that are seen, those on stable storage, and the changes
//! between them.
//!
//! A change becomes durable with `sync_dir` of a directory that holds one of its names, or by choice
//! at a power cut; in either case with it every earlier change of the same names. Renames are atomic.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A directory.
    Dir,
    /// A file or block device, by the number of its inode.
    File(u64),
}

/// Whole paths, ordered by their bytes: half the cost of comparing them part by part.
type Map = BTreeMap<OsString, Node>;

/// What follows `dir` and a slash in `path`; none where it is not below. Bytes are compared, because parts
/// are several times the cost.
fn below_of<'a>(path: &'a OsStr, dir: &Path) -> Option<&'a [u8]> {
    let dir = dir.as_os_str().as_encoded_bytes();
    let rest = path.as_encoded_bytes().strip_prefix(dir.strip_suffix(b"/").unwrap_or(dir))?;
    rest.strip_prefix(b"/").filter(|rest| !rest.is_empty())
}

/// A change of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
    RemoveDir(PathBuf),
}

impl Change {
    fn paths(&self) -> Vec<&Path> {
        match self {
            Change::Link(path, _) | Change::Unlink(path) | Change::RemoveDir(path) => vec![path],
            Change::Rename(from, to) => vec![from, to],
        }
    }

    /// Makes it; what stood at the name that it took away or over.
    fn apply(&self, map: &mut Map) -> Option<Node> {
        match self {
            Change::Link(path, inode) => map.insert(path.into(), Node::File(*inode)),
            Change::Unlink(path) | Change::RemoveDir(path) => map.remove(path.as_os_str()),
            Change::Rename(from, to) => {
                let node = map.remove(from.as_os_str())?;
                map.insert(to.into(), node)
            }
        }
    }
}

/// The names, see the module. The root directory is always there.
#[derive(Clone, Default)]
pub struct Names {
    live: Map,
    durable: Map,
    /// Changes that are not durable, oldest first, with the number of their step.
    log: Vec<(u64, Change)>,
    /// Inodes that lost a durable name.
    lost: Vec<u64>,
}

impl Names {
    /// What stands at `path`.
    pub fn get(&self, path: &Path) -> Option<Node> {
        if path.as_os_str() == "/" {
            Some(Node::Dir)
        } else {
            self.live.get(path.as_os_str()).copied()
        }
    }

    /// The names right below `dir`, in order.
    pub fn below<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = (&'a Path, Node)> {
        self.all_below(dir).filter(move |(path, _)| {
            below_of(path.as_os_str(), dir).is_some_and(|rest| !rest.contains(&b'/'))
        })
    }

    /// All names below `dir`, at any depth, in order.
    pub fn all_below<'a>(&'a self, dir: &'a Path) -> impl Iterator<Item = (&'a Path, Node)> {
        let bytes = dir.as_os_str().as_encoded_bytes();
        self.live
            .range(dir.as_os_str().to_owned()..)
            .take_while(move |(path, _)| path.as_encoded_bytes().starts_with(bytes))
            .filter(move |(path, _)| below_of(path, dir).is_some())
            .map(|(path, node)| (Path::new(path), *node))
    }

    /// The inodes that have a name now.
    pub fn live_inodes(&self) -> impl Iterator<Item = u64> {
        self.live.values().filter_map(file)
    }

    /// The inodes that have a name now, or may have one after a power cut.
    pub fn all_inodes(&self) -> impl Iterator<Item = u64> {
        let logged = self.log.iter().filter_map(|(_, change)| match change {
            Change::Link(_, inode) => Some(*inode),
            _ => None,
        });
        let durable = self.durable.values().filter_map(file);
        self.live_inodes().chain(durable).chain(logged)
    }

    /// Makes a change that is not durable yet.
    pub fn change(&mut self, seq: u64, change: Change) {
        change.apply(&mut self.live);
        self.log.push((seq, change));
    }

    /// Makes a directory, durable at once.
    pub fn create_dir(&mut self, path: &Path) {
        // An older, not yet durable removal of it comes first, with what it needs.
        self.settle(u64::MAX, |_, change| change.paths().contains(&path));
        self.live.insert(path.into(), Node::Dir);
        self.durable.insert(path.into(), Node::Dir);
    }

    /// Makes a name that is durable at once (a device node).
    pub fn create_durable(&mut self, path: &Path, inode: u64) {
        self.live.insert(path.into(), Node::File(inode));
        self.durable.insert(path.into(), Node::File(inode));
    }

    /// Takes a name away, durable at once.
    pub fn remove_durable(&mut self, path: &Path) {
        self.settle(u64::MAX, |_, change| change.paths().contains(&path));
        self.live.remove(path.as_os_str());
        self.durable.remove(path.as_os_str());
    }

    /// A directory sync that started when step `upto` was the next.
    pub fn sync_dir(&mut self, dir: &Path, upto: u64) {
        self.settle(upto, |_, change| change.paths().iter().any(|path| path.parent() == Some(dir)));
    }

    /// The inodes that lost a durable name since the last call.
    pub fn take_lost(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.lost)
    }

    /// The power fails: each change was kept or not, by `keep`.
    pub fn power_cut(&mut self, mut keep: impl FnMut(u64) -> bool) {
        self.settle(u64::MAX, |seq, _| keep(seq));
        self.log.clear();
        self.live = self.durable.clone();
    }

    /// The numbers of the steps that are not durable.
    pub fn unsynced(&self) -> impl Iterator<Item = u64> {
        self.log.iter().map(|(seq, _)| *seq)
    }

    fn settle(&mut self, upto: u64, mut kept: impl FnMut(u64, &Change) -> bool) {
        let young = self.log.split_off(self.log.partition_point(|(seq, _)| *seq < upto));
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        let mut done = Vec::with_capacity(self.log.len());
        for (seq, change) in self.log.iter().rev() {
            let touched = change.paths().iter().any(|path| needs(&needed, path));
            let keep = kept(*seq, change) || touched;
            if keep {
                needed.extend(change.paths().into_iter().map(Path::to_owned));
            }
            done.push(keep);
        }
        let mut rest = Vec::new();
        for (logged, done) in self.log.drain(..).zip(done.into_iter().rev()) {
            if done {
                self.lost.extend(logged.1.apply(&mut self.durable).as_ref().and_then(file));
            } else {
                rest.push(logged);
            }
        }
        rest.extend(young);
        self.log = rest;
    }
}

/// Whether a later change that is kept needs the earlier changes of `path`: it has the same name, or
/// removed the directory (which was empty then).
fn needs(needed: &BTreeSet<PathBuf>, path: &Path) -> bool {
    needed.contains(path) || path.parent().is_some_and(|dir| needed.contains(dir))
}

fn file(node: &Node) -> Option<u64> {
    match node {
        Node::File(inode) => Some(*inode),
        Node::Dir => None,
    }
}
