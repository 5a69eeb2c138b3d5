//! Blind changes to an input: what a fuzzer does to any bytes.

use disk::simulated::SplitMix64;

/// The longest input that is made, in bytes.
pub const MAX_BYTES: usize = 64 << 10;

/// A changed copy of `data`; `other` lends pieces.
pub fn mutated(data: &[u8], other: &[u8], random: &mut SplitMix64) -> Vec<u8> {
    let mut out = data.to_vec();
    for _ in 0..1 + below(random, 4) {
        change(&mut out, other, random);
    }
    out.truncate(MAX_BYTES);
    out
}

fn below(random: &mut SplitMix64, bound: usize) -> usize {
    (random.next_u64() % bound.max(1) as u64) as usize
}

fn change(out: &mut Vec<u8>, other: &[u8], random: &mut SplitMix64) {
    let at = below(random, out.len() + 1);
    let here = |random: &mut SplitMix64, len: usize| at..(at + 1 + below(random, 16)).min(len);
    match below(random, 9) {
        0 | 1 if at < out.len() => out[at] ^= 1 << below(random, 8),
        2 if at < out.len() => out[at] = random.next_u64() as u8,
        3 => {
            let odd = [0, 1, 0x7f, 0x80, 0xff][below(random, 5)];
            let range = here(random, out.len());
            out[range.start.min(range.end)..range.end].fill(odd);
        }
        4 => {
            let range = here(random, out.len());
            out.drain(range.start.min(range.end)..range.end);
        }
        5 => {
            let bytes = random.next_u64().to_le_bytes();
            let len = 1 + below(random, 8);
            out.splice(at..at, bytes[..len].iter().copied());
        }
        6 if !other.is_empty() => {
            let from = below(random, other.len());
            let to = (from + 1 + below(random, 64)).min(other.len());
            let end = (at + to - from).min(out.len());
            out.splice(at..end, other[from..to].iter().copied());
        }
        7 => out.truncate(at),
        _ => {
            let from = below(random, out.len() + 1);
            let to = (from + below(random, 32)).min(out.len());
            let piece = out[from..to].to_vec();
            out.splice(at..at, piece);
        }
    }
}
