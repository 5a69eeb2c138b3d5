//! Single verdicts, and the checks on facts. The whole table stands in `tests/attach_table`.

use super::*;
use crate::lineage::tests::{chain, id};
use crate::lineage::{Count, LayerName};
use crate::{Error, Geometry, GrainSize, Layer, Position, RelationshipId, SessionId, VolumeShape};

fn facts(role: Role, cuts: &[u8]) -> Facts {
    let volumes = vec![VolumeShape { alias: "disk".into(), bytes: 1000 * 4096 }];
    let pairs = cuts.windows(2).map(|pair| LayerName::new(id(pair[0]), id(pair[1])));
    Facts {
        relationship: RelationshipId::from_bytes([1; 16]),
        geometry: Geometry { grain: GrainSize::MIN, volumes },
        role,
        suspect: false,
        relinquished: false,
        promoted: None,
        alone: None,
        lineage: chain(cuts, true),
        sequence: 0,
        layers: pairs.map(|name| Layer { name, grains: Count(10) }).collect(),
        open_grains: 0,
        copy: CopyFacts { consistent: !cuts.is_empty(), ..CopyFacts::default() },
        open_within: None,
    }
}

fn both_ways(mine: &Facts, theirs: &Facts) -> Verdict {
    let verdict = decide(mine, theirs);
    assert_eq!(decide(theirs, mine).mirrored(), verdict);
    verdict
}

#[test]
fn strangers_are_unrelated() {
    let mine = facts(Role::Source, &[1, 2]);
    let replica = facts(Role::Replica, &[1]);
    let mut theirs = replica.clone();
    theirs.relationship = RelationshipId::from_bytes([2; 16]);
    theirs.geometry.grain = GrainSize::DEFAULT;
    theirs.geometry.volumes[0].bytes += 1;
    let verdict = both_ways(&mine, &theirs);
    assert_eq!((verdict.rule, verdict.means), (Rule::Unrelated, Means::Refuse));
    let reasons = [Reason::OtherRelationship, Reason::OtherGrainSize, Reason::OtherVolumes];
    assert_eq!(verdict.reasons, reasons);
    theirs = replica;
    theirs.geometry.volumes[0].alias = "other".into();
    assert_eq!(both_ways(&mine, &theirs).reasons, [Reason::OtherVolumes]);
}

#[test]
fn an_empty_replica_gets_a_full_copy_only_on_request() {
    let verdict = both_ways(&facts(Role::Source, &[1]), &facts(Role::Replica, &[]));
    assert_eq!((verdict.rule, verdict.means), (Rule::NoAncestor, Means::FullCopyOnRequest));
    let named = Overwrite::Named { losers: Losers::Theirs, offered: None };
    assert_eq!((verdict.overwrite, verdict.estimated_grains), (named, Some(1000)));
    assert!(!verdict.starts_by_itself());
}

#[test]
fn a_loading_replica_pulls_what_it_lacks() {
    let mut replica = facts(Role::Replica, &[1]);
    replica.copy.consistent = false;
    replica.copy.missing = MissingGrains { damaged: 3, not_loaded: 40 };
    let mut source = facts(Role::Source, &[1, 2]);
    source.open_grains = 5;
    let verdict = both_ways(&source, &replica);
    assert!(verdict.starts_by_itself());
    assert_eq!((verdict.rule, verdict.estimated_grains), (Rule::Delta, Some(10 + 5 + 3 + 40)));
    let said = [Reason::Inconsistent(Side::Theirs), Reason::Missing(Side::Theirs, 3, 40)];
    assert_eq!(verdict.reasons, said);
    source.layers.clear();
    let verdict = both_ways(&source, &replica);
    assert_eq!((verdict.rule, verdict.means), (Rule::Delta, Means::Compare));
    assert!(!verdict.starts_by_itself(), "a comparison reads everything; it waits for a word");
}

#[test]
fn a_broken_session_is_carried_over() {
    let session = SessionId::from_bytes([3; 16]);
    let source = facts(Role::Source, &[1, 2, 3]);
    let mut replica = facts(Role::Replica, &[1]);
    replica.copy.partial = Some(PartialFacts { session, cut: id(2), remaining: 4, direct: false });
    let verdict = both_ways(&source, &replica);
    assert_eq!(verdict.means, Means::Delta { carries: Some(session) });
    assert_eq!(verdict.estimated_grains, Some(4 + 10));
    assert_eq!(verdict.reasons, [Reason::CarriesOver(session, 4)]);
}

#[test]
fn an_unknown_end_asks_before_it_refuses() {
    let mut source = facts(Role::Source, &[1, 2]);
    source.lineage = chain(&[1, 2], false);
    let mut replica = facts(Role::Replica, &[1]);
    (replica.sequence, replica.open_grains) = (4, 2);
    let position = Position { cut: id(1), sequence: 4 };
    let verdict = both_ways(&source, &replica);
    assert_eq!(verdict.rule, Rule::Ahead);
    let question = Question::OpenLayer { replica: Side::Theirs, position };
    assert_eq!(verdict.question, Some(question));
    source.open_within = Some(OpenWithin { position, within: true });
    assert_eq!(both_ways(&source, &replica).rule, Rule::Delta);
    source.open_within = Some(OpenWithin { position, within: false });
    let verdict = both_ways(&source, &replica);
    assert_eq!((verdict.rule, verdict.question), (Rule::Ahead, None));
    assert!(verdict.reasons.contains(&Reason::Forked(Side::Theirs, position)));
    // An answer about another position does not count.
    let other = Position { sequence: 3, ..position };
    source.open_within = Some(OpenWithin { position: other, within: true });
    assert_eq!(both_ways(&source, &replica).rule, Rule::Ahead);
}

#[test]
fn a_promotion_counts_until_the_other_side_knows_its_cut() {
    let mut promoted = facts(Role::Source, &[1, 2, 3]);
    promoted.promoted = Some(id(2));
    let old = facts(Role::Source, &[1]);
    let verdict = both_ways(&old, &promoted);
    assert_eq!(verdict.rule, Rule::Promoted);
    let rejoin = Overwrite::Named { losers: Losers::Either, offered: Some(Side::Mine) };
    assert_eq!(verdict.overwrite, rejoin);
    assert!(verdict.reasons.contains(&Reason::Tail(Side::Mine, Some(0))), "the unsent tail");
    let knows = facts(Role::Source, &[1, 2]);
    assert_eq!(both_ways(&knows, &promoted).rule, Rule::Diverged);
}

#[test]
fn an_alone_mark_without_writes_does_not_count() {
    let mark = AloneMark { since: id(1), acknowledged: None, unix_ms: 7 };
    let marked = Facts { alone: Some(mark), ..facts(Role::Source, &[1, 2]) };
    assert_eq!(both_ways(&marked, &facts(Role::Source, &[1, 2])).rule, Rule::Diverged);
    let wrote = Facts { open_grains: 1, ..marked.clone() };
    let verdict = both_ways(&wrote, &facts(Role::Source, &[1, 2]));
    assert_eq!(verdict.rule, Rule::IdlePromotion);
    assert!(verdict.reasons.contains(&Reason::Alone(Side::Mine, id(1), 7)));
    // A layer that is gone cannot prove that nothing was written.
    let forgot = Facts { layers: Vec::new(), ..marked };
    assert_eq!(both_ways(&forgot, &facts(Role::Source, &[1])).rule, Rule::IdlePromotion);
}

#[test]
fn rule_3_layers_of_a_replica_make_a_rolled_back_source_a_delta() {
    // The source was restored to cut 2 and started with cut 9; the replica has followed to cut 4.
    let source = facts(Role::Source, &[1, 2, 9]);
    let mut replica = facts(Role::Replica, &[1, 2, 3, 4]);
    let verdict = both_ways(&source, &replica);
    assert_eq!((verdict.rule, verdict.means), (Rule::Ahead, Means::Delta { carries: None }));
    assert_eq!(verdict.estimated_grains, Some(30));
    replica.layers.clear();
    assert_eq!(both_ways(&source, &replica).means, Means::Compare);
}

#[test]
fn rule_7_a_seed_with_its_lineage_meets_a_rolled_back_source() {
    let source = facts(Role::Source, &[1, 9]);
    let seed = facts(Role::Replica, &[1, 2]);
    assert_eq!(both_ways(&source, &seed).rule, Rule::Ahead);
    // With a chain of its own only, all that the layers know would be of no use.
    assert_eq!(both_ways(&source, &facts(Role::Replica, &[2])).rule, Rule::NoAncestor);
}

#[test]
fn hostile_facts_are_refused() {
    let good = facts(Role::Source, &[1, 2]);
    assert_eq!(good.validate(), Ok(()));
    let refused = |change: &dyn Fn(&mut Facts)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(bad.validate().is_err(), "{bad:?}");
        // What is refused still must not bring the rules down.
        both_ways(&good, &bad);
    };
    refused(&|f| f.geometry.volumes.clear());
    refused(&|f| f.open_grains = 1001);
    refused(&|f| f.layers[0].grains = Count(u64::MAX));
    refused(&|f| f.copy.missing.damaged = u64::MAX);
    refused(&|f| f.copy.missing.not_loaded = 1001);
    refused(&|f| f.layers[0].name.names.clear());
    refused(&|f| f.layers = vec![f.layers[0].clone(); Facts::MAX_LAYERS + 1]);
    refused(&|f| f.lineage = crate::Lineage::new());
    refused(&|f| {
        let (session, cut) = (SessionId::from_bytes([0; 16]), id(1));
        f.copy.partial = Some(PartialFacts { session, cut, remaining: 1001, direct: true });
    });
    let long = LayerName::along((0..4096u64).map(|n| crate::CutId::new(n, [9; 10])));
    let long = Layer { name: long.expect("long"), grains: Count(1) };
    refused(&|f| f.layers = vec![long.clone(); 100]);
    let twice = serde_json::to_string(&good)
        .expect("JSON")
        .replace(&format!("\"id\":\"{}\"", id(2)), &format!("\"id\":\"{}\"", id(1)));
    let twice: Facts = serde_json::from_str(&twice).expect("facts");
    assert!(matches!(twice.validate(), Err(Error::Lineage { .. })));
}

#[test]
fn the_hash_depends_on_every_field() {
    let good = facts(Role::Source, &[1, 2]);
    let hash = good.hash().expect("plain data");
    assert_eq!(good.hash(), Ok(hash));
    let position = Position { cut: id(1), sequence: 1 };
    let changes: [&dyn Fn(&mut Facts); 14] = [
        &|f| f.relationship = RelationshipId::from_bytes([9; 16]),
        &|f| f.geometry.volumes[0].bytes += 1,
        &|f| f.role = Role::Replica,
        &|f| f.suspect = true,
        &|f| f.relinquished = true,
        &|f| f.promoted = Some(id(1)),
        &|f| f.alone = Some(AloneMark { since: id(1), acknowledged: None, unix_ms: 1 }),
        &|f| f.lineage = chain(&[1, 2], false),
        &|f| f.sequence = 1,
        &|f| f.layers[0].grains = Count(11),
        &|f| f.open_grains = 1,
        &|f| f.copy.fuzzy_end = Some(id(1)),
        &|f| f.copy.missing.damaged = 1,
        &|f| f.open_within = Some(OpenWithin { position, within: true }),
    ];
    let mut seen = std::collections::BTreeSet::from([hash]);
    for change in changes {
        let mut other = good.clone();
        change(&mut other);
        assert!(seen.insert(other.hash().expect("plain data")), "{other:?}");
    }
}

#[test]
fn rules_are_written_as_the_documents_do() {
    let names = Rule::ALL.map(|rule| rule.to_string());
    let json = serde_json::to_value(Rule::ALL).expect("JSON");
    assert_eq!(json, serde_json::json!(names));
    assert_eq!(names[7], "split-brain");
    assert_eq!(format!("{:>8}|", Rule::Delta), "   delta|");
    let verdict = decide(&facts(Role::Source, &[1, 2]), &facts(Role::Replica, &[1]));
    let text = serde_json::to_string(&verdict).expect("JSON");
    assert_eq!(serde_json::from_str::<Verdict>(&text).expect("a verdict"), verdict);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]

    /// Facts from mangled bytes are refused, or at least bring nothing down.
    #[test]
    fn mangled_facts_do_no_harm(
        flips in proptest::collection::vec((proptest::prelude::any::<usize>(), 0..8u8), 1..6),
    ) {
        let config = bincode::config::standard().with_fixed_int_encoding().with_limit::<65_536>();
        let good = facts(Role::Source, &[1, 2, 3]);
        let mut bytes = bincode::serde::encode_to_vec(&good, config).expect("plain data");
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        if let Ok((bad, _)) = bincode::serde::decode_from_slice::<Facts, _>(&bytes, config) {
            let fine = bad.validate().is_ok();
            let verdict = both_ways(&good, &bad);
            proptest::prop_assert!(!fine || verdict.estimated_grains.unwrap_or(0) <= 1000
                || bad.geometry != good.geometry);
        }
    }
}
