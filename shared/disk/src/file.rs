//! The trait [`File`]: a regular file or a block device, addressed by byte offset.

use std::io;

use bytes::Bytes;

use crate::Local;

/// What is behind a [`File`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file; may be sparse.
    Regular,
    /// A block device; its length is fixed.
    Block,
    /// A directory: answered by [`crate::Storage::exists`] only, never by [`File::kind`].
    Directory,
}

/// A stretch of a file that holds data, or a hole that reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Byte offset.
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
    /// False for a hole.
    pub data: bool,
}

/// An open file or block device.
///
/// Contract:
/// * `read_now` and `write_now` answer at once: `Ok(true)` when all of it was done, `Ok(false)` when
///   it would have to wait (nothing was done, or a part that the waiting form simply does again).
/// * The waiting forms do all of it or fail; there are no short reads or writes. A read that reaches
///   beyond the end fails with `UnexpectedEof`.
/// * A waiting form starts when its future is first polled. An operation that was started runs to
///   its end even when its future is dropped.
/// * What was written is on stable storage only after a `sync_data` that *started* after the write
///   was done has returned `Ok`. After a failed sync the content of what was not yet synced is
///   unknown; the caller must not retry the sync and believe it.
pub trait File: 'static {
    /// Regular file or block device.
    fn kind(&self) -> FileKind;

    /// Length in bytes, asked now.
    fn len(&self) -> io::Result<u64>;

    /// True when the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads without waiting (page cache), see the contract.
    fn read_now(&self, buf: &mut [u8], offset: u64) -> io::Result<bool>;

    /// Writes without waiting (into the page cache), see the contract.
    fn write_now(&self, data: &[u8], offset: u64) -> io::Result<bool>;

    /// Reads exactly `len` bytes.
    fn read_at(&self, offset: u64, len: usize) -> Local<'_, io::Result<Vec<u8>>>;

    /// Writes all of `data`.
    fn write_at(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>>;

    /// Writes all of `data` and returns when it is on stable storage (`O_DSYNC` semantics: this
    /// write, and the metadata needed to read it back; not other writes).
    fn write_durable(&self, offset: u64, data: Bytes) -> Local<'_, io::Result<()>>;

    /// `fdatasync`: everything written before the call is on stable storage after it.
    fn sync_data(&self) -> Local<'_, io::Result<()>>;

    /// Changes the length of a regular file; what is new reads as zeros.
    fn set_len(&self, len: u64) -> Local<'_, io::Result<()>>;

    /// Reserves space for a range of a regular file, extending it if needed; holes read as zeros
    /// still. Fails with `StorageFull` when there is no room and `Unsupported` where the file system
    /// cannot.
    fn allocate(&self, offset: u64, len: u64) -> Local<'_, io::Result<()>>;

    /// Makes the range read as zeros. With `punch` its space is given back where the file system
    /// can; without, its space is kept. Falls back to writing zeros. The length does not change:
    /// what lies beyond the end of a regular file is left out.
    fn zero(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>>;

    /// Like [`File::zero`], but fails with `Unsupported` instead of falling back to writing zeros
    /// (NBD's fast zero).
    fn zero_fast(&self, offset: u64, len: u64, punch: bool) -> Local<'_, io::Result<()>>;

    /// The data and holes of a range, in order, covering it without gaps, at most `max` of them
    /// (then covering a prefix). Where the file system cannot tell, all is data; what lies beyond the
    /// end is a hole.
    fn extents(&self, offset: u64, len: u64, max: usize) -> Local<'_, io::Result<Vec<Extent>>>;
}
