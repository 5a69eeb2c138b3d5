//! The rules one by one, on chains small enough to read.

use super::*;

/// A set of up to eight grains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mask(pub(crate) u8);

impl Union for Mask {
    fn union_with(&mut self, other: &Mask) {
        self.0 |= other.0;
    }
}

impl Grains for Mask {
    fn is_subset(&self, other: &Mask) -> bool {
        self.0 & !other.0 == 0
    }
}

/// The cut with number `n`.
pub(crate) fn id(n: u8) -> CutId {
    CutId::new(u64::from(n), [n; 10])
}

/// A chain of these cuts; epochs end at 9 where `known`.
pub(crate) fn chain(cuts: &[u8], known: bool) -> Lineage {
    let mut lineage = Lineage::new();
    let mut parent = None;
    for cut in cuts {
        let cut = Cut { id: id(*cut), parent, unix_ms: 0, reason: CutReason::Cycle };
        lineage.push(cut, known.then_some(9)).expect("a new cut on top");
        parent = Some(cut.id);
    }
    lineage
}

fn layer(names: &[u8], grains: u8) -> Layer<Mask> {
    let name = LayerName::along(names.iter().map(|n| id(*n))).expect("two ends");
    Layer { name, grains: Mask(grains) }
}

struct Site {
    lineage: Lineage,
    layers: Vec<Layer<Mask>>,
    open: Mask,
    direct: Mask,
    missing: Mask,
    remaining: Option<(CutId, Mask)>,
    fuzzy_end: Option<CutId>,
}

fn site(cuts: &[u8], layers: &[Layer<Mask>], open: u8) -> Site {
    Site {
        lineage: chain(cuts, true),
        layers: layers.to_vec(),
        open: Mask(open),
        direct: Mask(0),
        missing: Mask(0),
        remaining: None,
        fuzzy_end: None,
    }
}

const SESSION: [u8; 16] = [7; 16];

impl Site {
    fn holding(&self) -> Holding<'_, Mask> {
        Holding {
            lineage: &self.lineage,
            layers: &self.layers,
            open: &self.open,
            direct: &self.direct,
            missing: &self.missing,
            partial: self.remaining.as_ref().map(|(cut, remaining)| PartialSession {
                session: crate::SessionId::from_bytes(SESSION),
                cut: *cut,
                remaining,
            }),
            fuzzy_end: self.fuzzy_end,
        }
    }
}

fn pull(source: &Site, replica: &Site) -> Result<u8, NoDelta> {
    delta(&source.holding(), &replica.holding()).map(|delta| delta.pull.0)
}

#[test]
fn rule_1_a_layer_belongs_to_the_branch_that_has_both_its_ends() {
    // 1-2-3 and 1-2-4 share the opening cut 2.
    let source = site(&[1, 2, 3], &[layer(&[1, 2], 1), layer(&[2, 3], 2)], 0);
    let replica = site(&[1, 2, 4], &[], 0);
    let gap = EpochGap { from: id(2), to: id(4) };
    assert_eq!(pull(&source, &replica), Err(NoDelta::Unknown(gap)));
    let replica = site(&[1, 2, 4], &[layer(&[2, 4], 4)], 0);
    assert_eq!(pull(&source, &replica), Ok(2 | 4), "the layer before the common cut stays out");
    // A merged layer supplies each epoch that it lists, and one that spans its ends.
    let merged = [layer(&[1, 2, 3], 8)];
    assert_eq!(pull(&site(&[1, 2, 3], &merged, 0), &site(&[1, 2], &[], 0)), Ok(8));
    let spanning = [layer(&[1, 3], 8)];
    assert_eq!(pull(&site(&[1, 2, 3], &spanning, 0), &site(&[1, 2], &[], 0)), Ok(8));
    let not_listed = site(&[1, 2, 3], &[layer(&[1, 5, 2], 1)], 0);
    assert!(pull(&not_listed, &site(&[1, 2], &[], 0)).is_err());
}

#[test]
fn rule_2_the_delta_is_all_that_either_side_knows() {
    let mut source = site(&[1, 2, 3], &[layer(&[1, 2], 1)], 2);
    let mut replica = site(&[1], &[layer(&[2, 3], 4)], 8);
    source.missing = Mask(16);
    replica.missing = Mask(32);
    replica.direct = Mask(64);
    assert_eq!(pull(&source, &replica), Ok(0x7f));
    let used = layers_used(&source.holding(), &replica.holding());
    assert_eq!(used, Ok(LayersUsed { source: vec![0], replica: vec![0] }));
    assert_eq!(pull(&site(&[1], &[], 0), &site(&[2], &[], 0)), Err(NoDelta::NoCommonCut));
    assert_eq!(pull(&site(&[], &[], 0), &site(&[], &[], 0)), Err(NoDelta::NoCommonCut));
}

#[test]
fn rule_3_a_commit_records_the_union_and_adopts_the_chain() {
    let source = chain(&[1, 2, 3, 4], true);
    let commit = commit(&source, id(2), id(3), Mask(5)).expect("a chain from 2 to 3");
    assert_eq!(commit.lineage, chain(&[1, 2, 3], true));
    assert_eq!(commit.layer, Some(layer(&[2, 3], 5)));
    let none = super::commit(&source, id(3), id(3), Mask(0)).expect("the head is the common cut");
    assert_eq!(none.layer, None);
    assert_eq!(super::commit(&source, id(3), id(2), Mask(0)), None);
    assert_eq!(super::commit(&source, id(9), id(2), Mask(0)), None);
}

#[test]
fn rule_4_layers_go_up_to_the_oldest_need() {
    let lineage = chain(&[1, 2, 3, 4], true);
    assert_eq!(drop_floor(&lineage, [Some(id(3)), Some(id(2)), Some(id(4))]), Some(id(2)));
    assert_eq!(drop_floor(&lineage, [Some(id(3)), None]), None, "a peer that never acknowledged");
    assert_eq!(drop_floor(&lineage, [Some(id(3)), Some(id(9))]), None, "a cut that is not known");
    assert!(droppable(&layer(&[1, 2], 0).name, &lineage, id(2)));
    assert!(!droppable(&layer(&[2, 3], 0).name, &lineage, id(2)));
    assert!(!droppable(&layer(&[1, 9], 0).name, &lineage, id(4)), "another branch");
}

#[test]
fn rule_5_layers_merge_where_nobody_names_the_cut_between() {
    let lineage = chain(&[1, 2, 3, 4, 5], true);
    let parts = [layer(&[3, 4], 4), layer(&[1, 2], 1), layer(&[4, 5], 8), layer(&[2, 3], 2)];
    let mut held = HeldCuts::new(&lineage);
    held.peer_position(id(3));
    let mut layers = parts.to_vec();
    let mut merged = merge_neighbours(&mut layers, held.cuts());
    merged.sort();
    assert_eq!(merged, [id(2), id(4)]);
    layers.sort_by_key(|layer| layer.name.from);
    assert_eq!(layers, [layer(&[1, 2, 3], 3), layer(&[3, 4, 5], 12)]);
    // Beside a fork both branches stay.
    let mut forked = vec![layer(&[1, 2], 1), layer(&[2, 3], 2), layer(&[2, 4], 4)];
    assert_eq!(merge_neighbours(&mut forked, &BTreeSet::new()), []);
    assert_eq!(forked.len(), 3);
    let mut ring = vec![layer(&[1, 2], 1), layer(&[2, 1], 2)];
    merge_neighbours(&mut ring, &BTreeSet::new());
    assert_eq!(ring.len(), 2, "nothing is lost");
}

#[test]
fn rule_6_an_unclean_start_takes_up_all_since_the_last_sync() {
    let lineage = chain(&[1, 2, 3, 4], true);
    let layers = [layer(&[1, 2], 1), layer(&[2, 3], 2), layer(&[3, 4], 4), layer(&[2, 9], 8)];
    assert_eq!(unclean_start_union(&lineage, &layers, Some(id(2))), Mask(2 | 4));
    assert_eq!(unclean_start_union(&lineage, &layers, Some(id(4))), Mask(0));
    assert_eq!(unclean_start_union(&lineage, &layers, None), Mask(1 | 2 | 4));
    assert_eq!(unclean_start_union(&lineage, &layers, Some(id(77))), Mask(1 | 2 | 4));
}

#[test]
fn rule_7_a_fuzzy_seed_needs_a_source_that_knows_its_end() {
    let mut replica = site(&[1, 2], &[], 0);
    replica.fuzzy_end = Some(id(3));
    assert_eq!(pull(&site(&[1, 2], &[], 1), &replica), Err(NoDelta::FuzzyEndUnknown(id(3))));
    assert_eq!(pull(&site(&[1, 2, 3], &[layer(&[2, 3], 1)], 2), &replica), Ok(3));
}

#[test]
fn rule_8_a_position_beyond_the_recorded_end_is_no_member() {
    let at = |cut, sequence| Position { cut: id(cut), sequence };
    let known = chain(&[1, 2, 3], true);
    assert_eq!(membership(at(2, 9), &known, 0), Membership::Member);
    assert_eq!(membership(at(2, 10), &known, 0), Membership::SequenceBeyond { end: 9 });
    assert_eq!(membership(at(3, 4), &known, 4), Membership::Member);
    assert_eq!(membership(at(3, 5), &known, 4), Membership::SequenceBeyond { end: 4 });
    assert_eq!(membership(at(4, 0), &known, 4), Membership::UnknownCut);
    let unclean = chain(&[1, 2, 3], false);
    assert_eq!(membership(at(2, 0), &unclean, 0), Membership::Member);
    assert_eq!(membership(at(2, 1), &unclean, 0), Membership::EndUnknown);
    let layers = [layer(&[2, 3], 3)];
    assert!(open_layer_within(id(2), &Mask(2), &unclean, &layers));
    assert!(!open_layer_within(id(2), &Mask(4), &unclean, &layers));
    assert!(!open_layer_within(id(1), &Mask(0), &unclean, &layers), "a layer that is gone");
    assert!(!open_layer_within(id(3), &Mask(0), &unclean, &layers), "the head is open");
}

#[test]
fn rule_9_a_broken_session_is_carried_over_or_the_delta_is_whole() {
    let mut replica = site(&[1], &[], 0);
    replica.remaining = Some((id(2), Mask(1)));
    let layers = [layer(&[1, 2], 3), layer(&[2, 3], 4)];
    let source = site(&[1, 2, 3], &layers, 8);
    let found = delta(&source.holding(), &replica.holding()).expect("known");
    assert_eq!((found.pull, found.record), (Mask(1 | 4 | 8), Mask(3 | 4 | 8)));
    assert_eq!(found.carries.map(|session| session.to_bytes()), Some(SESSION));
    replica.remaining = Some((id(7), Mask(1)));
    let found = delta(&source.holding(), &replica.holding()).expect("known");
    assert_eq!((found.pull, found.carries), (Mask(3 | 4 | 8), None), "of a cut that is gone");
}

#[test]
fn chains_are_checked() {
    let mut lineage = chain(&[1, 2], true);
    let cut = |n, parent| Cut { id: id(n), parent, unix_ms: 0, reason: CutReason::Start };
    assert!(lineage.push(cut(3, Some(id(1))), None).is_err());
    assert!(lineage.push(cut(1, Some(id(2))), None).is_err());
    assert!(lineage.push(cut(3, Some(id(2))), None).is_ok());
    assert_eq!((lineage.end_of(id(1)), lineage.end_of(id(2))), (Some(9), None));
    assert!(lineage.validate(3).is_ok() && lineage.validate(2).is_err());
    assert_eq!(lineage.prune(|cut| cut == id(1)), 1);
    assert_eq!(lineage.index_of(id(3)), Some(1));
    let mut hostile = lineage.clone();
    hostile.cuts.push(cut(1, None));
    assert!(hostile.validate(9).is_err(), "a cut twice");
    hostile = lineage.clone();
    hostile.ends.insert(id(3), 1);
    assert!(hostile.validate(9).is_err(), "the end of an open epoch");
    // Chains that put the same cuts in another order share nothing that could be trusted.
    assert_eq!(newest_common_cut(&chain(&[1, 2], true), &chain(&[2, 1], true)), None);
    assert_eq!(newest_common_cut(&chain(&[1, 2, 3], true), &chain(&[1, 2, 4], true)), Some(id(2)));
}

#[test]
fn names_are_checked_and_bounded() {
    let long = LayerName::along((0..60_000u64).map(|n| CutId::new(n, [0; 10]))).expect("long");
    assert_eq!(long.names.len(), MAX_NAMES_PER_LAYER);
    assert!(long.validate().is_ok());
    assert_eq!(long.from, CutId::new(0, [0; 10]));
    assert_eq!(LayerName::along([id(1)]), None);
    let joined = layer(&[1, 2], 0).name.joined(&layer(&[2, 3], 0).name);
    assert_eq!(joined, Some(layer(&[1, 2, 3], 0).name));
    assert_eq!(layer(&[1, 2], 0).name.joined(&layer(&[1, 3], 0).name), None);
    for names in [vec![id(1)], vec![id(1), id(3), id(3), id(2)], vec![id(2), id(1)]] {
        assert!(LayerName { from: id(1), to: id(2), names }.validate().is_err());
    }
}

#[test]
fn counts_add_up_instead_of_wrapping() {
    let mut count = Count(u64::MAX - 1);
    count.union_with(&Count(5));
    assert_eq!(count, Count(u64::MAX));
}
