//! The system calls that may wait, each finished in a loop: they run on threads of the pool.
//!
//! Lengths and offsets are in bytes. Interrupted calls are repeated, short results continued.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fdatasync, fstat, ioctl_blksszget, seek};
use rustix::io::{Errno, IoSlice, ReadWriteFlags, pread, pwrite, pwritev2, retry_on_intr};

use crate::{Extent, FileKind};

/// The piece in which zeros are written where the file system cannot make them.
const ZEROS: &[u8] = &[0; 1 << 20];

/// Length of a file or device.
pub fn length(fd: BorrowedFd<'_>, kind: FileKind) -> io::Result<u64> {
    match kind {
        // A device says 0 in its stat; the end of its positions is its length. The position that
        // this sets is never used: all other calls name their offset.
        FileKind::Block => Ok(seek(fd, SeekFrom::End(0))?),
        _ => Ok(fstat(fd)?.st_size as u64),
    }
}

/// Reads exactly `len` bytes.
pub fn read_exact(fd: impl AsFd, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    read_parts(offset, len, |data, at| pread(&fd, spare_capacity(data), at).map(|_| ()))
}

/// Calls until `len` bytes are there; `call` appends what it got.
fn read_parts(
    offset: u64,
    len: usize,
    mut call: impl FnMut(&mut Vec<u8>, u64) -> rustix::io::Result<()>,
) -> io::Result<Vec<u8>> {
    let mut data = Vec::with_capacity(len);
    while data.len() < len {
        let at = offset + data.len() as u64;
        let before = data.len();
        retry_on_intr(|| call(&mut data, at))?;
        if data.len() == before {
            let what = format!("read of {len} bytes at {offset} ends at {at}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        // The allocator may have given more room than was asked for.
        data.truncate(len);
    }
    Ok(data)
}

/// Writes all of `data`.
pub fn write_all(fd: impl AsFd, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    write_parts(&mut offset, &mut data, |piece, at| pwrite(&fd, piece, at))
}

/// Writes all of `data` to stable storage.
pub fn write_durable(fd: impl AsFd, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
    let durable =
        |piece: &[u8], at| pwritev2(&fd, &[IoSlice::new(piece)], at, ReadWriteFlags::DSYNC);
    match write_parts(&mut offset, &mut data, durable) {
        Err(error) if cannot_be_durable(&error) => {
            write_all(&fd, offset, data)?;
            sync(&fd)
        }
        other => other,
    }
}

/// The file system does not know the flag.
fn cannot_be_durable(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}

/// Calls until nothing of `data` is left; after an error `offset` and `data` say what is.
fn write_parts(
    offset: &mut u64,
    data: &mut &[u8],
    mut call: impl FnMut(&[u8], u64) -> rustix::io::Result<usize>,
) -> io::Result<()> {
    while !data.is_empty() {
        match retry_on_intr(|| call(data, *offset))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                *data = &data[n..];
                *offset += n as u64;
            }
        }
    }
    Ok(())
}

/// `fdatasync`.
pub fn sync(fd: impl AsFd) -> io::Result<()> {
    Ok(retry_on_intr(|| fdatasync(&fd))?)
}

/// Reserves space.
pub fn allocate(fd: impl AsFd, kind: FileKind, offset: u64, len: u64) -> io::Result<()> {
    if kind != FileKind::Regular {
        return Err(io::ErrorKind::Unsupported.into());
    }
    if len == 0 {
        return Ok(());
    }
    match retry_on_intr(|| fallocate(&fd, FallocateFlags::empty(), offset, len)) {
        Err(error) if unsupported(error) => Err(io::ErrorKind::Unsupported.into()),
        other => Ok(other?),
    }
}

/// How [`zero`] may make zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroHow {
    /// Give the space back where that can be done.
    pub punch: bool,
    /// Fail with `Unsupported` rather than write zeros.
    pub fast: bool,
}

/// Makes a range read as zeros without changing the length.
pub fn zero(
    fd: BorrowedFd<'_>,
    kind: FileKind,
    offset: u64,
    len: u64,
    how: ZeroHow,
) -> io::Result<()> {
    let end = offset.saturating_add(len).min(length(fd, kind)?);
    if offset >= end {
        return Ok(());
    }
    // Devices make zeros in whole sectors only; the edges are written.
    let unit = match kind {
        FileKind::Block => u64::from(ioctl_blksszget(fd)?.max(512)),
        _ => 1,
    };
    let from = offset.next_multiple_of(unit).min(end);
    let to = (end - end % unit).max(from);
    if from < to && !make_zeros(fd, kind, from, to - from, how)? {
        if how.fast {
            return Err(io::ErrorKind::Unsupported.into());
        }
        write_zeros(fd, from, to)?;
    }
    write_zeros(fd, offset, from)?;
    write_zeros(fd, to, end)
}

/// Asks the file system or device for zeros; false when it cannot.
fn make_zeros(
    fd: BorrowedFd<'_>,
    kind: FileKind,
    offset: u64,
    len: u64,
    how: ZeroHow,
) -> io::Result<bool> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let range = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    // A device's ZERO_RANGE may write zeros inside the kernel, which is not fast; its PUNCH_HOLE
    // never does (`blkdev_fallocate`).
    let range_allowed = !(how.fast && kind == FileKind::Block);
    for (mode, allowed) in [(punch, how.punch), (range, range_allowed)] {
        if !allowed {
            continue;
        }
        match retry_on_intr(|| fallocate(fd, mode, offset, len)) {
            Ok(()) => return Ok(true),
            Err(error) if unsupported(error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn write_zeros(fd: BorrowedFd<'_>, mut from: u64, to: u64) -> io::Result<()> {
    while from < to {
        let piece = (to - from).min(ZEROS.len() as u64);
        write_all(fd, from, &ZEROS[..piece as usize])?;
        from += piece;
    }
    Ok(())
}

/// The data and holes of a range, see [`crate::File::extents`].
pub fn extents(
    fd: BorrowedFd<'_>,
    kind: FileKind,
    offset: u64,
    len: u64,
    max: usize,
) -> io::Result<Vec<Extent>> {
    let end = offset.saturating_add(len);
    let mut found = Vec::new();
    let mut at = offset;
    while at < end && found.len() < max {
        let (data, to) = stretch(fd, kind, at)?;
        let to = to.clamp(at + 1, end);
        match found.last_mut() {
            Some(Extent { data: last, len, .. }) if *last == data => *len += to - at,
            _ => found.push(Extent { offset: at, len: to - at, data }),
        }
        at = to;
    }
    Ok(found)
}

/// Whether data stands at `at`, and where that ends.
fn stretch(fd: BorrowedFd<'_>, kind: FileKind, at: u64) -> io::Result<(bool, u64)> {
    if kind == FileKind::Block {
        let end = length(fd, kind)?;
        return Ok(if at < end { (true, end) } else { (false, u64::MAX) });
    }
    match seek(fd, SeekFrom::Data(at)) {
        Ok(data) if data > at => return Ok((false, data)),
        Ok(_) => {}
        // No data up to the end of the file.
        Err(Errno::NXIO) => return Ok((false, u64::MAX)),
        // The file system cannot tell.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {
            let end = length(fd, kind)?;
            return Ok(if at < end { (true, end) } else { (false, u64::MAX) });
        }
        Err(error) => return Err(error.into()),
    }
    match seek(fd, SeekFrom::Hole(at)) {
        Ok(hole) => Ok((true, hole)),
        // The file was cut short meanwhile.
        Err(Errno::NXIO) => Ok((false, u64::MAX)),
        Err(error) => Err(error.into()),
    }
}

fn unsupported(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::NOTTY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulated::SplitMix64;

    /// A file whose calls do only a part, are interrupted, and fail once with an error after some calls.
    struct Lazy {
        content: Vec<u8>,
        random: SplitMix64,
        fails_after: u64,
    }

    impl Lazy {
        fn new(seed: u64, fails_after: u64) -> Lazy {
            Lazy { content: vec![0; 4000], random: SplitMix64::new(seed), fails_after }
        }

        /// How many bytes this call does.
        fn part(&mut self, len: usize) -> rustix::io::Result<usize> {
            match self.fails_after.checked_sub(1) {
                Some(left) => self.fails_after = left,
                None => return Err(Errno::IO),
            }
            match self.random.below(4) {
                0 => Err(Errno::INTR),
                _ => Ok(1 + self.random.below(len as u64) as usize),
            }
        }

        fn write(&mut self, piece: &[u8], at: u64) -> rustix::io::Result<usize> {
            let n = self.part(piece.len())?;
            self.content[at as usize..][..n].copy_from_slice(&piece[..n]);
            Ok(n)
        }

        /// May append more than is wanted, as an allocator that gave more room allows.
        fn read(&mut self, data: &mut Vec<u8>, at: u64) -> rustix::io::Result<()> {
            let left = &self.content[at as usize..];
            let n = self.part(left.len())?;
            data.extend_from_slice(&self.content[at as usize..][..n]);
            Ok(())
        }
    }

    #[test]
    fn short_results_are_continued_and_interrupted_calls_repeated() {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i * 7 % 251) as u8).collect();
        for seed in 0..200 {
            let mut file = Lazy::new(seed, u64::MAX);
            let (mut offset, mut data) = (500, bytes.as_slice());
            write_parts(&mut offset, &mut data, |piece, at| file.write(piece, at)).unwrap();
            assert_eq!((offset, data.len()), (3500, 0));
            assert!(file.content[500..3500] == bytes && file.content[..500] == [0; 500]);
            assert!(file.content[3500..] == [0; 500], "nothing beyond");
            let read = read_parts(600, 1000, |data, at| file.read(data, at)).unwrap();
            assert!(read == bytes[100..1100], "seed {seed}");
        }
    }

    #[test]
    fn an_error_after_a_part_says_what_is_left_and_no_progress_is_an_error() {
        for seed in 0..50 {
            let mut file = Lazy::new(seed, 4);
            let bytes = [9; 3000];
            let (mut offset, mut data) = (0, bytes.as_slice());
            let wrote = write_parts(&mut offset, &mut data, |piece, at| file.write(piece, at));
            let done = offset as usize;
            match wrote {
                Ok(()) => assert_eq!(done, 3000),
                Err(e) => assert_eq!(Errno::from_io_error(&e), Some(Errno::IO)),
            }
            assert_eq!(done + data.len(), 3000);
            assert!(file.content[..done].iter().all(|b| *b == 9));
            assert!(file.content[done..].iter().all(|b| *b == 0));
            assert!(read_parts(0, 10, |data, at| file.read(data, at)).is_err());
        }
        let (mut offset, mut data) = (0, &[1, 2, 3][..]);
        let nothing = write_parts(&mut offset, &mut data, |_, _| Ok(0)).unwrap_err();
        assert_eq!((nothing.kind(), data.len()), (io::ErrorKind::WriteZero, 3));
        let end = read_parts(7, 3, |_, _| Ok(())).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        assert!(end.to_string().contains("ends at 7"), "{end}");
    }
}
