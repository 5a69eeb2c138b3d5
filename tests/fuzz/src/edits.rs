//! Edits: an input that is read as a list of changes to a valid file, so that a fuzzer damages what is
//! deep inside instead of dying at the first magic number.
//!
//! An edit is a byte that says which, a place (u16, modulo the length), and its operands.

use crate::input::Input;

/// The most edits of one input.
const MAX_EDITS: usize = 64;

/// Values at which arithmetic and bounds go wrong.
const ODD: [u64; 12] = [
    0,
    1,
    u64::MAX,
    u64::MAX - 1,
    1 << 63,
    (1 << 63) - 1,
    u32::MAX as u64,
    1 << 31,
    1 << 32,
    u16::MAX as u64,
    4096,
    1 << 20,
];

/// How to write one edit; the other direction of [`apply`], for seeds.
#[derive(Clone, Copy)]
pub enum Edit {
    /// Turns over bits.
    Flip { at: u16, mask: u8 },
    /// One of the odd values, in eight, four or two bytes.
    Odd { at: u16, which: u8, width: u8 },
    /// Any eight bytes.
    Put { at: u16, value: u64 },
    /// Ends the file here.
    Truncate { at: u16 },
    /// Copies bytes from one place to another.
    Copy { at: u16, from: u16, len: u8 },
    /// Puts bytes in.
    Insert { at: u16, len: u8, byte: u8 },
}

impl Edit {
    /// As it stands in an input.
    pub fn encode(self) -> Vec<u8> {
        let head = |kind: u8, at: u16| [&[kind][..], &at.to_le_bytes()].concat();
        match self {
            Edit::Flip { at, mask } => [head(0, at), vec![mask]].concat(),
            Edit::Odd { at, which, width } => [head(1, at), vec![which, width]].concat(),
            Edit::Put { at, value } => [head(2, at), value.to_le_bytes().to_vec()].concat(),
            Edit::Truncate { at } => head(3, at),
            Edit::Copy { at, from, len } => {
                [head(4, at), from.to_le_bytes().to_vec(), vec![len]].concat()
            }
            Edit::Insert { at, len, byte } => [head(5, at), vec![len, byte]].concat(),
        }
    }
}

/// Carries out the edits in `input` on `file`.
pub fn apply(input: &mut Input<'_>, file: &mut Vec<u8>) {
    for _ in 0..MAX_EDITS {
        if input.is_empty() || file.is_empty() {
            return;
        }
        let (kind, at) = (input.u8() % 6, input.u16());
        let at = usize::from(at) % file.len();
        match kind {
            0 => file[at] ^= input.u8(),
            1 => {
                let value = ODD[usize::from(input.u8()) % ODD.len()].to_le_bytes();
                let width = [8, 4, 2][usize::from(input.u8()) % 3];
                put(file, at, &value[..width]);
            }
            2 => put(file, at, &input.u64().to_le_bytes()),
            3 => file.truncate(at),
            4 => {
                let from = usize::from(input.u16()) % file.len();
                let end = (from + usize::from(input.u8())).min(file.len());
                let piece = file[from..end].to_vec();
                put(file, at, &piece);
            }
            _ => {
                let (len, byte) = (usize::from(input.u8()), input.u8());
                file.splice(at..at, std::iter::repeat_n(byte, len));
            }
        }
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    let len = bytes.len().min(file.len() - at);
    file[at..at + len].copy_from_slice(&bytes[..len]);
}
