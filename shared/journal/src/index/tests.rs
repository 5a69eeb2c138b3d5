//! The index against a plain map from bytes to versions.

use std::collections::BTreeMap;

use grain::{Span, VolumeId};
use proptest::prelude::*;

use super::{Index, Place, Stretch};

const BYTES: u64 = 40;

/// (place, zero, commit, position inside the record) of each byte.
type Model = BTreeMap<(VolumeId, u64), (Place, bool, u64, u64)>;

fn check(index: &Index, model: &Model) {
    let mut seen = 0;
    for volume in [VolumeId(0), VolumeId(1)] {
        let whole = Span { volume, start: 0, bytes: BYTES };
        for (span, stretch) in index.lookup(whole) {
            for i in 0..span.bytes {
                let (place, zero, commit, at) = model[&(volume, span.start + i)];
                assert_eq!((zero, commit), (stretch.zero, stretch.commit));
                if !zero {
                    assert_eq!((place, at), (stretch.place, stretch.skip + i));
                }
                seen += 1;
            }
        }
    }
    assert_eq!(seen, model.len() as u64);
    assert_eq!(index.bytes(), seen);
    for commit in 0..60 {
        assert_eq!(index.waits(commit), model.values().any(|(_, _, c, _)| *c == commit));
    }
}

proptest! {
    #[test]
    fn it_keeps_the_newest_version_of_each_byte(
        steps in prop::collection::vec((0..2u16, 0..BYTES, 1..BYTES, 0..5u8), 1..60)
    ) {
        let (mut index, mut model) = (Index::default(), Model::new());
        for (number, (volume, start, bytes, kind)) in steps.iter().enumerate() {
            let volume = VolumeId(*volume);
            let span = Span { volume, start: *start, bytes: (*bytes).min(BYTES - start) };
            let place = Place { segment: 1, offset: number as u64 * 16 };
            let commit = number as u64 / 3;
            if *kind == 0 {
                index.remove(span, |stretch| stretch.commit % 2 == 0);
                let hit = |g: &(VolumeId, u64)| g.0 == volume && (span.start..span.end()).contains(&g.1);
                model.retain(|g, (_, _, c, _)| !(hit(g) && *c % 2 == 0));
            } else {
                let zero = *kind < 3;
                index.insert(volume, span.start, Stretch::whole(span, place, zero, commit));
                for i in 0..span.bytes {
                    model.insert((volume, span.start + i), (place, zero, commit, i));
                }
            }
            check(&index, &model);
        }
        // Two pieces a record at most.
        prop_assert!(index.pieces() <= 2 * steps.len() as u64);
    }
}

#[test]
fn neighbouring_zeros_of_a_commit_are_one_piece() {
    let mut index = Index::default();
    for i in 0..1000 {
        let span = Span { volume: VolumeId(0), start: i * 2, bytes: 2 };
        let place = Place { segment: 1, offset: i * 128 };
        index.insert(span.volume, span.start, Stretch::whole(span, place, true, 1));
    }
    assert_eq!((index.pieces(), index.bytes()), (1, 2000));
}
