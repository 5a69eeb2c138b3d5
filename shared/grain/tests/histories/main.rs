//! Random histories over the real lineage and attach functions.
//!
//! Two or three sites hold three grains. Histories mix writes, syncs, cuts, streams, power cuts, lost
//! links, machine snapshots and their rollback, dumps (also fuzzy), loads, broken and direct catch-ups,
//! promotions (also at an earlier point), merges and drops of layers. What a site owes another is always
//! asked from the crate's functions; after every step the checks of `check.rs` run. And since tests
//! that cannot fail prove nothing, rules are switched off in turn, and the checks must notice. Two rules
//! lose nothing when they are off, but make a delta a comparison: that a replica keeps its layers, and
//! that a seed takes over its lineage. Those stand as single histories in `attach/tests`.

mod check;
mod moves;
mod operations;
mod site;
mod world;

use world::{Off, Violation, World};

/// Runs histories until one breaks a check: the seed and what it broke.
fn search(off: Off, sites: usize, operations: usize, histories: u64) -> Option<(u64, Violation)> {
    (0..histories).find_map(|seed| {
        let mut world = World::new(seed, sites, off);
        world.run(operations).err().map(|violation| (seed, violation))
    })
}

fn holds(sites: usize, operations: usize, histories: u64) {
    if let Some((seed, violation)) = search(Off::Nothing, sites, operations, histories) {
        panic!("seed {seed}: {}\n{}", violation.what, violation.log.join("\n"));
    }
}

#[test]
fn the_rules_hold_between_two_sites() {
    holds(2, 24, 4_000);
}

#[test]
fn the_rules_hold_between_three_sites() {
    holds(3, 30, 4_000);
}

/// Without the rule some history breaks one of the checks named.
fn is_needed(off: Off, sites: usize, broken: &[&str]) {
    let found = search(off, sites, 30, 200_000);
    let (seed, violation) = found.unwrap_or_else(|| panic!("nothing breaks without {off:?}"));
    let named = broken.iter().any(|check| violation.what.starts_with(check));
    assert!(named, "seed {seed} breaks another check: {}", violation.what);
}

#[test]
fn rule_1_layers_are_named_by_both_ends() {
    is_needed(Off::BothEnds, 2, &["I1"]);
}

#[test]
fn rule_3_a_commit_records_the_whole_union() {
    is_needed(Off::UnionInCommit, 3, &["I1"]);
}

#[test]
fn rule_4_a_source_keeps_what_a_peer_lacks() {
    is_needed(Off::DropFloor, 2, &["I5"]);
}

#[test]
fn rule_5_published_cuts_are_not_merged_away() {
    is_needed(Off::PublishedHeld, 2, &["I5"]);
}

#[test]
fn rule_6_an_unclean_start_takes_up_what_was_not_synced() {
    is_needed(Off::UncleanUnion, 2, &["I1"]);
}

#[test]
fn rule_7_a_fuzzy_seed_waits_for_its_end() {
    is_needed(Off::FuzzyEnd, 2, &["I1"]);
}

#[test]
fn rule_8_membership_looks_at_sequences() {
    is_needed(Off::Sequences, 2, &["I3"]);
}

#[test]
fn rule_8_membership_compares_where_the_end_is_unknown() {
    is_needed(Off::OpenLayers, 2, &["I3"]);
}

#[test]
fn rule_9_a_broken_session_is_carried_over_by_its_cut() {
    is_needed(Off::CarryByCut, 2, &["I1"]);
}

#[test]
fn rule_10_a_direct_catch_up_is_recorded_first() {
    is_needed(Off::DirectRecorded, 2, &["I1"]);
}

#[test]
fn rule_11_a_loser_syncs_before_it_follows() {
    is_needed(Off::LoserSyncs, 2, &["I1", "I2"]);
}
