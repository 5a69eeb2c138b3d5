//! Changing roles: promotion, what the old source learns of it, giving way, and home again.

use std::path::Path;
use std::rc::Rc;

use disk::simulated::{Crash, Fault, OpKind, SimMachine};
use grain::attach::Rule;
use grain::{CutId, CutReason, VolumeId};
use replication::protocol;
use replication::replica::{Condition, Replica, ask};
use replication::source::{Change, Source, serve_link};
use replication::state::{Role, StateStore};
use wire::link::{Calm, MemoryPair};

use crate::carry_over::breaks_after;
use crate::oracle::{assert_same, read_volumes};
use crate::rig::{GRAIN, Pair, Session, fill, run, volume_path};

const SIZES: [u64; 2] = [64 * GRAIN, 40 * GRAIN + 100];
const JOURNAL: &str = "/site/journal";

/// A pair in step, with content.
pub async fn in_step(seed: u64) -> (Pair, Rc<Source>, Rc<Replica>) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in 0..20 {
        fill(&source, 0, grain * 3, grain as u8 + 1).await;
        fill(&source, 1, grain * 2, grain as u8 + 101).await;
    }
    pair.seed(&source).await;
    let replica = pair.start_replica().await.unwrap();
    fill(&source, 0, 7, 0xaa).await;
    pair.attach(&source, &replica).await.in_step();
    (pair, source, replica)
}

/// Promotes the replica and starts it as a source.
async fn promote(pair: &Pair, replica: Rc<Replica>) -> Rc<Source> {
    replica.promote(false).await.unwrap();
    drop(replica);
    let promoted = pair.start_source_on(&pair.replica_machine).await;
    let promoted = promoted.expect("a promoted replica starts as a source");
    assert_eq!(promoted.store().with(|s| s.role), Role::Source);
    promoted
}

/// The source gives way and starts as a replica.
pub async fn give_way(pair: &Pair, source: Rc<Source>, common: CutId) -> Rc<Replica> {
    let winner = pair.replica_id.to_string();
    source.give_way(&winner, common, Path::new(JOURNAL)).await.unwrap();
    drop(source);
    pair.start_replica_on(&pair.source_machine).await.expect("a former source starts as a replica")
}

/// Two sources meet: both come to the same rule, which this gives.
pub async fn meet(pair: &Pair, left: &Rc<Source>, right: &Rc<Source>) -> Rule {
    let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
    let sessions = [near_session, far_session].map(tokio::task::spawn_local);
    let mut served = Vec::new();
    for (source, link) in [(left, near), (right, far)] {
        let (source, serve) = (source.clone(), pair.serve.clone());
        let progress: Rc<replication::source::LinkProgress> = Rc::default();
        let shown = progress.clone();
        let task = tokio::task::spawn_local(async move {
            let (connection, inbox) = protocol::open(link);
            serve_link(&source, connection, inbox, &serve, &progress).await
        });
        served.push((task, shown));
    }
    let mut rules = Vec::new();
    for (task, shown) in served {
        let refused = task.await.unwrap().expect_err("two sources do not serve each other");
        let verdict = shown.verdict.borrow().clone().unwrap();
        assert!(refused.to_string().contains(verdict.rule.name()), "{refused}");
        rules.push(verdict.rule);
    }
    sessions.iter().for_each(|session| session.abort());
    assert_eq!(rules[0], rules[1]);
    rules[0]
}

pub fn back(pair: &Pair, source: &Rc<Source>, replica: &Rc<Replica>) -> Session {
    pair.connect_over(pair.link_back(Calm), source, replica)
}

async fn refuses_writes(source: &Rc<Source>) -> bool {
    let data = Change::Data(vec![1; 512].into());
    source.clone().write(VolumeId(0), 0, data, false).await.is_err()
}

#[test]
fn a_promoted_replica_serves_and_the_old_source_stops_before_it_did_anything_alone() {
    run(|| async {
        let (pair, source, replica) = in_step(1).await;
        let common = replica.head().unwrap();
        let before = pair.replica_content().await;
        pair.source_machine.crash_seeded(Crash::PowerCut, 3);
        drop(source);
        let promoted = promote(&pair, replica).await;
        assert_same(&pair.replica_content().await, &before, GRAIN as usize, "promoted");
        let reasons: Vec<_> = promoted
            .store()
            .with(|s| s.lineage.cuts().iter().rev().take(2).map(|c| c.reason).collect());
        assert_eq!(reasons, [CutReason::Start, CutReason::Promote]);
        fill(&promoted, 0, 11, 0x51).await;
        fill(&promoted, 1, 39, 0x52).await;

        let old = pair.start_source().await.unwrap();
        assert_eq!(meet(&pair, &old, &promoted).await, Rule::Promoted);
        assert!(old.is_fenced() && !promoted.is_fenced());
        assert!(refuses_writes(&old).await, "nothing was acknowledged alone: no more writes");
        fill(&promoted, 0, 12, 0x53).await;

        let rejoined = give_way(&pair, old, common).await;
        let ended = back(&pair, &promoted, &rejoined).ended().await;
        ended.in_step();
        // What was written there, and what the old source's power cut made suspected.
        assert!(ended.progress.sent_grains.get() < 64, "{}", ended.progress.sent_grains.get());
        pair.assert_equal().await;
        assert_eq!(rejoined.condition(), Condition::Consistent);
        assert_eq!(rejoined.store().with(|s| s.replica.as_ref().unwrap().loser.clone()), None);
        // From here on it is an ordinary pair.
        fill(&promoted, 1, 3, 0x54).await;
        back(&pair, &promoted, &rejoined).ended().await.in_step();
        pair.assert_equal().await;
        assert_eq!(promoted.store().with(|s| s.promoted), None, "everybody knows");
    });
}

#[test]
fn what_the_old_source_wrote_alone_gives_way_grain_by_grain_and_nothing_else_moves() {
    run(|| async {
        let (pair, source, replica) = in_step(2).await;
        let common = replica.head().unwrap();
        for grain in [1, 2, 30] {
            fill(&source, 0, grain, 0x61).await;
        }
        source.flush().await.unwrap();
        pair.source_machine.crash_seeded(Crash::Kill, 3);
        drop(source);
        let promoted = promote(&pair, replica).await;
        let old = pair.start_source().await.unwrap();
        assert_eq!(meet(&pair, &old, &promoted).await, Rule::IdlePromotion);
        fill(&promoted, 0, 30, 0x71).await;
        fill(&promoted, 0, 31, 0x72).await;
        fill(&old, 0, 3, 0x62).await;
        assert_eq!(meet(&pair, &old, &promoted).await, Rule::SplitBrain);
        assert!(!old.is_fenced(), "a source that acknowledged alone is never stopped");
        let winner = pair.replica_content().await;

        let rejoined = give_way(&pair, old, common).await;
        let loser = rejoined.store().with(|s| s.replica.as_ref().unwrap().loser.clone()).unwrap();
        assert_eq!((loser.common, loser.grains), (common, 4));
        assert_eq!(rejoined.condition(), Condition::Consistent, "at its own last cut, until then");
        let ended = back(&pair, &promoted, &rejoined).ended().await;
        ended.in_step();
        assert_eq!(ended.progress.sent_grains.get(), 5, "1, 2, 3, 30 and 31");
        pair.assert_equal().await;
        let now = read_volumes(&pair.source_machine.context(), 2).await;
        assert_same(&now, &winner, GRAIN as usize, "the winner's");
    });
}

/// A replica that is further behind than the one that was promoted asks for what came after its own cut: the
/// promoted site keeps that cut's name, whoever else acknowledges what.
#[test]
fn a_promoted_site_keeps_the_cut_at_which_a_third_one_stands() {
    run(|| async {
        let (pair, source, replica) = in_step(6).await;
        let behind = replica.head().unwrap();
        source.add_peer("third").await.unwrap();
        source.acknowledged("third", behind).await.unwrap();
        for round in 0..4u8 {
            fill(&source, 0, u64::from(round), 0x20 + round).await;
            pair.attach(&source, &replica).await.in_step();
        }
        let common = replica.head().unwrap();
        assert_ne!(common, behind);
        pair.source_machine.crash_seeded(Crash::Kill, 3);
        drop(source);
        let promoted = promote(&pair, replica).await;
        let old = pair.start_source().await.unwrap();
        let rejoined = give_way(&pair, old, common).await;
        for round in 0..4u8 {
            fill(&promoted, 1, u64::from(round), 0x40 + round).await;
            back(&pair, &promoted, &rejoined).ended().await.in_step();
        }
        assert!(promoted.store().with(|s| s.lineage.contains(behind)), "nobody knows it any more");
        let since = promoted.store().with(|s| {
            let names: Vec<_> = s.layers.closed.iter().map(|c| c.name.clone()).collect();
            grain::lineage::supplying_layers(&s.lineage, behind, &names).map(|used| used.len())
        });
        assert!(since.is_ok(), "what came after it is not known: {since:?}");
    });
}

/// A site that keeps what it gives up: whenever its machine dies, it is a source that gave nothing up, or a
/// replica that has kept all of it.
#[test]
fn what_is_given_up_is_kept_whatever_crashes() {
    let mut seen = [0, 0];
    for after in 0..60 {
        run(|| async {
            let (pair, source, replica) = in_step(5).await;
            let common = replica.head().unwrap();
            for grain in [1, 2, 30] {
                fill(&source, 0, grain, 0x61).await;
            }
            let machine = pair.source_machine.clone();
            let (crashing, at) = (machine.clone(), machine.operations() + after);
            machine.set_fault_hook(move |op| {
                if op.number == at {
                    crashing.crash_seeded(Crash::PowerCut, after);
                }
                Fault::None
            });
            let (winner, dir) = (pair.replica_id.to_string(), Path::new("/aside"));
            drop(source.give_way_keeping(&winner, common, Path::new(JOURNAL), dir).await);
            drop(source);
            machine.clear_fault_hook();
            machine.crash_seeded(Crash::PowerCut, after);
            let ctx = machine.context();
            let store = StateStore::open(&ctx, Path::new("/site")).await.unwrap();
            let gave_way = store.with(|s| s.role) == Role::Replica;
            seen[usize::from(gave_way)] += 1;
            if !gave_way {
                return;
            }
            let files = machine.files("/aside");
            let index =
                files.iter().map(|(path, _)| path).find(|p| p.extension().unwrap() == "json");
            let path = Path::new(index.expect("an index"));
            let index = media::KeptIndex::read(&ctx, path).await.unwrap();
            let mut kept = 0;
            let pieces = index.pieces(&ctx, path, async |piece, bytes| {
                let media::KeptBytes::Whole(bytes) = bytes else { panic!("{piece:?}: {bytes:?}") };
                kept += bytes.iter().filter(|b| **b == 0x61).count() as u64;
                Ok::<_, media::MediaError>(())
            });
            pieces.await.unwrap();
            assert_eq!(kept, 3 * GRAIN);
        });
    }
    assert!(seen.iter().all(|times| *times > 3), "{seen:?}");
}

#[test]
fn the_service_comes_home_and_goes_out_again() {
    run(|| async {
        let (pair, mut at_home, mut away) = in_step(3).await;
        for round in 0..3u8 {
            let common = away.head().unwrap();
            drop(at_home.stop().await);
            let promoted = promote(&pair, away).await;
            fill(&promoted, 0, 20 + u64::from(round), 0x80 + round).await;
            // The old source had stopped in good order: it begins with a start of its own.
            drop(at_home);
            let old = pair.start_source().await.unwrap();
            let follower = give_way(&pair, old, common).await;
            back(&pair, &promoted, &follower).ended().await.in_step();
            pair.assert_equal().await;
            // Home again, the same way.
            let common = follower.head().unwrap();
            promoted.stop().await.unwrap();
            let home_again = {
                follower.promote(false).await.unwrap();
                drop(follower);
                pair.start_source_on(&pair.source_machine).await.unwrap()
            };
            fill(&home_again, 1, 5 + u64::from(round), 0x90 + round).await;
            let old = pair.start_source_on(&pair.replica_machine);
            drop(promoted);
            let old = old.await.unwrap();
            old.give_way(&pair.source_id.to_string(), common, Path::new(JOURNAL)).await.unwrap();
            drop(old);
            away = pair.start_replica().await.unwrap();
            at_home = home_again;
            pair.attach(&at_home, &away).await.in_step();
            pair.assert_equal().await;
        }
    });
}

#[test]
fn a_rejoin_that_breaks_goes_on_without_asking_again() {
    run(|| async {
        let (pair, source, replica) = in_step(4).await;
        let common = replica.head().unwrap();
        for grain in 0..40 {
            fill(&source, 0, grain, 0x61).await;
        }
        let promoted = promote(&pair, replica).await;
        for grain in 20..60 {
            fill(&promoted, 0, grain, 0x71).await;
        }
        let mut rejoined = give_way(&pair, source, common).await;
        let mut breaks = 0;
        loop {
            // Each session breaks later than the one before: first in the attach, then in the sets, then
            // among the grains, at last not at all.
            let link = pair.link_back(breaks_after(4_000 + breaks * 9_000));
            let ended = pair.connect_over(link, &promoted, &rejoined).ended().await;
            if matches!(ended.replica, Some(Ok(_))) {
                break;
            }
            breaks += 1;
            assert!(breaks < 200, "it never comes to its end: {:?}", ended.replica);
            if breaks % 3 == 0 {
                pair.source_machine.crash_seeded(Crash::PowerCut, breaks);
                drop(rejoined);
                rejoined = pair.start_replica_on(&pair.source_machine).await.unwrap();
            }
        }
        assert!(breaks > 5, "{breaks}");
        pair.assert_equal().await;
    });
}

#[test]
fn an_inconsistent_copy_is_promoted_only_on_request_and_names_what_it_lacks() {
    run(|| async {
        let (mut pair, source, replica) = in_step(5).await;
        // A place of the source's disk is bad: the replica goes on without it, as asked.
        fill(&source, 0, 9, 0x61).await;
        fill(&source, 0, 10, 0x62).await;
        pair.follow.accept_unreadable = true;
        pair.oracle.fault(|op| {
            let bad = 9 * GRAIN..10 * GRAIN;
            let hit = op.offset < bad.end && op.offset + op.len > bad.start;
            match op.kind {
                OpKind::Read | OpKind::ReadNow if hit && *op.path == *volume_path(0) => Fault::Io,
                _ => Fault::None,
            }
        });
        let ended = pair.attach(&source, &replica).await;
        assert!(matches!(ended.replica, Some(Err(replication::Error::Unreadable(_)))), "{ended:?}");
        assert_eq!(replica.condition(), Condition::Inconsistent);
        pair.oracle.calm();
        let common = replica.head().unwrap();
        let refused = replica.promote(false).await.expect_err("no point in time");
        assert!(refused.to_string().contains("`inconsistent`"), "{refused}");
        replica.promote(true).await.unwrap();
        drop(replica);
        let promoted = pair.start_source_on(&pair.replica_machine).await.unwrap();
        let old = give_way(&pair, source, common).await;
        let ended = back(&pair, &promoted, &old).ended().await;
        ended.in_step();
        assert_eq!(ended.progress.sent_grains.get(), 1, "what may be wrong is told");
        pair.assert_equal().await;
    });
}

#[test]
fn a_connected_or_empty_replica_is_not_promoted() {
    run(|| async {
        let (mut pair, source, replica) = in_step(6).await;
        pair.follow.once = false;
        let session = pair.connect(&source, &replica);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        let refused = replica.promote(false).await.expect_err("connected");
        assert!(refused.to_string().contains("connected"), "{refused}");
        session.cable.cut();
        session.ended().await;
        // It goes on as the replica that it is.
        pair.follow.once = true;
        fill(&source, 0, 1, 1).await;
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn a_replica_of_a_replica_waits() {
    run(|| async {
        let (pair, source, replica) = in_step(7).await;
        let common = replica.head().unwrap();
        let other = give_way(&pair, source, common).await;
        let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
        let sessions = [near_session, far_session].map(tokio::task::spawn_local);
        let asking = tokio::task::spawn_local(async move {
            let (connection, inbox) = protocol::open(near);
            ask(&other, connection, inbox).await
        });
        let (connection, inbox) = protocol::open(far);
        let verdict = ask(&replica, connection, inbox).await.unwrap();
        assert_eq!(verdict.rule, Rule::NoSource);
        assert_eq!(asking.await.unwrap().unwrap().rule, Rule::NoSource);
        sessions.iter().for_each(|session| session.abort());
    });
}

/// Which role the site of a crashed machine has, and that it starts in it.
pub async fn starts(pair: &Pair, machine: &SimMachine) -> Role {
    let store = StateStore::open(&machine.context(), Path::new("/site")).await.unwrap();
    let role = store.with(|s| s.role);
    match role {
        Role::Source => drop(pair.start_source_on(machine).await.expect("it starts")),
        Role::Replica => drop(pair.start_replica_on(machine).await.expect("it starts")),
    }
    role
}

/// At every operation of a promotion the machine loses power: it is the one or the other, holds the same,
/// and comes into step with the other site either way.
#[test]
fn a_promotion_is_done_or_not_whatever_crashes() {
    run(|| async {
        let (pair, source, replica) = in_step(8).await;
        let common = replica.head().unwrap();
        let content = pair.replica_content().await;
        drop(replica);
        let before = pair.replica_machine.snapshot();
        drop(source);
        let mut roles = Vec::new();
        for operation in 0.. {
            pair.replica_machine.restore(&before);
            let replica = pair.start_replica().await.unwrap();
            let (machine, from) = (pair.replica_machine.clone(), pair.replica_machine.operations());
            pair.replica_machine.set_fault_hook(move |op| {
                if op.number == from + operation {
                    machine.crash_seeded(Crash::PowerCut, operation);
                }
                Fault::None
            });
            let done = replica.promote(false).await.is_ok();
            pair.replica_machine.clear_fault_hook();
            drop(replica);
            if done {
                break;
            }
            roles.push(starts(&pair, &pair.replica_machine.clone()).await);
            assert_same(&pair.replica_content().await, &content, GRAIN as usize, "the copy");
            if roles.last() == Some(&Role::Source) {
                let promoted = pair.start_source_on(&pair.replica_machine).await.unwrap();
                assert!(promoted.store().with(|s| s.lineage.contains(common)));
                assert_eq!(promoted.dirty().len(), 0, "nothing counts as written");
            }
        }
        assert!(roles.contains(&Role::Replica), "{roles:?}");
        assert!(roles.len() > 5, "{roles:?}");
        let turned = roles.iter().position(|role| *role == Role::Source).unwrap_or(roles.len());
        assert!(roles[turned..].iter().all(|role| *role == Role::Source), "{roles:?}");
    });
}

/// The same for a source that gives way: every write that it acknowledged stands in a layer afterwards.
#[test]
fn giving_way_is_done_or_not_whatever_crashes() {
    run(|| async {
        let (pair, source, replica) = in_step(9).await;
        let common = replica.head().unwrap();
        let promoted = promote(&pair, replica).await;
        for grain in [4, 5, 50] {
            fill(&source, 0, grain, 0x61).await;
        }
        source.flush().await.unwrap();
        fill(&promoted, 0, 51, 0x71).await;
        source.stop().await.unwrap();
        drop(source);
        let before = pair.source_machine.snapshot();
        let mut roles = Vec::new();
        for operation in 0.. {
            pair.source_machine.restore(&before);
            let source = pair.start_source_on(&pair.source_machine).await.unwrap();
            let (machine, from) = (pair.source_machine.clone(), pair.source_machine.operations());
            pair.source_machine.set_fault_hook(move |op| {
                if op.number == from + operation {
                    machine.crash_seeded(Crash::PowerCut, operation);
                }
                Fault::None
            });
            let winner = pair.replica_id.to_string();
            let done = source.give_way(&winner, common, Path::new(JOURNAL)).await.is_ok();
            pair.source_machine.clear_fault_hook();
            drop(source);
            if done {
                break;
            }
            let role = starts(&pair, &pair.source_machine.clone()).await;
            roles.push(role);
            let rejoined = match role {
                Role::Source => {
                    let source = pair.start_source_on(&pair.source_machine).await.unwrap();
                    give_way(&pair, source, common).await
                }
                Role::Replica => pair.start_replica_on(&pair.source_machine).await.unwrap(),
            };
            back(&pair, &promoted, &rejoined).ended().await.in_step();
            pair.assert_equal().await;
        }
        assert!(roles.len() > 5, "{roles:?}");
        assert!(roles.contains(&Role::Source), "{roles:?}");
    });
}
