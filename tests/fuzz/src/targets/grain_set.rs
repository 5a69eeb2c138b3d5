//! Sets of grains as a peer sends them: chunks into a decoder, and into the inbox of a session.
//!
//! Input: pieces of u16 length each. A set that comes out lies inside the geometry and survives its own
//! encoding.

use grain::{Geometry, GrainSet, GrainSetDecoder, GrainSize, Run, VolumeId, VolumeShape};
use replication::protocol::{SetInbox, SetName};

use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "grain_set",
    run,
    seeds,
    // One entry of a few bytes may stand for as many full pages as the volume has (64 Ki of 32768 grains
    // here); each costs an entry of an ordered map. That is what the geometry grants.
    allocation: Allocation { constant_bytes: 2 << 20, per_byte: 2 << 10 },
};

fn geometry() -> Geometry {
    let volume = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
    Geometry { grain: GrainSize::MIN, volumes: vec![volume("a", 1 << 40), volume("b", 5 << 20)] }
}

fn chunks(data: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut out) = (data, Vec::new());
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (chunk, after) = after.split_at(usize::from(u16::from_le_bytes(*len)).min(after.len()));
        out.push(chunk);
        rest = after;
    }
    out
}

fn run(data: &[u8]) {
    let geometry = geometry();
    let mut inbox = SetInbox::new(&geometry);
    let mut decoder = GrainSetDecoder::new();
    let mut whole = false;
    for chunk in chunks(data) {
        let taken = inbox.take(SetName::Pull, chunk, &geometry);
        match decoder.decode_chunk(chunk, &geometry) {
            Ok(last) => {
                assert!(taken.is_ok() || whole, "the inbox refuses what the decoder takes");
                whole |= last;
            }
            Err(_) => {
                assert!(taken.is_err(), "the inbox takes what the decoder refuses");
                return;
            }
        }
    }
    assert_eq!(whole, inbox.remove(SetName::Pull).is_some());
    let Ok(set) = decoder.finish() else { return };
    assert!(set.fits(&geometry), "grains outside the volumes");
    assert_eq!(set.runs().map(|run| run.count).sum::<u64>(), set.len());
    let mut again = GrainSetDecoder::new();
    for chunk in set.encode_pages(4096) {
        again.decode_chunk(&chunk, &geometry).expect("its own encoding");
    }
    assert_eq!(again.finish().expect("its own encoding"), set);
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let run = |volume, first, count| Run { volume: VolumeId(volume), first, count };
    let mut mixed = GrainSet::new();
    for first in (0..3000).step_by(7) {
        mixed.insert_run(run(0, first, 1 + first % 5));
    }
    mixed.insert_run(run(0, 32768, 200_000));
    mixed.insert_run(run(1, 1000, 280));
    let mut few = GrainSet::new();
    few.insert_run(run(1, 3, 4));
    let sets = [
        ("empty", GrainSet::new()),
        ("few", few),
        ("mixed", mixed),
        ("full", GrainSet::full(&geometry())),
    ];
    let join = |set: &GrainSet| {
        let framed = |chunk: Vec<u8>| [(chunk.len() as u16).to_le_bytes().to_vec(), chunk].concat();
        set.encode_pages(4096).into_iter().map(framed).collect::<Vec<_>>().concat()
    };
    sets.iter().map(|(name, set)| ((*name).to_owned(), join(set))).collect()
}
