//! Faults that replication in the field has had, each as a history of three sites.
//!
//! All pairs are judged after every step, and every attach that is carried out is followed by a second one that
//! must have nothing to do (`oracle.rs`); what is looked at here is the verdict that the fault would have spoilt.

use grain::attach::{Facts, Means, Overwrite, Reason, Rule, Side, Verdict, decide};

use super::site::{SITES, Site};
use super::space::Step::{self, *};
use super::space::{Keep, Off, Space};
use super::steps::verdict;
use super::walk::Walk;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// Layers are kept as long as a peer needs them, and no longer.
const TIGHT: Space =
    Space { keep: Keep::WhatIsNeeded, streams: true, writes: 4, cuts: 12, ..Space::CYCLES };
const ROOMY: Space = Space { keep: Keep::AllApart, ..TIGHT };

fn after(space: Space, steps: &[Step]) -> [Site; SITES] {
    Walk::play(space, steps).unwrap_or_else(|what| panic!("{what}"))
}

fn attach(source: usize, replica: usize) -> Step {
    Attach { source, replica, heard: true }
}

/// The replica commits, and the source never hears of it.
fn unheard(source: usize, replica: usize) -> Step {
    Attach { source, replica, heard: false }
}

/// Power is lost: the base holds what was synced.
fn power_lost(site: usize) -> Step {
    Restart { site, loses: true }
}

fn ask(sites: &[Site; SITES], mine: usize, theirs: usize) -> Verdict {
    verdict(&sites[mine], &sites[theirs], Off::Nothing)
}

/// The delta of this many grains begins without anybody's word.
fn by_itself(verdict: &Verdict, grains: u64) {
    assert!(verdict.starts_by_itself(), "{verdict:?}");
    assert_eq!((verdict.rule, verdict.estimated_grains), (Rule::Delta, Some(grains)));
}

/// Nothing moves before the operator has named the loser; then the delta does.
fn named(verdict: &Verdict, rule: Rule) {
    assert!(matches!(verdict.overwrite, Overwrite::Named { .. }), "{verdict:?}");
    assert_eq!((verdict.rule, verdict.means), (rule, Means::Delta { carries: None }));
}

fn facts(site: &Site, peer: usize) -> Facts {
    site.facts(peer, &site.layers)
}

/// Both wait for the other's word that the resync is over, and begin it again for ever.
#[test]
fn a_missed_end_of_a_resync() {
    let mut steps = Vec::new();
    for _ in 0..3 {
        steps.extend([Write(A), unheard(A, B)]);
        let sites = after(TIGHT, &steps);
        let verdict = ask(&sites, A, B);
        assert_eq!((verdict.rule, verdict.means), (Rule::InStep, Means::Nothing));
        let again = Walk::play(TIGHT, &[&steps[..], &[attach(A, B)]].concat());
        assert!(again.is_err_and(|what| what.starts_with("not possible")), "nothing to do");
    }
    steps.push(Write(A));
    by_itself(&ask(&after(TIGHT, &steps), A, B), 1);
}

/// The same generation on both sides, and other data: taken for equal.
#[test]
fn an_equal_generation_with_different_data() {
    // Equal positions inside an epoch are not believed: what was written in it travels once more.
    let steps = [Write(A), attach(A, B), Write(A), Receive(B)];
    let sites = after(ROOMY, &steps);
    assert_eq!(facts(&sites[A], B).position(), facts(&sites[B], A).position());
    by_itself(&ask(&sites, A, B), 2);
    // A machine that was put back, or that lost power, never goes on in the same epoch.
    let steps = [Write(A), attach(A, B), Snapshot(A), Write(A), Receive(B), PutBack, Write(A)];
    let sites = after(ROOMY, &steps);
    assert_ne!(facts(&sites[A], B).position(), facts(&sites[B], A).position());
    let verdict = ask(&sites, A, B);
    named(&verdict, Rule::Ahead);
    assert!(verdict.reasons.iter().any(|why| matches!(why, Reason::Forked(Side::Theirs, _))));
    // Two that were promoted at the same cut and wrote as much are not of the same generation.
    let sites = after(ROOMY, &[Promote(B), Promote(C), Write(B), Write(C)]);
    named(&ask(&sites, B, C), Rule::Diverged);
}

/// Generations are equal, so the bits are taken for stale, and are cleared.
#[test]
fn bits_dropped_under_equal_generations() {
    let steps = [Write(A), attach(A, B), attach(A, C), Write(A)];
    let sites = after(TIGHT, &steps);
    assert_eq!(sites[A].head(), sites[B].head());
    by_itself(&ask(&sites, A, B), 1);
    // Nor does the acknowledgement of one peer clear what another one lacks.
    let sites = after(TIGHT, &[&steps[..], &[attach(A, C), Write(A), attach(A, C)]].concat());
    by_itself(&ask(&sites, A, B), 2);
    // Nor a start after an unclean stop.
    let sites = after(TIGHT, &[&steps[..], &[power_lost(A)]].concat());
    by_itself(&ask(&sites, A, B), 2);
}

/// One side changes between telling its generation and acting on the answer.
#[test]
fn a_generation_changed_during_the_handshake() {
    let before = [Write(A), attach(A, B), attach(A, C), Write(A)];
    let told = after(ROOMY, &before);
    by_itself(&ask(&told, A, B), 1);
    let hash = |sites: &[Site; SITES], site: usize| {
        facts(&sites[site], if site == A { B } else { A }).hash().expect("plain data")
    };
    // Each side echoes the hash of what it heard: nothing that a rule looks at changes unnoticed.
    let restart = Restart { site: A, loses: false };
    let changes =
        [Write(A), Cut(A), restart, GiveWay { site: A, to: C }, attach(A, C), attach(A, B)];
    for (step, site) in changes.map(|step| (step, A)).into_iter().chain([
        (Receive(B), B),
        (Promote(B), B),
        (attach(A, B), B),
    ]) {
        let now = after(ROOMY, &[&before[..], &[step]].concat());
        assert_ne!(hash(&now, site), hash(&told, site), "{step:?}");
    }
    // Decided anew, it is another verdict.
    let now = after(ROOMY, &[&before[..], &[Promote(B)]].concat());
    assert!(!ask(&now, A, B).starts_by_itself());
    assert!(decide(&facts(&now[A], B), &facts(&told[B], A)).starts_by_itself(), "with stale facts");
}

/// A site that missed writes is promoted before it has met the one that has them.
#[test]
fn a_stale_node_promoted_before_reconciling() {
    let stale = [Write(A), attach(A, C), Promote(B)];
    let sites = after(ROOMY, &stale);
    let verdict = ask(&sites, A, B);
    named(&verdict, Rule::IdlePromotion);
    assert!(verdict.reasons.contains(&Reason::Tail(Side::Mine, Some(1))), "what would be lost");
    let offered =
        Overwrite::Named { losers: grain::attach::Losers::Either, offered: Some(Side::Theirs) };
    assert_eq!(verdict.overwrite, offered, "the stale one is offered as the loser");
    named(&ask(&sites, C, B), Rule::Ahead);
    // Nor is the other way round safe once the stale one has written.
    let sites = after(ROOMY, &[&stale[..], &[Write(B)]].concat());
    named(&ask(&sites, A, B), Rule::SplitBrain);
    // One that gave way, and is promoted before it has taken anything, still has its own.
    let back = [GiveWay { site: A, to: B }, Promote(A)];
    let sites = after(ROOMY, &[&stale[..], &back].concat());
    assert!(matches!(ask(&sites, A, B).overwrite, Overwrite::Named { .. }));
    by_itself(&ask(&sites, A, C), 0);
}

/// Each break costs a little more, until everything is copied, or something is forgotten.
#[test]
fn several_cut_links_in_a_row() {
    let mut steps = vec![Write(A), attach(A, B)];
    for breaks in 1..=3 {
        steps.extend([Write(A), Receive(B), Write(A), LinkLost(B)]);
        let sites = after(TIGHT, &steps);
        // Of what came since the last commit, the one that arrived counts on both sides.
        by_itself(&ask(&sites, A, B), 3);
        by_itself(&ask(&sites, A, C), 1 + 2 * breaks);
        steps.push(attach(A, B));
    }
    // And where the word of each commit is lost as well, so that no stream begins.
    for missed in 1..=3 {
        steps.extend([Cut(A), Write(A)]);
        by_itself(&ask(&after(TIGHT, &steps), A, B), 1);
        by_itself(&ask(&after(TIGHT, &steps), A, C), 7 + missed);
        steps.push(unheard(A, B));
    }
    let sites = after(TIGHT, &[&steps[..], &[attach(A, C)]].concat());
    assert!(sites.iter().all(|site| site.truth.content == sites[A].truth.content));
}

/// Both lose power: neither knows what the other has left.
#[test]
fn power_loss_of_both() {
    // The source has lost from its base what it streamed; its layers still say where.
    let steps = [Write(A), attach(A, B), Write(A), Receive(B), power_lost(A)];
    let sites = after(ROOMY, &steps);
    assert_ne!(sites[A].truth.content, sites[B].truth.content);
    assert!(ask(&sites, A, B).starts_by_itself());
    // Two sources.
    let steps = [Promote(B), Write(A), Write(B), Cut(A), Write(A), power_lost(A), power_lost(B)];
    let sites = after(ROOMY, &steps);
    named(&ask(&sites, A, B), Rule::SplitBrain);
    for [winner, loser] in [[A, B], [B, A]] {
        let ends = [GiveWay { site: loser, to: winner }, attach(winner, loser), power_lost(winner)];
        let sites = after(ROOMY, &[&steps[..], &ends].concat());
        assert!(ask(&sites, winner, loser).starts_by_itself());
    }
}

/// The replica is an older self: it said once that it had more.
#[test]
fn a_replica_put_back() {
    let within =
        [Write(A), attach(A, B), Write(A), Receive(B), Snapshot(B), Write(A), Receive(B), PutBack];
    by_itself(&ask(&after(TIGHT, &within), A, B), 3);
    // To before the last cut: the delta begins where it really stands, as long as the source has its name.
    let before = [Snapshot(B), Write(A), attach(A, B), Write(A), attach(A, B), PutBack];
    by_itself(&ask(&after(ROOMY, &before), A, B), 2);
    let merged = Space { keep: Keep::AllMerged, ..ROOMY };
    let before = [&[Write(A), attach(A, B)][..], &before].concat();
    named(&ask(&after(merged, &before), A, B), Rule::Ahead);
}

/// The source is an older self: it would take its replicas back.
#[test]
fn a_source_put_back() {
    let ends = [attach(A, B), attach(A, C)];
    let within = [Write(A), attach(A, B), Snapshot(A), Write(A), Receive(B), PutBack];
    let sites = after(ROOMY, &within);
    named(&ask(&sites, A, B), Rule::Ahead);
    by_itself(&ask(&sites, A, C), 1);
    after(ROOMY, &[&within[..], &ends].concat());
    let before = [Snapshot(A), Write(A), attach(A, B), Write(A), attach(A, C), PutBack, Write(A)];
    let sites = after(ROOMY, &before);
    for replica in [B, C] {
        let verdict = ask(&sites, A, replica);
        named(&verdict, Rule::Ahead);
        assert!(
            verdict.reasons.iter().any(|why| matches!(why, Reason::UnknownCut(Side::Theirs, _)))
        );
    }
    // The replicas' layers say what the image never knew.
    after(ROOMY, &[&before[..], &ends].concat());
}

/// Older bytes come back with a newer generation, and the others keep the newer bytes.
#[test]
fn a_promotion_at_an_earlier_point_and_rejoin() {
    let earlier = Space { earlier: true, ..ROOMY };
    let back = [Write(A), attach(A, B), Write(A), attach(A, B), attach(A, C), PromoteAt(B, 1)];
    let sites = after(earlier, &back);
    assert_eq!(sites[B].truth.content.count_ones(), 1, "the second write is gone there");
    named(&ask(&sites, A, B), Rule::Promoted);
    by_itself(&ask(&sites, B, C), 1);
    let rejoin = [Write(A), GiveWay { site: A, to: B }, attach(B, A), attach(B, C)];
    let sites = after(earlier, &[&back[..], &rejoin].concat());
    assert!(sites.iter().all(|site| site.truth.content == sites[B].truth.content));
}

/// After a failover the third site is taken back in silence, or copied as a whole.
#[test]
fn a_third_site_further_or_less_far_than_the_promoted_one() {
    // By cuts.
    let further = after(ROOMY, &[Write(A), attach(A, C), Promote(B)]);
    named(&ask(&further, B, C), Rule::Ahead);
    let less = after(ROOMY, &[Write(A), attach(A, B), Promote(B)]);
    by_itself(&ask(&less, B, C), 1);
    // Inside an epoch.
    let both = [Write(A), attach(A, B), attach(A, C), Write(A)];
    let further = after(ROOMY, &[&both[..], &[Receive(C), Promote(B)]].concat());
    let verdict = ask(&further, B, C);
    named(&verdict, Rule::Ahead);
    assert!(
        verdict.reasons.iter().any(|why| matches!(why, Reason::SequenceBeyond(..))),
        "{verdict:?}"
    );
    let less = after(ROOMY, &[&both[..], &[Receive(B), Promote(B), Write(B)]].concat());
    by_itself(&ask(&less, B, C), 2);
    // Merged layers and forgotten names leave the one furthest behind its delta.
    let merged = Space { keep: Keep::AllMerged, ..ROOMY };
    let steps =
        [Write(A), attach(A, B), attach(A, C), Write(A), attach(A, B), Write(A), attach(A, B)];
    let away = [GiveWay { site: A, to: B }, Promote(B), Write(B), attach(B, A)];
    by_itself(&ask(&after(merged, &[&steps[..], &away].concat()), B, C), 3);
}
