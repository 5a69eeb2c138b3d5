//! Images: made at random from a seed, overwritten in place, compared byte by byte. Holes stay holes,
//! so that images far larger than the disk can be used.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::{SeekFrom, seek};

use crate::Random;

const CHUNK: u64 = 1 << 20;

/// The first place where two images differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// One is longer.
    Length {
        /// Bytes of the left one.
        left: u64,
        /// Bytes of the right one.
        right: u64,
    },
    /// The byte at an offset.
    Byte {
        /// Where.
        offset: u64,
        /// In the left one.
        left: u8,
        /// In the right one.
        right: u8,
    },
}

fn fail<T>(path: &Path, done: io::Result<T>) -> T {
    done.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Makes a file of `bytes` random bytes.
pub fn random_image(path: &Path, bytes: u64, seed: u64) {
    sparse_image(path, bytes, 0, 0, seed);
    overwrite(path, 0, bytes, seed);
}

/// Makes a file of `bytes` bytes: a hole, with `extents` random extents of up to `longest` bytes, at
/// random places at multiples of 512.
pub fn sparse_image(path: &Path, bytes: u64, extents: u64, longest: u64, seed: u64) {
    let file = fail(path, File::create(path));
    fail(path, file.set_len(bytes));
    let mut random = Random::new(seed);
    for _ in 0..extents {
        let offset = random.below(bytes.div_ceil(512)) * 512;
        let len = (1 + random.below(longest)).min(bytes - offset);
        overwrite(path, offset, len, random.bits());
    }
}

/// Writes `len` random bytes at `offset`.
pub fn overwrite(path: &Path, offset: u64, len: u64, seed: u64) {
    let file = fail(path, File::options().write(true).open(path));
    let mut random = Random::new(seed);
    let mut chunk = vec![0; CHUNK.min(len) as usize];
    let mut done = 0;
    while done < len {
        let part = &mut chunk[..CHUNK.min(len - done) as usize];
        random.fill(part);
        fail(path, file.write_all_at(part, offset + done));
        done += part.len() as u64;
    }
}

/// Bytes that a file takes on its file system.
pub fn allocated_bytes(path: &Path) -> u64 {
    fail(path, path.metadata()).blocks() * 512
}

/// The first difference of two files or block devices, if there is one. What is a hole in both is not
/// read.
pub fn compare(left: &Path, right: &Path) -> Option<Difference> {
    let (a, b) = (fail(left, File::open(left)), fail(right, File::open(right)));
    let lengths = (length(left, &a), length(right, &b));
    if lengths.0 != lengths.1 {
        return Some(Difference::Length { left: lengths.0, right: lengths.1 });
    }
    let (mut one, mut two) = (vec![0; CHUNK as usize], vec![0; CHUNK as usize]);
    let mut at = 0;
    while at < lengths.0 {
        at = next_data(left, &a, at, lengths.0).min(next_data(right, &b, at, lengths.0));
        let len = CHUNK.min(lengths.0 - at) as usize;
        let (one, two) = (&mut one[..len], &mut two[..len]);
        fail(left, a.read_exact_at(one, at));
        fail(right, b.read_exact_at(two, at));
        if one != two {
            let i = one.iter().zip(two.iter()).position(|(x, y)| x != y).unwrap_or(0);
            let offset = at + i as u64;
            return Some(Difference::Byte { offset, left: one[i], right: two[i] });
        }
        at += len as u64;
    }
    None
}

/// Also of a block device, whose metadata says 0.
fn length(path: &Path, file: &File) -> u64 {
    fail(path, seek(file, SeekFrom::End(0)).map_err(io::Error::from))
}

/// Where data begins at or after `at`; `at` itself where the file cannot tell.
fn next_data(path: &Path, file: &File, at: u64, len: u64) -> u64 {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => data,
        Err(rustix::io::Errno::NXIO) => len,
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => at,
        Err(e) => fail(path, Err(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_are_equal_and_the_first_difference_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        random_image(&a, 3_000_001, 7);
        random_image(&b, 3_000_001, 7);
        assert_eq!(compare(&a, &b), None);
        let file = File::options().read(true).write(true).open(&b).unwrap();
        let mut byte = [0];
        for offset in [3_000_000, 1_048_576, 0] {
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
            let (left, right) = (byte[0], byte[0] ^ 4);
            assert_eq!(compare(&a, &b), Some(Difference::Byte { offset, left, right }));
        }
        file.set_len(5).unwrap();
        assert_eq!(compare(&a, &b), Some(Difference::Length { left: 3_000_001, right: 5 }));
    }

    #[test]
    fn a_vast_sparse_image_is_cheap() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        sparse_image(&a, 1 << 38, 20, 50_000, 1);
        sparse_image(&b, 1 << 38, 20, 50_000, 1);
        assert!(allocated_bytes(&a) < 4 << 20);
        assert_eq!(compare(&a, &b), None);
        overwrite(&b, 1 << 37, 1, 3);
        let Some(Difference::Byte { offset, .. }) = compare(&a, &b) else { panic!("not found") };
        assert_eq!(offset, 1 << 37);
    }

    #[test]
    fn zeros_and_holes_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        sparse_image(&a, 5 << 20, 0, 0, 1);
        std::fs::write(&b, vec![0; 5 << 20]).unwrap();
        assert_eq!(compare(&a, &b), None);
        assert_eq!(compare(&b, &a), None);
    }
}
