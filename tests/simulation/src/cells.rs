//! What writes put into volumes: cells of 64 bytes, each filled from the number of its write and its
//! place, so that what a disk holds says which write it is of, and bytes in the wrong place or of two
//! writes are seen.

/// Bytes of a cell; the last one of a volume may be shorter.
pub const CELL: u64 = 64;

fn word(write: u32, volume: u16, cell: u64, part: u64) -> u64 {
    let seed = u64::from(write) << 32 | u64::from(volume) << 24 | cell << 3 | part;
    let mixed = (seed ^ seed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 32
}

/// Fills a range of whole cells (the last may be short) of a volume with the bytes of a write.
pub fn fill(write: u32, volume: u16, offset: u64, out: &mut [u8]) {
    let words = |index: u64, part: usize| match part {
        0 => u64::from(write) | !u64::from(write) << 32,
        _ => word(write, volume, index, part as u64),
    };
    for (at, cell) in out.chunks_mut(CELL as usize).enumerate() {
        let index = offset / CELL + at as u64;
        let mut pieces = cell.chunks_exact_mut(8);
        let mut part = 0;
        for piece in &mut pieces {
            piece.copy_from_slice(&words(index, part).to_le_bytes());
            part += 1;
        }
        let rest = pieces.into_remainder();
        rest.copy_from_slice(&words(index, part).to_le_bytes()[..rest.len()]);
    }
}

/// Which write a cell is of: `Ok(0)` for zeros, an error when it is of none.
pub fn read(volume: u16, index: u64, cell: &[u8]) -> Result<u32, String> {
    if cell.iter().all(|byte| *byte == 0) {
        return Ok(0);
    }
    let mut head = [0; 4];
    let known = cell.len().min(4);
    head[..known].copy_from_slice(&cell[..known]);
    let write = u32::from_le_bytes(head);
    let mut expected = [0; CELL as usize];
    fill(write, volume, index * CELL, &mut expected[..cell.len()]);
    if write == 0 || expected[..cell.len()] != *cell {
        return Err(format!("cell {index} of volume {volume} holds what no write put there"));
    }
    Ok(write)
}
