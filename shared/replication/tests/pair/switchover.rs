//! Switchover: one record decides, at every instant there is at most one source, and no write is lost.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault};
use grain::VolumeId;
use replication::replica::{FollowEnd, Replica};
use replication::source::{Change, Source};
use replication::state::{Role, StateStore};

use crate::carry_over::breaks_after;
use crate::rig::{Ended, GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [64 * GRAIN, 40 * GRAIN + 100];
const JOURNAL: &str = "/site/journal";
const LIMIT: Duration = Duration::from_secs(30);

/// A pair in step, whose replica goes on following.
async fn following(seed: u64) -> (Pair, Rc<Source>, Rc<Replica>) {
    let mut pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in 0..20 {
        fill(&source, 0, grain * 3, grain as u8 + 1).await;
    }
    pair.seed(&source).await;
    let replica = pair.start_replica().await.unwrap();
    pair.attach(&source, &replica).await.in_step();
    pair.follow.once = false;
    (pair, source, replica)
}

async fn hand_over(pair: &Pair, source: &Rc<Source>) -> replication::Result<()> {
    source.switchover(&pair.replica_id.to_string(), LIMIT, Path::new(JOURNAL)).await
}

async fn role_on_disk(machine: &disk::simulated::SimMachine) -> Role {
    let store = StateStore::open(&machine.context(), Path::new("/site")).await.unwrap();
    store.with(|s| s.role)
}

fn relinquished(ended: &Ended) -> bool {
    matches!(ended.replica, Some(Ok(FollowEnd::Relinquished(_))))
}

/// The replica takes the role over, and the old source follows it.
async fn roles_change(pair: &mut Pair, source: Rc<Source>, replica: Rc<Replica>) {
    replica.promote(false).await.unwrap();
    drop((source, replica));
    let promoted = pair.start_source_on(&pair.replica_machine).await.unwrap();
    let follower = pair.start_replica_on(&pair.source_machine).await.unwrap();
    pair.follow.once = true;
    fill(&promoted, 1, 7, 0x77).await;
    let link = pair.link_back(wire::link::Calm);
    let ended = pair.connect_over(link, &promoted, &follower).ended().await;
    ended.in_step();
    assert_eq!(ended.progress.sent_grains.get(), 1, "nothing travels twice");
    pair.assert_equal().await;
}

#[test]
fn the_role_goes_over_with_everything_that_was_acknowledged() {
    run(|| async {
        let (mut pair, source, replica) = following(1).await;
        let session = pair.connect(&source, &replica);
        tokio::time::sleep(Duration::from_secs(3)).await;
        // A client that writes all the time, until it is refused.
        let acknowledged = Rc::new(Cell::new(0u8));
        let (writer, count) = (source.clone(), acknowledged.clone());
        let client = tokio::task::spawn_local(async move {
            for value in 1..=250u8 {
                let data = Change::Data(vec![value; 512].into());
                if writer.clone().write(VolumeId(0), 5 * GRAIN, data, false).await.is_err() {
                    return;
                }
                count.set(value);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        hand_over(&pair, &source).await.unwrap();
        client.await.unwrap();
        assert!(acknowledged.get() > 5 && acknowledged.get() < 250, "{acknowledged:?}");
        let ended = session.ended().await;
        assert!(relinquished(&ended), "{ended:?}");
        assert_eq!(role_on_disk(&pair.source_machine).await, Role::Replica);
        roles_change(&mut pair, source, replica).await;
        let last = pair.replica_content().await[0][5 * GRAIN as usize];
        assert_eq!(last, acknowledged.get(), "the last write that was acknowledged");
    });
}

#[test]
fn without_the_replica_nothing_changes_and_writes_go_on() {
    run(|| async {
        let (pair, source, _replica) = following(2).await;
        let waiting = {
            let source = source.clone();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let begun = tokio::time::Instant::now();
                fill(&source, 0, 3, 0x33).await;
                begun.elapsed()
            })
        };
        let refused = hand_over(&pair, &source).await.expect_err("nobody is there");
        assert!(refused.to_string().contains("roles are as before"), "{refused}");
        let waited = waiting.await.unwrap();
        assert!(waited <= LIMIT, "no write waits longer than stated: {waited:?}");
        assert_eq!(role_on_disk(&pair.source_machine).await, Role::Source);
        fill(&source, 0, 4, 0x44).await;
    });
}

/// The link breaks after every so many bytes. Either the old roles hold, or the new ones do, and the replica
/// that did not hear it hears it at the next attach.
#[test]
fn a_link_that_breaks_anywhere_leaves_one_source() {
    run(|| async {
        let mut outcomes = [0; 3];
        for bytes in (0..150u64).map(|n| 1_000 + n * 97) {
            let (mut pair, source, replica) = following(3).await;
            let session = pair.connect_through(&source, &replica, breaks_after(bytes));
            tokio::time::sleep(Duration::from_millis(200)).await;
            fill(&source, 0, 9, 0x99).await;
            let handed = hand_over(&pair, &source).await;
            let ended = session.ended().await;
            let role = role_on_disk(&pair.source_machine).await;
            assert_eq!(handed.is_ok(), role == Role::Replica, "{handed:?}");
            match (role, relinquished(&ended)) {
                (Role::Source, true) => panic!("two sources"),
                (Role::Source, false) => {
                    outcomes[0] += 1;
                    fill(&source, 0, 10, 0xaa).await;
                    pair.follow.once = true;
                    pair.attach(&source, &replica).await.in_step();
                    pair.assert_equal().await;
                }
                (Role::Replica, true) => {
                    outcomes[1] += 1;
                    roles_change(&mut pair, source, replica).await;
                }
                (Role::Replica, false) => {
                    outcomes[2] += 1;
                    // Both are replicas now; the word is in the facts.
                    drop(source);
                    let old = pair.start_replica_on(&pair.source_machine).await.unwrap();
                    let heard = both_follow(&pair, &old, &replica).await;
                    assert!(heard, "the replica learns that the role is its own");
                    let left = replica.promote(false).await;
                    left.unwrap();
                    drop((old, replica));
                    let promoted = pair.start_source_on(&pair.replica_machine).await.unwrap();
                    let old = pair.start_replica_on(&pair.source_machine).await.unwrap();
                    pair.follow.once = true;
                    let link = pair.link_back(wire::link::Calm);
                    pair.connect_over(link, &promoted, &old).ended().await.in_step();
                    pair.assert_equal().await;
                }
            }
        }
        assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
    });
}

/// Two replicas meet; true when the second learns that it is to be promoted, and the first does not.
async fn both_follow(pair: &Pair, old: &Rc<Replica>, new: &Rc<Replica>) -> bool {
    use replication::protocol;
    use replication::replica::follow;
    let wire::link::MemoryPair { near, far, near_session, far_session, .. } =
        pair.link(wire::link::Calm);
    let sessions = [near_session, far_session].map(tokio::task::spawn_local);
    let mut ends = Vec::new();
    for (replica, link) in [(old, near), (new, far)] {
        let (replica, settings) = (replica.clone(), pair.follow.clone());
        ends.push(tokio::task::spawn_local(async move {
            let (connection, inbox) = protocol::open(link);
            follow(&replica, connection, inbox, &settings, |_| {}).await
        }));
    }
    let mut heard = Vec::new();
    for end in ends {
        heard.push(matches!(end.await.unwrap(), Ok(FollowEnd::Relinquished(_))));
    }
    sessions.iter().for_each(|session| session.abort());
    heard == [false, true]
}

/// The source's machine loses power at every operation of a switchover: one of both sites is the source
/// afterwards or can become it by what the other tells, and nothing acknowledged is lost.
#[test]
fn a_power_cut_anywhere_leaves_one_source() {
    run(|| async {
        let mut roles = Vec::new();
        for operation in 0.. {
            let (mut pair, source, replica) = following(4).await;
            let session = pair.connect(&source, &replica);
            tokio::time::sleep(Duration::from_millis(200)).await;
            fill(&source, 0, 9, 0x99).await;
            source.flush().await.unwrap();
            let (machine, from) = (pair.source_machine.clone(), pair.source_machine.operations());
            let crashed = Rc::new(Cell::new(false));
            let (crash, cable) = (crashed.clone(), session.cable.clone());
            pair.oracle.fault(move |op| {
                if op.number == from + operation {
                    machine.crash_seeded(Crash::PowerCut, operation);
                    cable.cut();
                    crash.set(true);
                }
                Fault::None
            });
            let handing = {
                let (source, identity) = (source.clone(), pair.replica_id.to_string());
                tokio::task::spawn_local(async move {
                    source.switchover(&identity, LIMIT, Path::new(JOURNAL)).await
                })
            };
            let ended = session.ended().await;
            let handed = handing.await.unwrap();
            pair.oracle.calm();
            if !crashed.get() {
                handed.unwrap();
                roles_change(&mut pair, source, replica).await;
                break;
            }
            drop(source);
            let role = role_on_disk(&pair.source_machine).await;
            roles.push(role);
            if role == Role::Replica {
                let old = pair.start_replica_on(&pair.source_machine).await.unwrap();
                if !relinquished(&ended) {
                    assert!(both_follow(&pair, &old, &replica).await);
                }
                drop(old);
                replica.promote(false).await.unwrap();
                drop(replica);
                let promoted = pair.start_source_on(&pair.replica_machine).await.unwrap();
                let old = pair.start_replica_on(&pair.source_machine).await.unwrap();
                pair.follow.once = true;
                let link = pair.link_back(wire::link::Calm);
                pair.connect_over(link, &promoted, &old).ended().await.in_step();
            } else {
                assert!(!relinquished(&ended), "two sources");
                let source = pair.start_source().await.unwrap();
                pair.follow.once = true;
                pair.attach(&source, &replica).await.in_step();
            }
            pair.assert_equal().await;
            assert_eq!(pair.replica_content().await[0][9 * GRAIN as usize], 0x99);
        }
        assert!(roles.contains(&Role::Source) && roles.len() > 10, "{roles:?}");
    });
}
