//! The attach between three sites, in all small histories.
//!
//! A source and two others write, cut, attach to each other, are promoted, give way, stop unclean and are put
//! back to older images, in every order up to a number of steps and up to four cuts in a chain. After every
//! step each two of the three are asked by [`grain::attach::decide`], from either side, and an oracle that
//! knows what is really at each of them judges the verdict (`oracle.rs`): a delta covers what differs, whoever
//! wins; nothing is taken back without the operator's word; a refusal and a comparison have a reason; after an
//! attach a second one has nothing to do; and attaches that start by themselves come to an end.
//!
//! Pairs alone stand in `../attach_table`, deeper histories drawn by chance in `../histories`. What was walked
//! and what came of it is counted in `outcomes.txt`, so that a change of behaviour shows in review. The numbers
//! of steps are those that take some seconds together, one more takes four to six times as long: chains of four
//! cuts are reached in every space, but not each of their histories. And since tests that cannot fail prove
//! nothing, rules are switched off in turn, and the oracle must notice.
//!
//! Faults of this kind that are known from the field stand in `field_bugs.rs`, by name.

mod field_bugs;
mod known;
mod oracle;
mod site;
mod space;
mod steps;
mod walk;

use oracle::{Layers, Outcome, Third};
use space::{Beginning, Keep, Off, Space};
use walk::{Walk, Walked};

use grain::attach::Rule;

const CYCLES: Space = Space::CYCLES;
/// The word of a commit may be lost, layers are merged, names forgotten.
const MERGED: Space = Space { steps: 7, keep: Keep::AllMerged, words_lost: true, ..CYCLES };
const NEEDED: Space = Space { keep: Keep::WhatIsNeeded, ..MERGED };
const STREAMS: Space = Space { steps: 7, streams: true, writes: 2, ..CYCLES };
const DISASTERS: Space = Space { steps: 6, disasters: true, earlier: true, ..CYCLES };
const EMPTY: Space = Space { steps: 6, third: Beginning::Empty, ..CYCLES };
const STRANGER: Space = Space { steps: 6, third: Beginning::Stranger, ..CYCLES };
/// All of it together, in fewer steps.
const EVERYTHING: Space = Space {
    steps: 5,
    words_lost: true,
    streams: true,
    writes: 2,
    keep: Keep::AllMerged,
    ..DISASTERS
};

/// Walks a space: nothing is wrong, and it comes out as committed.
fn holds(name: &str, space: Space) -> Walked {
    let walked = Walk::all(space).unwrap_or_else(|what| panic!("{name}: {what}"));
    let text = format!("{name}, {} steps: {walked}\n", space.steps);
    let committed = concat!(include_str!("outcomes.txt"), "\n").contains(&text);
    assert!(committed, "a part of tests/attach_triples/outcomes.txt should be:\n{text}");
    for third in walked.thirds.keys() {
        assert!(
            matches!(
                third,
                Third::LessFar(Rule::Delta | Rule::Ahead) | Third::Further(Rule::Ahead)
            ),
            "{third:?}"
        );
    }
    walked
}

/// Where no name is forgotten and no layer dropped, every delta is known, and who is less far gets it.
fn knows_everything(walked: &Walked) {
    for outcome in walked.outcomes.keys() {
        let known = matches!(outcome, Outcome::Rule(_, Layers::Known) | Outcome::Mends);
        assert!(known, "{outcome:?}");
    }
    assert!(!walked.thirds.contains_key(&Third::LessFar(Rule::Ahead)));
}

#[test]
fn cycles() {
    knows_everything(&holds("cycles", CYCLES));
}

#[test]
fn streams() {
    knows_everything(&holds("streams", STREAMS));
}

#[test]
fn disasters() {
    let walked = holds("disasters", DISASTERS);
    knows_everything(&walked);
    assert!(walked.outcomes.contains_key(&Outcome::Mends), "no power cut took what a replica has");
}

/// Layers that are merged are still there: no comparison because one is gone.
#[test]
fn layers_merged() {
    let walked = holds("merged", MERGED);
    for outcome in walked.outcomes.keys() {
        let there = !matches!(outcome, Outcome::Rule(_, Layers::Gone) | Outcome::AllForgotten);
        assert!(there, "{outcome:?}");
    }
}

#[test]
fn layers_dropped() {
    holds("needed", NEEDED);
}

#[test]
fn an_empty_third_site() {
    holds("empty", EMPTY);
}

#[test]
fn a_stranger_as_third_site() {
    holds("stranger", STRANGER);
}

#[test]
fn everything_together() {
    holds("everything", EVERYTHING);
}

/// Without the rule the oracle finds this.
fn is_needed(off: Off, space: Space, found: &str) {
    let Err(what) = Walk::all(Space { off, ..space }) else {
        panic!("nothing is wrong without {off:?}");
    };
    assert!(what.starts_with(found), "{what}");
}

#[test]
fn rule_1_layers_are_named_by_both_ends() {
    is_needed(Off::BothEnds, EMPTY, "the delta misses");
}

#[test]
fn rule_3_a_commit_records_the_whole_union() {
    is_needed(Off::UnionInCommit, STREAMS, "the delta misses");
}

#[test]
fn rule_5_a_promoted_site_keeps_the_cut_of_the_one_furthest_behind() {
    is_needed(Off::Anchor, MERGED, "the one furthest behind is refused");
}

#[test]
fn rule_6_an_unclean_start_takes_up_what_was_not_synced() {
    is_needed(Off::UncleanUnion, Space { earlier: false, ..DISASTERS }, "the delta misses");
}

#[test]
fn rule_8_membership_looks_at_sequences() {
    is_needed(Off::Sequences, STREAMS, "the replica is taken back without a word");
}

#[test]
fn rule_12_a_start_makes_a_cut() {
    is_needed(Off::StartCut, Space { earlier: false, ..DISASTERS }, "in step, and different");
}
