//! Grain sets against a plain ordered set, and the wire form against honest and hostile bytes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::{Geometry, GrainSet, GrainSetDecoder, GrainSize, Run, VolumeId, VolumeShape};

type Model = BTreeSet<(u16, u64)>;

/// Two volumes of 100 000 and 40 000 grains of 4 KiB, the last ones short.
fn geometry() -> Geometry {
    let volume = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
    let volumes = vec![volume("a", 99_999 * 4096 + 512), volume("b", 39_999 * 4096 + 1)];
    Geometry { grain: GrainSize::MIN, volumes }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u16, u64),
    InsertRun(Run),
    RemoveRun(Run),
}

fn a_run() -> impl Strategy<Value = Run> {
    // Often near the borders of pages, sometimes longer than several of them.
    let first = prop_oneof![0..100u64, 32_700..32_800u64, 65_500..65_600u64, 0..99_000u64];
    let count = prop_oneof![0..3u64, 30..80u64, 0..40_000u64];
    (0..2u16, first, count).prop_map(|(volume, first, count)| {
        let last = if volume == 0 { 100_000 } else { 40_000u64 };
        let first = first.min(last);
        Run { volume: VolumeId(volume), first, count: count.min(last - first) }
    })
}

fn an_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => a_run().prop_map(|r| Op::Insert(r.volume.0, r.first.min(39_999))),
        2 => a_run().prop_map(Op::InsertRun),
        2 => a_run().prop_map(Op::RemoveRun),
    ]
}

fn grains(run: Run) -> impl Iterator<Item = (u16, u64)> {
    (run.first..run.end()).map(move |g| (run.volume.0, g))
}

fn apply(set: &mut GrainSet, model: &mut Model, op: &Op) {
    match op {
        Op::Insert(v, g) => assert_eq!(set.insert(VolumeId(*v), *g), model.insert((*v, *g))),
        Op::InsertRun(run) => {
            let new = grains(*run).filter(|g| model.insert(*g)).count() as u64;
            assert_eq!(set.insert_run(*run), new);
        }
        Op::RemoveRun(run) => {
            let gone = grains(*run).filter(|g| model.remove(g)).count() as u64;
            assert_eq!(set.remove_run(*run), gone);
        }
    }
    assert_eq!(set.len(), model.len() as u64);
}

fn build(ops: &[Op]) -> (GrainSet, Model) {
    let (mut set, mut model) = (GrainSet::new(), Model::new());
    ops.iter().for_each(|op| apply(&mut set, &mut model, op));
    (set, model)
}

fn of_model(model: &Model) -> GrainSet {
    let mut set = GrainSet::new();
    model.iter().for_each(|(v, g)| assert!(set.insert(VolumeId(*v), *g)));
    set
}

fn decode(chunks: &[Vec<u8>]) -> Result<GrainSet, crate::Error> {
    let mut decoder = GrainSetDecoder::new();
    for chunk in chunks {
        decoder.decode_chunk(chunk, &geometry())?;
    }
    decoder.finish()
}

fn some_ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(an_op(), 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn behaves_like_an_ordered_set(ops in some_ops(), probe in a_run(), max in 1..70_000u64) {
        let (set, model) = build(&ops);
        prop_assert_eq!(&of_model(&model), &set, "equality is of content");
        let flat: Vec<(u16, u64)> = set.runs().flat_map(grains).collect();
        prop_assert!(flat.iter().eq(model.iter()), "runs list every grain once, in order");
        let runs: Vec<Run> = set.runs().collect();
        prop_assert!(
            runs.windows(2).all(|w| w[0].volume != w[1].volume || w[0].end() < w[1].first),
            "runs are maximal"
        );
        let inside = grains(probe).filter(|g| model.contains(g)).count() as u64;
        prop_assert_eq!(set.count_in(probe), inside);
        prop_assert_eq!(set.intersects(probe), inside > 0);
        prop_assert_eq!(set.contains_all(probe), inside == probe.count);
        prop_assert_eq!(
            set.contains(probe.volume, probe.first),
            model.contains(&(probe.volume.0, probe.first))
        );
        let next = set.next_run((probe.volume, probe.first), max);
        let first = model.range((probe.volume.0, probe.first)..).next().copied();
        prop_assert_eq!(next.map(|r| (r.volume.0, r.first)), first);
        if let Some(run) = next {
            prop_assert!(run.count <= max && grains(run).all(|g| model.contains(&g)));
            let after = model.contains(&(run.volume.0, run.end()));
            prop_assert!(run.count == max || !after, "a run ends early only at a gap");
        }
        let bytes: u64 = model
            .iter()
            .map(|(v, g)| { let r = geometry().byte_range(VolumeId(*v), *g, 1); r.end - r.start })
            .sum();
        prop_assert_eq!(set.bytes(&geometry()), bytes);
    }

    #[test]
    fn algebra_is_that_of_sets(a in some_ops(), b in some_ops()) {
        let ((a, ma), (b, mb)) = (build(&a), build(&b));
        let mut union = a.clone();
        union.union_with(&b);
        prop_assert_eq!(&union, &of_model(&ma.union(&mb).copied().collect()));
        let mut both = a.clone();
        both.intersect_with(&b);
        prop_assert_eq!(&both, &of_model(&ma.intersection(&mb).copied().collect()));
        let mut rest = a.clone();
        rest.subtract(&b);
        prop_assert_eq!(&rest, &of_model(&ma.difference(&mb).copied().collect()));
        prop_assert_eq!(a.is_subset(&b), ma.is_subset(&mb));
        prop_assert!(both.is_subset(&a) && both.is_subset(&b) && a.is_subset(&union));
        prop_assert_eq!(union.len(), union.runs().map(|r| r.count).sum::<u64>());
        rest.union_with(&both);
        prop_assert_eq!(rest, a);
    }

    #[test]
    fn wire_form_round_trips(ops in some_ops(), max in prop_oneof![0..5_000usize, Just(1 << 20)]) {
        let (set, _) = build(&ops);
        let chunks = set.encode_pages(max);
        prop_assert!(chunks.iter().all(|c| c.len() <= max.max(4_144)));
        prop_assert_eq!(decode(&chunks), Ok(set));
    }

    #[test]
    fn mutated_and_random_bytes_are_refused_or_fit(
        ops in some_ops(),
        flips in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut chunks = build(&ops).0.encode_pages(0);
        for (at, bits) in flips {
            let n = at % chunks.len();
            let len = chunks[n].len();
            chunks[n][at / 7 % len] ^= bits;
        }
        for chunks in [chunks, vec![noise]] {
            if let Ok(set) = decode(&chunks) {
                prop_assert!(set.fits(&geometry()));
            }
        }
    }
}

#[test]
fn everything_of_a_large_volume_is_small() {
    let volumes = vec![VolumeShape { alias: "big".into(), bytes: 100 << 40 }];
    let geometry = Geometry { grain: GrainSize::DEFAULT, volumes };
    let mut set = GrainSet::full(&geometry);
    assert_eq!(set.len(), geometry.total_grains());
    assert_eq!(set.bytes(&geometry), 100 << 40);
    assert!(set.memory_bytes() < 2 << 20, "{} bytes", set.memory_bytes());
    assert_eq!(set.runs().count(), 1);
    let chunks = set.encode_pages(1 << 20);
    assert_eq!((chunks.len(), chunks[0].len()), (1, 16 + 4 + 3));
    let hole = Run { volume: VolumeId(0), first: 5_000_000, count: 1 };
    assert_eq!(set.remove_run(hole), 1);
    assert_eq!(
        set.runs().map(|r| r.count).collect::<Vec<_>>(),
        [5_000_000, (100 << 24) - 5_000_001]
    );
    assert_eq!(set.encode_pages(1 << 20).concat().len(), 16 + 6 + 14 + 8);
}

#[test]
fn indices_at_the_end_of_the_range_do_not_overflow() {
    let mut set = GrainSet::new();
    assert!(set.insert(VolumeId(3), u64::MAX - 1));
    assert_eq!(set.insert_run(Run { volume: VolumeId(3), first: u64::MAX, count: 1 }), 0);
    let end = Run { volume: VolumeId(3), first: u64::MAX - 5, count: u64::MAX };
    assert!(set.intersects(end) && !set.contains_all(end));
    assert_eq!(set.insert_run(end), 4);
    assert_eq!(
        set.next_run((VolumeId(0), 9), 3).map(|r| (r.first, r.count)),
        Some((u64::MAX - 5, 3))
    );
    assert_eq!(set.remove_run(Run { volume: VolumeId(3), first: 0, count: u64::MAX }), 5);
    assert_eq!(set, GrainSet::new());
}

#[test]
fn a_bit_flipped_anywhere_in_a_map_is_noticed_or_changes_only_grains() {
    let mut set = GrainSet::new();
    set.insert_run(Run { volume: VolumeId(0), first: 10, count: 70_000 });
    (0..18_000).for_each(|i| assert!(set.insert(VolumeId(1), i * 2)));
    let chunks = set.encode_pages(0);
    assert_eq!(chunks.len(), 2);
    for (n, chunk) in chunks.iter().enumerate() {
        for bit in 0..chunk.len() * 8 {
            let mut bad = chunks.clone();
            bad[n][bit / 8] ^= 1 << (bit % 8);
            // The count catches all but a swap of one grain for another; authenticity is the frame's.
            if let Ok(other) = decode(&bad) {
                assert_eq!(other.len(), set.len(), "chunk {n} bit {bit}");
            }
        }
        assert!(decode(&chunks[..n]).is_err(), "a missing chunk");
    }
    let swapped: Vec<_> = chunks.iter().rev().cloned().collect();
    assert!(decode(&swapped).is_err());
    let mut twice = chunks.clone();
    twice.push(chunks[1].clone());
    assert!(decode(&twice).is_err());
}

#[test]
fn debug_is_short() {
    let mut set = GrainSet::new();
    assert_eq!(format!("{set:?}"), "GrainSet(0)");
    set.insert_run(Run { volume: VolumeId(1), first: 2, count: 3 });
    set.insert(VolumeId(1), 9);
    assert_eq!(format!("{set:?}"), "GrainSet(4: 1/2+3, 1/9)");
    (0..9).for_each(|i| assert!(set.insert(VolumeId(2), i * 3)));
    assert_eq!(format!("{set:?}"), "GrainSet(13: 1/2+3, 1/9, 2/0, 2/3, 2/6, 2/9, ...)");
}
