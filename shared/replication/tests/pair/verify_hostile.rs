//! Peers that do not keep to the protocol in a verification: the session ends in words, nothing is kept as
//! proven, nothing is written.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grain::{CutId, Run, VolumeId};
use replication::protocol::{
    Compared, Connection, Inbox, MAX_DIGESTS, MAX_ZERO_GRAINS, Message, Report, Sample,
    VerifyMessage, attach, open,
};
use replication::replica::{VerifyRequest, follow};
use replication::source::serve_link;
use replication::state::Verified;
use replication::{Error, Result};
use wire::link::{Calm, MemoryPair};

use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [32 * GRAIN, 8 * GRAIN + 9];
const TOTAL: u64 = 41;

fn one(volume: u16, first: u64, count: u64) -> Run {
    Run { volume: VolumeId(volume), first, count }
}

async fn say(connection: &Connection, message: VerifyMessage) -> Result<()> {
    connection.send(&Message::Verify(message)).await
}

/// A source that has nothing new, until the replica wants to verify; gives the pass.
async fn until_verify(connection: &Connection, inbox: &mut Inbox, head: CutId) -> Result<u32> {
    loop {
        match inbox.next().await?.0 {
            Message::Check { .. } => {
                connection.send_body(&Message::Samples, &Vec::<Sample>::new()).await?;
            }
            Message::Begin { .. } => connection.send(&Message::NothingNew { cut: head }).await?,
            Message::Committed { .. } => {
                let mode = Default::default();
                let settled =
                    Message::Settled { floor: None, remaining: 0, remaining_bytes: 0, mode };
                connection.send(&settled).await?;
            }
            Message::Verify(VerifyMessage::Begin { pass, .. }) => return Ok(pass),
            _ => {}
        }
    }
}

/// What it answers then. Gives false when there is no such script.
async fn lie(connection: &Connection, inbox: &mut Inbox, pass: u32, script: usize) -> Result<bool> {
    let cut = CutId::from_bytes([1; 16]);
    let answer = async |run: Run, compared: Compared| {
        say(connection, VerifyMessage::Ready { pass, cut }).await?;
        let message = Message::Verify(VerifyMessage::Compared { pass, run });
        connection.send_body(&message, &compared).await
    };
    let all = one(0, 0, 32);
    let compared =
        |different: Vec<Run>| Compared { compared: 32, different, ..Compared::default() };
    match script {
        0 => answer(one(0, 1, 2), compared(vec![])).await?,
        1 => answer(all, compared(vec![one(0, 30, 3)])).await?,
        2 => answer(all, compared(vec![one(1, 0, 1)])).await?,
        3 => answer(all, compared(vec![one(0, 0, u64::MAX)])).await?,
        4 => answer(all, Compared { compared: 33, ..Compared::default() }).await?,
        5 => answer(all, Compared { different: vec![all], ..Compared::default() }).await?,
        6 => answer(all, Compared { unreadable: vec![one(0, 0, 1)], ..compared(vec![]) }).await?,
        7 => {
            say(connection, VerifyMessage::Ready { pass, cut }).await?;
            let message = Message::Verify(VerifyMessage::Compared { pass, run: all });
            connection.send_with(&message, Bytes::from_static(&[7; 33])).await?;
        }
        8 => say(connection, VerifyMessage::Begin { pass, grains: 1 }).await?,
        9 => say(connection, VerifyMessage::Done { pass }).await?,
        10 => {
            for _ in 0..100 {
                let of = pass.wrapping_add(1);
                say(connection, VerifyMessage::Ready { pass: of, cut }).await?;
            }
        }
        _ => return Ok(false),
    }
    while inbox.next().await.is_ok() {}
    Ok(true)
}

#[test]
fn a_source_that_lies_ends_it_and_nothing_counts_as_proven() {
    for script in 0.. {
        let more = Rc::new(Cell::new(true));
        let played = more.clone();
        run(|| async move {
            let pair = Pair::new(150 + script as u64, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            fill(&source, 0, 2, 0x11).await;
            fill(&source, 0, 20, 0x12).await;
            let seeded = pair.seed(&source).await;
            let replica = pair.start_replica().await.unwrap();
            let facts = source.facts(&pair.replica_id.to_string());
            let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
            tokio::task::spawn_local(near_session);
            tokio::task::spawn_local(far_session);
            let playing = tokio::task::spawn_local(async move {
                let (connection, mut inbox) = open(near);
                attach(&connection, &mut inbox, &facts).await?;
                let pass = until_verify(&connection, &mut inbox, seeded).await?;
                lie(&connection, &mut inbox, pass, script).await
            });
            let mut settings = pair.follow.clone();
            (settings.once, settings.samples) = (false, 0);
            let following = tokio::task::spawn_local({
                let replica = replica.clone();
                async move {
                    let (connection, inbox) = open(far);
                    follow(&replica, connection, inbox, &settings, |_| {}).await
                }
            });
            while replica.condition().name() != "current" {
                assert!(!following.is_finished(), "script {script}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let verifying = replica.verify(VerifyRequest { rate_bytes: 0, repair: true });
            let ended = tokio::time::timeout(Duration::from_secs(600), verifying).await;
            if matches!(playing.await.unwrap(), Ok(false)) {
                return played.set(false);
            }
            let error = ended.unwrap_or_else(|_| panic!("script {script} hangs")).unwrap_err();
            assert!(matches!(error, Error::Peer(_) | Error::Link(_)), "script {script}: {error}");
            let ended = following.await.unwrap().unwrap_err();
            assert!(matches!(ended, Error::Peer(_)), "script {script}: {ended}");
            let proof = replica.store().with(|s| s.replica.clone().unwrap().proof);
            assert_eq!(proof.verified, None, "script {script}");
            pair.assert_replica_at(seeded).await;
            pair.attach(&source, &replica).await.in_step();
        });
        if !more.get() {
            assert!(script > 10);
            return;
        }
    }
}

/// A replica that is none, after an honest attach. Gives false when there is no such script.
async fn pretend(connection: &Connection, inbox: &mut Inbox, script: usize) -> Result<bool> {
    let mine = async |run: Run, digests: usize| {
        say(connection, VerifyMessage::Begin { pass: 1, grains: 41 }).await?;
        let message = Message::Verify(VerifyMessage::Mine { pass: 1, run });
        connection.send_with(&message, Bytes::from(vec![0; digests])).await
    };
    let report = async |verified: Verified| {
        let message = Message::Verify(VerifyMessage::Report { asked: None });
        connection.send_body(&message, &Report::Ok(verified)).await
    };
    let honest = Verified { total_grains: TOTAL, compared_grains: TOTAL, ..Verified::default() };
    match script {
        0 => mine(one(0, 31, 2), 0).await?,
        1 => mine(one(0, 0, 0), 0).await?,
        2 => mine(one(7, 0, 1), 0).await?,
        3 => mine(one(0, 1, u64::MAX), 32).await?,
        4 => mine(one(0, 0, 2), 32).await?,
        5 => mine(one(0, 0, MAX_ZERO_GRAINS + 1), 0).await?,
        6 => mine(one(0, 0, MAX_DIGESTS + 1), 32 * (MAX_DIGESTS as usize + 1)).await?,
        7 => say(connection, VerifyMessage::Stop).await?,
        8 => {
            say(connection, VerifyMessage::Ready { pass: 1, cut: CutId::from_bytes([1; 16]) })
                .await?
        }
        9 => report(Verified { total_grains: 7, ..honest }).await?,
        10 => report(Verified { compared_grains: TOTAL + 1, ..honest }).await?,
        11 => report(Verified { places: vec![one(0, 0, 1); 17], ..honest }).await?,
        12 => report(Verified { places: vec![one(0, 32, 1)], ..honest }).await?,
        13 => {
            for _ in 0..100 {
                say(connection, VerifyMessage::Done { pass: 1 }).await?;
            }
        }
        _ => return Ok(false),
    }
    while inbox.next().await.is_ok() {}
    Ok(true)
}

#[test]
fn a_replica_that_does_not_keep_to_it_leaves_nothing_behind() {
    for script in 0.. {
        let more = Rc::new(Cell::new(true));
        let played = more.clone();
        run(|| async move {
            let pair = Pair::new(170 + script as u64, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            pair.seed(&source).await;
            let replica = pair.start_replica().await.unwrap();
            pair.attach(&source, &replica).await.in_step();
            let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
            tokio::task::spawn_local(near_session);
            tokio::task::spawn_local(far_session);
            let facts = replica.facts();
            let playing = tokio::task::spawn_local(async move {
                let (connection, mut inbox) = open(far);
                attach(&connection, &mut inbox, &facts).await?;
                pretend(&connection, &mut inbox, script).await
            });
            let (connection, inbox) = open(near);
            let progress = Default::default();
            let serving = serve_link(&source, connection, inbox, &pair.serve, &progress);
            let ended = tokio::time::timeout(Duration::from_secs(600), serving).await;
            let ended = ended.unwrap_or_else(|_| panic!("script {script} hangs"));
            if matches!(playing.await.unwrap(), Ok(false)) {
                return played.set(false);
            }
            let error = ended.unwrap_err();
            assert!(matches!(error, Error::Peer(_)), "script {script}: {error}");
            assert_eq!(source.store().with(|s| s.peers[0].verified.clone()), None, "{script}");
            fill(&source, 0, 2, 0x22).await;
            pair.attach(&source, &replica).await.in_step();
            pair.assert_equal().await;
        });
        if !more.get() {
            assert!(script > 12);
            return;
        }
    }
}
