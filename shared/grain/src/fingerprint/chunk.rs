//! What a chunk counts, and the sum over chunks.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use crate::{Error, is_zero};

/// Bytes of a chunk, the unit that is counted. The last one of a volume may be shorter.
pub const CHUNK_BYTES: u64 = 4096;
/// What a whole chunk of zeros counts. Its Fletcher-32 is 0, that of its SHA-1
/// (`1ceaf73df40e531df3bfb26b4fb7cd95fb7bff1d`) is this.
const ZERO_CHUNK: u64 = 0xe688_6719;

/// Fletcher-32 (J. G. Fletcher 1982) over little-endian 16-bit words, modulo 65535, the sum of sums in
/// the upper half. An odd last byte counts as a word with a zero above it.
pub fn fletcher32(bytes: &[u8]) -> u32 {
    // The sum of sums over a block of n words is the sum of (n - i) * word[i], which the compiler
    // turns into vector instructions; the running form is one long chain of additions.
    const WORDS: usize = 256; // the sums of a block stay below 2^32: 65535 * 256 * 257 / 2
    let (mut low, mut high) = (0u64, 0u64);
    for block in bytes.chunks(WORDS * 2) {
        let words = block.len().div_ceil(2);
        let (mut sum, mut sum_of_sums) = (0u32, 0u32);
        let (pairs, odd) = block.as_chunks::<2>();
        for (i, pair) in pairs.iter().enumerate() {
            let word = u32::from(u16::from_le_bytes(*pair));
            sum += word;
            sum_of_sums += (words - i) as u32 * word;
        }
        for byte in odd {
            sum += u32::from(*byte);
            sum_of_sums += u32::from(*byte);
        }
        high = (high + low * words as u64 + u64::from(sum_of_sums)) % 65_535;
        low = (low + u64::from(sum)) % 65_535;
    }
    (high as u32) << 16 | low as u32
}

/// What a chunk adds to the fingerprint: its Fletcher-32, and that of its SHA-1. (Fletcher-32 alone
/// cannot tell zeros from ones.)
pub fn chunk_value(chunk: &[u8]) -> u64 {
    // Volumes are full of zeros, and to see that costs a fiftieth of a digest.
    if chunk.len() as u64 == CHUNK_BYTES && is_zero(chunk) {
        return ZERO_CHUNK;
    }
    u64::from(fletcher32(chunk)) + u64::from(fletcher32(&Sha1::digest(chunk)))
}

/// The running sum over the sampled chunks of all volumes, in any order, each exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintSum {
    sum: u64,
    chunks: u64,
}

impl FingerprintSum {
    /// Nothing added.
    pub fn new() -> FingerprintSum {
        FingerprintSum::default()
    }

    /// Adds one sampled chunk: 4096 bytes, fewer only at the end of a volume.
    pub fn add_chunk(&mut self, chunk: &[u8]) {
        self.add(chunk_value(chunk), 1);
    }

    /// Adds `chunks` whole chunks of zeros, without looking at any.
    pub fn add_zero_chunks(&mut self, chunks: u64) {
        self.add(ZERO_CHUNK.wrapping_mul(chunks), chunks);
    }

    /// Adds what another sum has, e.g. that of another medium of the same set.
    pub fn merge(&mut self, other: FingerprintSum) {
        self.add(other.sum, other.chunks);
    }

    /// Takes a chunk out again that is about to be overwritten.
    pub fn remove_chunk(&mut self, chunk: &[u8]) {
        self.sum = self.sum.wrapping_sub(chunk_value(chunk));
        self.chunks = self.chunks.wrapping_sub(1);
    }

    /// How many chunks were added. A fingerprint is whole when it is that of its plan.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// The sum so far, modulo 2^64.
    pub fn value(&self) -> u64 {
        self.sum
    }

    fn add(&mut self, value: u64, chunks: u64) {
        self.sum = self.sum.wrapping_add(value);
        self.chunks = self.chunks.wrapping_add(chunks);
    }
}

/// A fingerprint as it is kept: which samples, how many chunks, the sum. Two are comparable when their
/// seeds are equal and they counted the same grains. As text: its stored form in hex.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint {
    /// The random bytes from which the plan's starts were drawn.
    pub seed: [u8; 16],
    /// Chunks counted.
    pub chunks: u64,
    /// Their sum modulo 2^64.
    pub sum: u64,
}

impl Fingerprint {
    /// Bytes of the stored form.
    pub const BYTES: usize = 33;
    const VERSION: u8 = 1;

    /// The stored form: version, seed, chunks and sum, little endian.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = Self::VERSION;
        bytes[1..17].copy_from_slice(&self.seed);
        bytes[17..25].copy_from_slice(&self.chunks.to_le_bytes());
        bytes[25..].copy_from_slice(&self.sum.to_le_bytes());
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Fingerprint, Error> {
        let wrong = |problem| Error::Fingerprint { problem };
        let (version, rest) = bytes.split_first().ok_or_else(|| wrong("is empty"))?;
        if *version != Self::VERSION {
            return Err(wrong("has an unknown version"));
        }
        let (seed, rest) = rest.split_first_chunk().ok_or_else(|| wrong("is cut off"))?;
        let (chunks, rest) = rest.split_first_chunk().ok_or_else(|| wrong("is cut off"))?;
        let sum = rest.try_into().map_err(|_| wrong("has another length"))?;
        let [chunks, sum] = [*chunks, sum].map(u64::from_le_bytes);
        Ok(Fingerprint { seed: *seed, chunks, sum })
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.to_bytes()))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(")?;
        fmt::Display::fmt(self, f)?;
        f.write_char(')')
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> String {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Fingerprint, Error> {
        let wrong = Error::Fingerprint { problem: "is not written in hex" };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        match bytes {
            Some(bytes) if rest.is_empty() => Fingerprint::from_bytes(&bytes),
            _ => Err(wrong),
        }
    }
}
