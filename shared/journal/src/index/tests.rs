//! The index against a plain map from grains to versions.

use std::collections::BTreeMap;

use grain::{Run, VolumeId};
use proptest::prelude::*;

use super::{Index, Place, RecordRef};

const GRAINS: u64 = 40;

/// (place, zero, commit, position inside the record) of each grain.
type Model = BTreeMap<(VolumeId, u64), (Place, bool, u64, u64)>;

fn check(index: &Index, model: &Model) {
    let mut seen = 0;
    for volume in [VolumeId(0), VolumeId(1)] {
        let whole = Run { volume, first: 0, count: GRAINS };
        for (run, stretch) in index.lookup(whole) {
            for i in 0..run.count {
                let (place, zero, commit, at) = model[&(volume, run.first + i)];
                assert_eq!((zero, commit), (stretch.zero, stretch.commit));
                if !zero {
                    assert_eq!((place, at), (stretch.place, stretch.skip + i));
                }
                seen += 1;
            }
        }
    }
    assert_eq!(seen, model.len() as u64);
    assert_eq!(index.grains(), seen);
    for commit in 0..60 {
        assert_eq!(index.waits(commit), model.values().any(|(_, _, c, _)| *c == commit));
    }
}

proptest! {
    #[test]
    fn it_keeps_the_newest_version_of_each_grain(
        steps in prop::collection::vec((0..2u16, 0..GRAINS, 1..GRAINS, 0..5u8), 1..60)
    ) {
        let (mut index, mut model) = (Index::default(), Model::new());
        for (number, (volume, first, count, kind)) in steps.iter().enumerate() {
            let volume = VolumeId(*volume);
            let run = Run { volume, first: *first, count: (*count).min(GRAINS - first) };
            let place = Place { segment: 1, offset: number as u64 * 16 };
            let commit = number as u64 / 3;
            if *kind == 0 {
                index.remove(run, |stretch| stretch.commit % 2 == 0);
                let hit = |g: &(VolumeId, u64)| g.0 == volume && (run.first..run.end()).contains(&g.1);
                model.retain(|g, (_, _, c, _)| !(hit(g) && *c % 2 == 0));
            } else {
                let zero = *kind < 3;
                index.insert(&RecordRef { sequence: 0, run, place, zero }, commit);
                for i in 0..run.count {
                    model.insert((volume, run.first + i), (place, zero, commit, i));
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
        let run = Run { volume: VolumeId(0), first: i * 2, count: 2 };
        let place = Place { segment: 1, offset: i * 128 };
        index.insert(&RecordRef { sequence: i, run, place, zero: true }, 1);
    }
    assert_eq!((index.pieces(), index.grains()), (1, 2000));
}
