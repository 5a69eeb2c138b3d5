//! Peers that do not keep to the protocol: an error that says so, nothing written, nobody stuck.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grain::attach::Facts;
use grain::{CutId, Geometry, GrainSet, Lineage, Run, SessionId, VolumeId};
use replication::protocol::{
    Attached, Connection, Inbox, MAX_DIGESTS, Message, Sample, SetName, Want, attach, open,
    send_set,
};
use replication::replica::follow;
use replication::source::serve_link;
use replication::{Error, Result};
use wire::Frame;
use wire::link::{Calm, MemoryPair};

use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [32 * GRAIN, 8 * GRAIN + 9];

fn one(volume: u16, first: u64, count: u64) -> Run {
    Run { volume: VolumeId(volume), first, count }
}

/// A source that is none: it tells honest facts, then plays its script.
struct FakeSource {
    connection: Connection,
    inbox: Inbox,
    facts: Facts,
    head: CutId,
}

impl FakeSource {
    async fn attach(&mut self) -> Result<Attached> {
        let attached = attach(&self.connection, &mut self.inbox, &self.facts).await?;
        loop {
            match self.inbox.next().await?.0 {
                Message::Check { .. } => {
                    self.connection.send_body(&Message::Samples, &Vec::<Sample>::new()).await?;
                }
                Message::Begin { .. } => return Ok(attached),
                _ => {}
            }
        }
    }

    async fn announce(&self, pull: &GrainSet, record: &GrainSet) -> Result<()> {
        let lineage = self.facts.lineage.clone();
        let since = lineage.cuts().iter().rev().nth(1).map(|c| c.id);
        self.announce_as(lineage, since).await?;
        self.sets(pull, record).await
    }

    async fn sets(&self, pull: &GrainSet, record: &GrainSet) -> Result<()> {
        send_set(&self.connection, SetName::Pull, pull).await?;
        send_set(&self.connection, SetName::Record, record).await?;
        send_set(&self.connection, SetName::Suspected, &GrainSet::new()).await?;
        self.connection.send(&Message::Go).await
    }

    async fn announce_as(&self, lineage: Lineage, since: Option<CutId>) -> Result<()> {
        let session = SessionId::from_bytes([3; 16]);
        let cut = self.head;
        let start =
            Message::CatchUp { session, cut, since, carries: None, unix_ms: 1, label: None };
        self.connection.send_body(&start, &lineage).await
    }

    /// An announced catch-up of grains 0 to 3, and the first pull for it.
    async fn pulled(&mut self) -> Result<()> {
        let pull: GrainSet = [one(0, 0, 4)].into_iter().collect();
        self.announce(&pull, &pull).await?;
        while !matches!(self.inbox.next().await?.0, Message::Pull { .. }) {}
        Ok(())
    }

    async fn data(&self, run: Run, bytes: usize) -> Result<()> {
        let payload = Bytes::from(vec![0xcc; bytes]);
        let digest = *blake3::hash(&payload).as_bytes();
        self.connection.send_with(&Message::Data { run, digest }, payload).await
    }
}

async fn play(mut fake: FakeSource, script: usize) -> Result<bool> {
    fake.attach().await?;
    let connection = fake.connection.clone();
    let grain = GRAIN as usize;
    match script {
        0 => fake.data(one(0, 0, 1), grain).await?,
        1 => {
            fake.announce_as(Lineage::new(), None).await?;
            fake.sets(&GrainSet::new(), &GrainSet::new()).await?;
        }
        2 => {
            let other = fake.facts.lineage.cuts()[0].id;
            let lineage = fake.facts.lineage.clone();
            fake.announce_as(lineage, Some(other)).await?;
            fake.sets(&GrainSet::new(), &GrainSet::new()).await?;
        }
        3 => {
            let pull: GrainSet = [one(0, 0, 4)].into_iter().collect();
            fake.announce(&pull, &GrainSet::new()).await?;
        }
        4 => {
            let pull: GrainSet = [one(0, 30, 400)].into_iter().collect();
            fake.announce(&pull, &pull).await?;
        }
        5 => {
            fake.announce_as(fake.facts.lineage.clone(), None).await?;
            for _ in 0..2 {
                send_set(&connection, SetName::Pull, &GrainSet::new()).await?;
            }
        }
        6 => {
            fake.announce_as(fake.facts.lineage.clone(), None).await?;
            send_set(&connection, SetName::Missing, &GrainSet::new()).await?;
        }
        7 => {
            fake.announce_as(fake.facts.lineage.clone(), None).await?;
            let garbage = Bytes::from_static(&[9; 100]);
            connection.send_with(&Message::Set { name: SetName::Pull }, garbage).await?;
        }
        8 => {
            fake.pulled().await?;
            fake.data(one(0, 0, 1), grain - 1).await?;
        }
        9 => {
            fake.pulled().await?;
            let digest = [0; 32];
            let payload = Bytes::from(vec![1; grain]);
            connection.send_with(&Message::Data { run: one(0, 0, 1), digest }, payload).await?;
        }
        10 => {
            fake.pulled().await?;
            fake.data(one(0, 9, 1), grain).await?;
        }
        11 => {
            fake.pulled().await?;
            fake.data(one(0, 1, 1), grain).await?;
            fake.data(one(0, 1, 1), grain).await?;
        }
        12 => {
            fake.pulled().await?;
            connection.send(&Message::Zero { run: one(0, 0, 0) }).await?;
        }
        13 => {
            fake.pulled().await?;
            connection.send(&Message::Zero { run: one(77, 0, 1) }).await?;
        }
        14 => {
            fake.pulled().await?;
            connection.send(&Message::Same { run: one(0, u64::MAX, u64::MAX) }).await?;
        }
        15 => {
            fake.pulled().await?;
            connection.send(&Message::Delivered).await?;
        }
        16 => {
            fake.pulled().await?;
            connection.send(&Message::Pulled { number: 0 }).await?;
            while fake.inbox.next().await?.0 != Message::Finish {}
            connection.send(&Message::Delivered).await?;
        }
        17 => connection.send(&Message::NothingNew { cut: CutId::from_bytes([1; 16]) }).await?,
        _ => return Ok(false),
    }
    // Whatever else it says, it stays on the line.
    while fake.inbox.next().await.is_ok() {}
    Ok(true)
}

#[test]
fn a_hostile_source_writes_nothing() {
    for script in 0.. {
        let more = Rc::new(std::cell::Cell::new(true));
        let played = more.clone();
        run(|| async move {
            let pair = Pair::new(50 + script as u64, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            fill(&source, 0, 2, 0x11).await;
            let seeded = pair.seed(&source).await;
            let replica = pair.start_replica().await.unwrap();
            let cut = source.cut(grain::CutReason::Cycle, |_| Vec::new()).await.unwrap().cut.id;
            let facts = source.facts(&pair.replica_id.to_string());
            let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
            tokio::task::spawn_local(near_session);
            tokio::task::spawn_local(far_session);
            let (connection, inbox) = open(near);
            let fake = FakeSource { connection, inbox, facts, head: cut };
            let playing = tokio::task::spawn_local(play(fake, script));
            let (connection, inbox) = open(far);
            let settings = pair.follow.clone();
            let following = follow(&replica, connection, inbox, &settings, |_| {});
            let ended = tokio::time::timeout(Duration::from_secs(600), following).await;
            if !matches!(playing.await.unwrap(), Ok(true) | Err(_)) {
                return played.set(false);
            }
            let error = ended.unwrap_or_else(|_| panic!("script {script} hangs")).unwrap_err();
            assert!(matches!(error, Error::Peer(_)), "script {script}: {error}");
            assert!(replica.is_consistent(), "script {script}");
            assert_eq!(replica.head(), Some(seeded), "script {script}");
            pair.assert_replica_at(seeded).await;
            pair.attach(&source, &replica).await.in_step();
            pair.assert_equal().await;
        });
        if !more.get() {
            assert!(script > 10);
            return;
        }
    }
}

/// A replica that is none, after an honest attach. Gives false when there is no such script.
async fn pretend(
    connection: &Connection,
    inbox: &mut Inbox,
    geometry: &Geometry,
    script: usize,
) -> Result<bool> {
    let send = async |message: Message| connection.send(&message).await;
    let begin = async |inbox: &mut Inbox, want: Want| -> Result<CutId> {
        connection.send(&Message::Begin { want }).await?;
        let mut found = CutId::from_bytes([0; 16]);
        loop {
            match inbox.next().await?.0 {
                Message::CatchUp { cut, .. } => found = cut,
                Message::Go => return Ok(found),
                _ => {}
            }
        }
    };
    match script {
        0 => send(Message::Finish).await?,
        1 => send(Message::Pull { number: 0, runs: vec![one(0, 0, 1)] }).await?,
        2 => send(Message::Committed { cut: CutId::from_bytes([1; 16]) }).await?,
        3 => send_set(connection, SetName::Pull, &GrainSet::new()).await?,
        4 => send_set(connection, SetName::Layer(9), &GrainSet::new()).await?,
        5 => {
            send_set(connection, SetName::Missing, &GrainSet::new()).await?;
            send_set(connection, SetName::Missing, &GrainSet::new()).await?;
        }
        6 => {
            let garbage = Bytes::from_static(&[7; 60]);
            connection.send_with(&Message::Set { name: SetName::Missing }, garbage).await?;
        }
        7..=10 => {
            begin(inbox, Want::Delta).await?;
            let runs = match script {
                7 => vec![one(0, 30, 3)],
                8 => vec![one(0, 0, 0)],
                9 => vec![one(5, 0, 1)],
                _ => vec![one(0, 1, u64::MAX)],
            };
            send(Message::Pull { number: 0, runs }).await?;
        }
        11 => {
            begin(inbox, Want::Delta).await?;
            send(Message::Pull { number: 0, runs: vec![one(0, 0, 1); 2000] }).await?;
        }
        12 => {
            begin(inbox, Want::Compare).await?;
            send(Message::PullDifferent { number: 0, run: one(0, 0, 2) }).await?;
        }
        13 => {
            begin(inbox, Want::Compare).await?;
            send(Message::PullDifferent { number: 0, run: one(0, 0, MAX_DIGESTS + 1) }).await?;
        }
        14 => {
            begin(inbox, Want::Delta).await?;
            send(Message::Finish).await?;
        }
        15 => {
            let cut = begin(inbox, Want::Delta).await?;
            send(Message::Committed { cut }).await?;
        }
        16 => {
            begin(inbox, Want::Delta).await?;
            send(Message::Begin { want: Want::Delta }).await?;
        }
        17 => send(Message::Samples).await?,
        18 => {
            let full = GrainSet::full(geometry);
            begin(inbox, Want::Delta).await?;
            send_set(connection, SetName::Missing, &full).await?;
        }
        _ => return Ok(false),
    }
    while inbox.next().await.is_ok() {}
    Ok(true)
}

#[test]
fn a_hostile_replica_leaves_nothing_behind() {
    for script in 0.. {
        let more = Rc::new(std::cell::Cell::new(true));
        let played = more.clone();
        run(|| async move {
            let pair = Pair::new(90 + script as u64, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            pair.seed(&source).await;
            let replica = pair.start_replica().await.unwrap();
            fill(&source, 0, 2, 0x11).await;
            let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
            tokio::task::spawn_local(near_session);
            tokio::task::spawn_local(far_session);
            let (geometry, facts) = (pair.geometry.clone(), replica.facts());
            let playing = tokio::task::spawn_local(async move {
                let (connection, mut inbox) = open(far);
                attach(&connection, &mut inbox, &facts).await?;
                pretend(&connection, &mut inbox, &geometry, script).await
            });
            let (connection, inbox) = open(near);
            let progress = Default::default();
            let serving = serve_link(&source, connection, inbox, &pair.serve, &progress);
            let ended = tokio::time::timeout(Duration::from_secs(600), serving).await;
            if matches!(playing.await.unwrap(), Ok(false)) {
                return played.set(false);
            }
            let error = ended.unwrap_or_else(|_| panic!("script {script} hangs")).unwrap_err();
            assert!(matches!(error, Error::Peer(_)), "script {script}: {error}");
            // No copy session holds writers up, and an honest replica is served as ever.
            fill(&source, 0, 2, 0x22).await;
            fill(&source, 0, 3, 0x33).await;
            pair.attach(&source, &replica).await.in_step();
            pair.assert_equal().await;
        });
        if !more.get() {
            assert!(script > 10);
            return;
        }
    }
}

#[test]
fn frames_of_random_bytes_end_in_an_error() {
    for seed in 0..64_u64 {
        run(|| async move {
            let pair = Pair::new(seed, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            pair.seed(&source).await;
            let replica = pair.start_replica().await.unwrap();
            let MemoryPair { near, far, near_session, far_session, .. } = pair.link(Calm);
            tokio::task::spawn_local(near_session);
            tokio::task::spawn_local(far_session);
            let mut random = disk::simulated::SplitMix64::new(seed);
            let mut noise = move |most: u64| {
                let mut bytes = vec![0; random.below(most) as usize];
                random.fill(&mut bytes);
                // A small first word makes it a message more often.
                if let (Some(first), 0) = (bytes.first_mut(), random.below(2)) {
                    *first %= 20;
                    bytes.iter_mut().skip(1).take(3).for_each(|b| *b = 0);
                }
                Bytes::from(bytes)
            };
            let towards_source = seed % 2 == 0;
            let (fake, honest) = if towards_source { (far, near) } else { (near, far) };
            let (sender, mut receiver) = fake.split();
            let talking = tokio::task::spawn_local(async move {
                for _ in 0..8 {
                    let kind = 16;
                    let frame = Frame { kind, flags: 0, control: noise(40), payload: noise(300) };
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
                while receiver.recv().await.is_ok() {}
            });
            let error = if towards_source {
                let (connection, inbox) = open(honest);
                let progress = Default::default();
                serve_link(&source, connection, inbox, &pair.serve, &progress).await.unwrap_err()
            } else {
                let (connection, inbox) = open(honest);
                follow(&replica, connection, inbox, &pair.follow, |_| {}).await.unwrap_err()
            };
            talking.await.unwrap();
            assert!(matches!(error, Error::Peer(_) | Error::Refused { .. }), "{error}");
        });
    }
}
