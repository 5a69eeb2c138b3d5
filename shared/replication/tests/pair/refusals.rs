//! Attaches that the rules refuse: the rule's name on both sides, and nothing moves.

use disk::simulated::Crash;
use grain::RelationshipId;
use replication::replica::follow;
use replication::{Error, protocol};
use wire::link::{Calm, Direction, Fate, MemoryPair};

use crate::rig::{Ended, GRAIN, Pair, fill, run};

const SIZES: [u64; 1] = [32 * GRAIN];

fn assert_refused(ended: &Ended, expected: &str) {
    for error in [
        ended.replica.as_ref().unwrap().as_ref().unwrap_err(),
        ended.source.as_ref().unwrap().as_ref().unwrap_err(),
    ] {
        assert!(matches!(error, Error::Refused { rule, .. } if rule == expected), "{error:?}");
    }
}

#[test]
fn unrelated_sites_and_other_volumes() {
    run(|| async {
        let pair = Pair::new(31, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        let seeded = pair.seed(&source).await;
        pair.change_replica(|s| s.relationship = RelationshipId::from_bytes([8; 16])).await;
        let replica = pair.start_replica().await.unwrap();
        fill(&source, 0, 1, 1).await;
        assert_refused(&pair.attach(&source, &replica).await, "unrelated");
        drop(replica);
        pair.replica_machine.crash_seeded(Crash::Kill, 0);
        pair.change_replica(|s| {
            s.relationship = RelationshipId::from_bytes([7; 16]);
            s.geometry.volumes[0].alias = "other".into();
        })
        .await;
        let replica = pair.start_replica().await.unwrap();
        assert_refused(&pair.attach(&source, &replica).await, "unrelated");
        assert_eq!(replica.head(), Some(seeded));
        pair.assert_replica_at(seeded).await;
    });
}

#[test]
fn a_stranger_gets_nothing() {
    run(|| async {
        let pair = Pair::new(32, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        let replica = pair.start_replica().await.unwrap();
        source.store().update(|s| s.peers[0].identity = "someone else".into()).await.unwrap();
        let ended = pair.attach(&source, &replica).await;
        let here = ended.replica.unwrap().unwrap_err();
        assert!(matches!(&here, Error::Refused { rule, .. } if rule == "unrelated"), "{here}");
        assert!(matches!(ended.source.unwrap().unwrap_err(), Error::Peer(_)));
    });
}

#[test]
fn a_source_that_went_back_in_time() {
    run(|| async {
        let pair = Pair::new(33, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        let old = pair.source_machine.snapshot();
        let replica = pair.start_replica().await.unwrap();
        fill(&source, 0, 1, 1).await;
        let cut = pair.attach(&source, &replica).await.in_step();
        pair.source_machine.restore(&old);
        pair.source_machine.crash_seeded(Crash::PowerCut, 1);
        let source = pair.start_source().await.unwrap();
        assert_refused(&pair.attach(&source, &replica).await, "ahead");
        assert_eq!(replica.head(), Some(cut));
        pair.assert_replica_at(cut).await;
    });
}

#[test]
fn a_suspect_source_overwrites_nobody_even_when_asked_to_compare() {
    run(|| async {
        let mut pair = Pair::new(34, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        let cut = pair.seed(&source).await;
        let replica = pair.start_replica().await.unwrap();
        fill(&source, 0, 1, 1).await;
        source.store().update(|s| s.suspect = Some("a sync failed".into())).await.unwrap();
        assert_refused(&pair.attach(&source, &replica).await, "suspect");
        pair.follow.compare = true;
        assert_refused(&pair.attach(&source, &replica).await, "suspect");
        pair.assert_replica_at(cut).await;
    });
}

#[test]
fn two_replicas_have_no_source() {
    run(|| async {
        let pair = Pair::new(35, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        let replica = pair.start_replica().await.unwrap();
        let other = pair.twin_of_replica().await;
        let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
        tokio::task::spawn_local(near_session);
        tokio::task::spawn_local(far_session);
        let settings = pair.follow.clone();
        let (a, b) = (protocol::open(near), protocol::open(far));
        let one = follow(&replica, a.0, a.1, &settings, |_| {});
        let two = follow(&other, b.0, b.1, &settings, |_| {});
        let (one, two) = tokio::join!(one, two);
        for error in [one.unwrap_err(), two.unwrap_err()] {
            assert!(
                matches!(&error, Error::Refused { rule, .. } if rule == "no-source"),
                "{error}"
            );
        }
    });
}

#[test]
fn a_plan_moves_nothing_and_disturbs_nobody() {
    run(|| async {
        let pair = Pair::new(36, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        let replica = pair.start_replica().await.unwrap();
        for grain in 0..20 {
            fill(&source, 0, grain, 1).await;
        }
        let slow =
            |_: Direction, _: usize| Fate::Deliver { after: std::time::Duration::from_secs(1) };
        let running = pair.connect_through(&source, &replica, slow);
        tokio::time::sleep(std::time::Duration::from_millis(6500)).await;
        let cuts = source.store().with(|s| s.lineage.cuts().len());
        let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
        tokio::task::spawn_local(near_session);
        tokio::task::spawn_local(far_session);
        let planning = async {
            let (connection, inbox) = protocol::open(far);
            replication::replica::ask(&replica, connection, inbox).await.unwrap()
        };
        let progress = Default::default();
        let (connection, inbox) = protocol::open(near);
        let serving =
            replication::source::serve_link(&source, connection, inbox, &pair.serve, &progress);
        let (verdict, served) = tokio::join!(planning, serving);
        assert!(verdict.starts_by_itself(), "{verdict:?}");
        assert!(served.is_ok(), "who only asked left in good order: {served:?}");
        assert_eq!(source.store().with(|s| s.lineage.cuts().len()), cuts);
        running.ended().await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn a_new_session_ends_the_old_one_first() {
    run(|| async {
        let pair = Pair::new(37, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        let replica = pair.start_replica().await.unwrap();
        for grain in 0..20 {
            fill(&source, 0, grain, 1).await;
        }
        // The link goes silent in the middle of the catch-up, and neither side hears of it.
        let mut left = 30_000_u64;
        let silent = move |direction, bytes: usize| {
            if direction == Direction::NearToFar {
                left = left.saturating_sub(bytes as u64);
            }
            let after = if left == 0 { 80_000 } else { 0 };
            Fate::Deliver { after: std::time::Duration::from_secs(after) }
        };
        let old = pair.connect_through(&source, &replica, silent);
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        old.following.abort();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        fill(&source, 0, 25, 2).await;
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        pair.assert_equal().await;
        let first = old.serving.await.unwrap().unwrap_err();
        assert!(first.to_string().contains("newer session"), "{first}");
    });
}
