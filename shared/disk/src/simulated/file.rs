//! [`SimFile`]: an open file of a simulated machine.

use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use rustix::io::Errno;

use super::disk_state::Step;
use super::machine::Call;
use super::{Fault, OpKind, SimMachine};
use crate::{Extent, File, FileKind, Local};

/// An open file, see [`super`]. It is dead after a crash of its machine: every operation fails.
pub struct SimFile {
    handle: Rc<Handle>,
    kind: FileKind,
    path: Rc<Path>,
    writable: bool,
}

/// What an open file holds; running operations hold it, too.
pub(super) struct Handle {
    pub machine: SimMachine,
    pub incarnation: u64,
    pub inode: u64,
    pub exclusive: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.machine.alive(self.incarnation).is_err() {
            return;
        }
        self.machine.with(|state| {
            if self.exclusive {
                state.locks.remove(&self.inode);
            }
            if let Some(count) = state.disk.open.get_mut(&self.inode) {
                *count -= 1;
                if *count == 0 {
                    state.disk.open.remove(&self.inode);
                    state.disk.forget_if_nameless(self.inode);
                }
            }
        });
    }
}

impl SimFile {
    pub(super) fn new(handle: Handle, kind: FileKind, path: Rc<Path>, writable: bool) -> Self {
        SimFile { handle: Rc::new(handle), kind, path, writable }
    }

    fn call(&self, kind: OpKind, offset: u64, len: u64) -> Call {
        Call { kind, path: self.path.clone(), offset, len }
    }

    fn inode(&self) -> u64 {
        self.handle.inode
    }

    /// Makes a step that changes the file.
    fn change(
        &self,
        call: Call,
        step: impl FnOnce(&Self) -> Step + 'static,
    ) -> Local<'_, io::Result<()>> {
        Box::pin(async move {
            if !self.writable && call.kind != OpKind::Sync {
                return Err(Errno::BADF.into());
            }
            let (machine, incarnation) = (&self.handle.machine, self.handle.incarnation);
            let step = step(self);
            machine.step(incarnation, call, step, self.handle.clone()).await
        })
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<bool> {
        self.handle.machine.with(|state| {
            let file = state.disk.inode(self.inode())?;
            if offset.saturating_add(buf.len() as u64) > file.live.len {
                return Ok(false);
            }
            file.live.read(offset, buf);
            Ok(true)
        })
    }
}

impl File for SimFile {
    fn kind(&self) -> FileKind {
        self.kind
    }

    fn len(&self) -> io::Result<u64> {
        self.handle.machine.alive(self.handle.incarnation)?;
        self.handle.machine.with(|state| Ok(state.disk.inode(self.inode())?.live.len))
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let call = self.call(OpKind::ReadNow, offset, buf.len() as u64);
        let machine = &self.handle.machine;
        let plan = machine.begin(self.handle.incarnation, call)?;
        plan.fault.error()?;
        let at_once = machine.with(|state| state.random.below(256) < state.now_chance);
        match plan.fault {
            Fault::None if at_once => self.read(offset, buf),
            _ => Ok(false),
        }
    }

    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        if !self.writable {
            return Err(Errno::BADF.into());
        }
        let call = self.call(OpKind::WriteNow, offset, data.len() as u64);
        let machine = &self.handle.machine;
        let plan = machine.begin(self.handle.incarnation, call)?;
        let data = Bytes::copy_from_slice(data);
        let step = Step::Write { inode: self.inode(), offset, data, durable: false };
        machine.with(|state| {
            let at_once = state.random.below(256) < state.now_chance;
            let later = matches!(plan.fault, Fault::Slow(_) | Fault::NotNow);
            if plan.fault.error().is_ok() && (later || !at_once) {
                // A part may have been written before it would have had to wait.
                if state.random.below(8) == 0 {
                    drop(state.make(&step, Fault::Io));
                }
                return Ok(false);
            }
            state.make(&step, plan.fault).map(|()| true)
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        let call = self.call(OpKind::Read, offset, len as u64);
        let (machine, incarnation) = (&self.handle.machine, self.handle.incarnation);
        Box::pin(machine.look(incarnation, call, move |disk| {
            let file = disk.inode(self.inode())?;
            if offset.saturating_add(len as u64) > file.live.len {
                let what = format!("read of {len} bytes at {offset} ends at {}", file.live.len);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
            Ok(file.live.bytes(offset, len))
        }))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>> {
        self.change(self.call(OpKind::Write, offset, data.len() as u64), move |file| Step::Write {
            inode: file.inode(),
            offset,
            data,
            durable: false,
        })
    }

    fn write_durable(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>> {
        self.change(self.call(OpKind::WriteDurable, offset, data.len() as u64), move |file| {
            Step::Write { inode: file.inode(), offset, data, durable: true }
        })
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        self.change(self.call(OpKind::Sync, 0, 0), |file| {
            let upto = file.handle.machine.with(|state| state.disk.next_seq);
            Step::Sync { inode: file.inode(), upto }
        })
    }

    fn set_len(&self, len: u64) -> Local<'_, io::Result<()>> {
        self.change(self.call(OpKind::SetLen, 0, len), move |file| Step::SetLen {
            inode: file.inode(),
            len,
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> Local<'_, io::Result<()>> {
        self.change(self.call(OpKind::Allocate, offset, len), move |file| Step::Allocate {
            inode: file.inode(),
            range: offset..offset.saturating_add(len),
        })
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>> {
        self.change(self.call(OpKind::Zero, offset, len), move |file| Step::Zero {
            inode: file.inode(),
            range: offset..offset.saturating_add(len),
            punch,
        })
    }

    fn zero_fast(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>> {
        if self.kind == FileKind::Block && !punch {
            // As on the real disk: a device that keeps its space writes its zeros.
            return Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())));
        }
        self.zero(offset, len, punch)
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> Local<'_, io::Result<Vec<Extent>>> {
        let call = self.call(OpKind::Extents, offset, len);
        let (machine, incarnation) = (&self.handle.machine, self.handle.incarnation);
        Box::pin(machine.look(incarnation, call, move |disk| {
            Ok(disk.inode(self.inode())?.extents(offset..offset.saturating_add(len), max))
        }))
    }
}
