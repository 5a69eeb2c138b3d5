//! What can be done to a simulated machine: the operations that a hook sees, the faults that it
//! orders, and the kinds of crash.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

/// One operation, as the fault hook sees it when the operation starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The number of this operation of the machine, from 0.
    pub number: u64,
    /// What is done.
    pub kind: OpKind,
    /// The file or directory; for a rename the old name, for an open file the name under which it
    /// was opened.
    pub path: Rc<Path>,
    /// Byte offset, where there is one.
    pub offset: u64,
    /// Length in bytes, where there is one (for `SetLen` the new length).
    pub len: u64,
}

/// The kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // each is the method of the trait of the same name
pub enum OpKind {
    Open,
    Rename,
    Remove,
    RemoveDir,
    CreateDir,
    List,
    SyncDir,
    Exists,
    FreeSpace,
    Canonical,
    ReadNow,
    WriteNow,
    Read,
    Write,
    WriteDurable,
    Sync,
    SetLen,
    Allocate,
    Zero,
    Extents,
}

/// What a hook orders for an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it goes its way.
    #[default]
    None,
    /// It fails with EIO. A write may have been done all the same, or in part.
    Io,
    /// It fails with ENOSPC and does nothing.
    NoSpace,
    /// It takes this much longer; a very long time is a stuck disk. On the
    /// forms that do not wait the same as [`Fault::NotNow`].
    Slow(Duration),
    /// `read_now` and `write_now` answer that they would have to wait; nothing to others.
    NotNow,
}

impl Fault {
    /// The error that it makes, if it makes one.
    pub(super) fn error(self) -> io::Result<()> {
        match self {
            Fault::Io => Err(Errno::IO.into()),
            Fault::NoSpace => Err(Errno::NOSPC.into()),
            Fault::None | Fault::Slow(_) | Fault::NotNow => Ok(()),
        }
    }
}

/// How a machine goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: the page cache stays, open files and locks go.
    Kill,
    /// The power fails: what was not synced is kept, lost or torn, by choice. The boot id changes.
    PowerCut,
}
