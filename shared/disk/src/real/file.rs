//! [`RealFile`]: an open file or block device of this machine.
//!
//! The forms that do not wait are made on the calling thread; the waiting forms go to the pool. Each
//! job owns the descriptor with the file, so that an operation ends even when everybody who knew of
//! it has gone.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rustix::io::{Errno, IoSlice, IoSliceMut, ReadWriteFlags, preadv2, pwritev2, retry_on_intr};

use super::blocking::{self, ZeroHow};
use super::inline::InlinePolicy;
use super::{ThreadPool, run};
use crate::{Extent, File, FileKind, Local};

/// An open file, see the module. Made by [`super::RealStorage`].
pub struct RealFile {
    fd: Arc<OwnedFd>,
    kind: FileKind,
    pool: Arc<ThreadPool>,
    inline: InlinePolicy,
}

impl RealFile {
    pub(super) fn new(fd: OwnedFd, kind: FileKind, pool: Arc<ThreadPool>) -> Self {
        RealFile { fd: Arc::new(fd), kind, pool, inline: InlinePolicy::new() }
    }

    /// A future that runs `job` with the descriptor in the pool.
    fn in_pool<T, F>(&self, job: F) -> Local<'_, io::Result<T>>
    where
        T: Send + 'static,
        F: FnOnce(&OwnedFd, FileKind) -> io::Result<T> + Send + 'static,
    {
        let (fd, kind) = (self.fd.clone(), self.kind);
        Box::pin(run(&self.pool, move || job(&fd, kind)))
    }
}

impl File for RealFile {
    fn kind(&self) -> FileKind {
        self.kind
    }

    fn len(&self) -> io::Result<u64> {
        blocking::length(self.fd.as_fd(), self.kind)
    }

    fn read_now(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        if !self.inline.try_nowait_read() {
            return Ok(false);
        }
        let len = buf.len();
        let mut slices = [IoSliceMut::new(buf)];
        let read = retry_on_intr(|| preadv2(&self.fd, &mut slices, offset, ReadWriteFlags::NOWAIT));
        match read {
            // Short is either partly uncached or beyond the end; the waiting form finds out.
            Ok(n) => Ok(n == len),
            Err(Errno::AGAIN) => Ok(false),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.inline.no_nowait_reads();
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<bool> {
        if self.inline.try_nowait_write() {
            let slices = [IoSlice::new(data)];
            let wrote =
                retry_on_intr(|| pwritev2(&self.fd, &slices, offset, ReadWriteFlags::NOWAIT));
            match wrote {
                Ok(n) => return Ok(n == data.len()),
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    self.inline.no_nowait_writes();
                }
                Err(error) => return Err(error.into()),
            }
        }
        let start = Instant::now();
        if !self.inline.plain_write(offset, data.len(), start) {
            return Ok(false);
        }
        let result = blocking::write_all(&self.fd, offset, data);
        self.inline.measured(start, Instant::now());
        result.map(|()| true)
    }

    fn read_at(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>> {
        self.in_pool(move |fd, _| blocking::read_exact(fd, offset, len))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>> {
        self.in_pool(move |fd, _| blocking::write_all(fd, offset, &data))
    }

    fn write_durable(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>> {
        self.in_pool(move |fd, _| blocking::write_durable(fd, offset, &data))
    }

    fn sync_data(&self) -> Local<'_, io::Result<()>> {
        self.in_pool(|fd, _| blocking::sync(fd))
    }

    fn set_len(&self, len: u64) -> Local<'_, io::Result<()>> {
        self.in_pool(move |fd, kind| match kind {
            FileKind::Regular => Ok(retry_on_intr(|| rustix::fs::ftruncate(fd, len))?),
            _ => Err(io::ErrorKind::Unsupported.into()),
        })
    }

    fn allocate(&self, offset: u64, len: u64) -> Local<'_, io::Result<()>> {
        self.in_pool(move |fd, kind| blocking::allocate(fd, kind, offset, len))
    }

    fn zero(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>> {
        let how = ZeroHow { punch, fast: false };
        self.in_pool(move |fd, kind| blocking::zero(fd.as_fd(), kind, offset, len, how))
    }

    fn zero_fast(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>> {
        let how = ZeroHow { punch, fast: true };
        self.in_pool(move |fd, kind| blocking::zero(fd.as_fd(), kind, offset, len, how))
    }

    fn extents(&self, offset: u64, len: u64, max: usize) -> Local<'_, io::Result<Vec<Extent>>> {
        self.in_pool(move |fd, kind| blocking::extents(fd.as_fd(), kind, offset, len, max))
    }
}
