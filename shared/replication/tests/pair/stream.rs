//! Streaming from end to end: order, confirmation, what every kind of crash leaves, how it ends and goes
//! on. The oracle is the list of all writes: whatever a replica holds has to be what the source held after
//! some number of them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, SimMachine, SplitMix64};
use grain::attach::Rule;
use grain::{CutReason, VolumeId};
use replication::replica::Replica;
use replication::source::{Change, Source};
use replication::state::{Mode, OnLinkLoss};
use wire::link::{Direction, Fate};

use crate::oracle::read_volumes;
use crate::rig::{GRAIN, Pair, Session, run};

const SIZES: [u64; 2] = [40 * GRAIN, 24 * GRAIN + 100];
pub const SYNC: Mode = Mode::Sync { on_link_loss: OnLinkLoss::Continue };

/// A pair that streams, and everything that was written.
pub struct Life {
    pub pair: Pair,
    pub source: Rc<Source>,
    pub replica: Rc<Replica>,
    pub session: Option<Session>,
    /// How long the link takes.
    pub delay: Rc<Cell<Duration>>,
    pub random: SplitMix64,
    pub image: Vec<Vec<u8>>,
    pub writes: Vec<(usize, usize, Vec<u8>)>,
    /// The volumes before the first of them.
    pub first: Vec<Vec<u8>>,
}

impl Life {
    pub async fn new(seed: u64, mode: Mode, change: impl FnOnce(&mut Pair)) -> Life {
        let mut pair = Pair::new(seed, &SIZES).await;
        pair.follow.once = false;
        pair.follow.interval = Duration::from_secs(1);
        pair.serve.stream.epoch = Duration::from_secs(1);
        change(&mut pair);
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        pair.keep(&source, mode).await;
        let replica = pair.start_replica().await.unwrap();
        let image: Vec<Vec<u8>> = SIZES.iter().map(|bytes| vec![0; *bytes as usize]).collect();
        let (first, random) = (image.clone(), SplitMix64::new(seed ^ 0x57ea));
        let writes = Vec::new();
        let delay = Rc::new(Cell::new(Duration::from_millis(2)));
        let session = None;
        let mut life = Life { pair, source, replica, session, delay, random, image, writes, first };
        life.connect().await;
        life
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    /// Connects, and waits until writes stream.
    pub async fn connect(&mut self) {
        let delay = self.delay.clone();
        let weather = move |_: Direction, _: usize| Fate::Deliver { after: delay.get() };
        self.session = Some(self.pair.connect_through(&self.source, &self.replica, weather));
        self.streaming().await;
    }

    async fn streaming(&self) {
        for _ in 0..6000 {
            if self.replica.stream_view().streaming.get() {
                return;
            }
            if let Some(session) = &self.session
                && session.following.is_finished()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it does not stream: {:?}", self.session.as_ref().map(|s| &s.progress));
    }

    pub async fn mirroring(&self) {
        let progress = self.session.as_ref().unwrap().progress.clone();
        for _ in 0..500 {
            if progress.stream.mirroring.get() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not mirror: {progress:?}");
    }

    /// Writes something somewhere, as an application does. The source's word comes back.
    pub async fn write(&mut self) -> replication::Result<()> {
        let volume = self.below(2) as usize;
        let size = SIZES[volume];
        let most = [600, 9000, 30][self.below(3) as usize];
        let len = (1 + self.below(most)) as usize;
        let start = self.below(size - len as u64) as usize;
        let zero = self.below(6) == 0;
        let mut bytes = vec![0; len];
        if !zero {
            for byte in &mut bytes {
                *byte = (self.random.next_u64() >> 9) as u8;
            }
        }
        self.image[volume][start..start + len].copy_from_slice(&bytes);
        self.writes.push((volume, start, bytes.clone()));
        let change = match zero {
            true => Change::Zero { len: len as u64, punch: true, fast: false },
            false => Change::Data(bytes.into()),
        };
        let fua = self.below(12) == 0;
        let source = self.source.clone();
        source.write(VolumeId(volume as u16), start as u64, change, fua).await
    }

    pub async fn some_writes(&mut self, count: u64) {
        for _ in 0..count {
            self.write().await.unwrap();
            if self.below(20) == 0 {
                let pause = self.below(400);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }

    /// How many of all writes this content holds; nothing when it is none of the source's states.
    pub fn prefix_of(&self, content: &[Vec<u8>]) -> Option<usize> {
        let mut image = self.first.clone();
        let mut found = (image == content).then_some(0);
        for (count, (volume, start, bytes)) in self.writes.iter().enumerate() {
            image[*volume][*start..start + bytes.len()].copy_from_slice(bytes);
            if image == content {
                found = Some(count + 1);
            }
        }
        found
    }

    /// What a replica announces after this crash is a state that the source was in: after how many writes.
    async fn recovered(&self, kind: Crash, seed: u64) -> usize {
        let scratch = SimMachine::new(seed);
        scratch.restore(&self.pair.replica_machine.snapshot());
        scratch.crash_seeded(kind, seed);
        let replica = self.pair.start_replica_on(&scratch).await.expect("a start after a crash");
        assert!(replica.is_consistent());
        let content = read_volumes(&scratch.context(), SIZES.len()).await;
        self.prefix_of(&content).expect("a state that the source was in")
    }

    /// Waits until the replica holds everything.
    pub async fn equal(&mut self) {
        for _ in 0..400 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.pair.replica_content().await == self.image {
                return;
            }
        }
        self.pair.assert_equal().await;
    }

    /// The link breaks; both sides notice.
    pub async fn cut_link(&mut self) {
        let session = self.session.take().unwrap();
        session.cable.cut();
        session.ended().await;
    }

    pub async fn restart_source(&mut self, kind: Crash, seed: u64) {
        if let Some(session) = self.session.take() {
            session.abort_source();
            self.pair.source_machine.crash_seeded(kind, seed);
            session.cable.cut();
            session.ended().await;
        } else {
            self.pair.source_machine.crash_seeded(kind, seed);
        }
        self.source = self.pair.start_source().await.unwrap();
    }

    pub async fn restart_replica(&mut self, kind: Crash, seed: u64) {
        if let Some(session) = self.session.take() {
            session.abort_replica();
            self.pair.replica_machine.crash_seeded(kind, seed);
            session.cable.cut();
            session.ended().await;
        } else {
            self.pair.replica_machine.crash_seeded(kind, seed);
        }
        self.replica = self.pair.start_replica().await.unwrap();
    }
}

#[test]
fn writes_stream_and_epochs_end_with_cuts() {
    run(|| async {
        let mut life = Life::new(1, Mode::Async, |_| {}).await;
        let catch_ups = life.replica.progress().commits.get();
        life.some_writes(300).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        life.equal().await;
        let view = life.replica.stream_view();
        assert!(view.streaming.get() && view.cuts.get() >= 2, "{view:?}");
        assert_eq!(view.writes.get(), 300);
        assert_eq!(life.replica.progress().commits.get(), catch_ups, "no catch-up was needed");
        let cuts = life.source.store().with(|s| {
            let streamed = |c: &&grain::Cut| c.reason == CutReason::Stream;
            (s.lineage.cuts().iter().filter(streamed).count(), s.layers.closed.len())
        });
        assert!(cuts.0 <= 4 && cuts.1 <= 4, "cuts and layers are let go: {cuts:?}");
        let alone = life.source.store().with(|s| s.peers[0].alone.clone());
        assert_eq!(alone, None, "nothing was acknowledged alone");
    });
}

#[test]
fn a_replica_that_crashes_at_any_time_holds_a_state_that_the_source_was_in() {
    run(|| async {
        let mut life = Life::new(2, Mode::Async, |_| {}).await;
        let mut last = 0;
        for round in 0..60 {
            life.some_writes(7).await;
            let pause = life.below(300);
            tokio::time::sleep(Duration::from_millis(pause)).await;
            for kind in [Crash::Kill, Crash::PowerCut] {
                let holds = life.recovered(kind, round).await;
                assert!(holds + 40 >= life.writes.len(), "{holds} of {}", life.writes.len());
                last = last.max(holds);
            }
        }
        assert!(last > 300);
        life.equal().await;
    });
}

#[test]
fn a_broken_link_costs_only_what_came_since_the_last_cut() {
    run(|| async {
        let mut life = Life::new(3, Mode::Async, |_| {}).await;
        for round in 0..12 {
            life.some_writes(40).await;
            life.cut_link().await;
            if round % 3 == 1 {
                life.some_writes(9).await;
            }
            if round % 4 == 2 {
                life.restart_replica(Crash::PowerCut, round).await;
            }
            let verdict = {
                life.connect().await;
                life.session.as_ref().unwrap().progress.verdict.borrow().clone().unwrap()
            };
            assert!(matches!(verdict.rule, Rule::Delta | Rule::InStep), "{verdict:?}");
        }
        life.equal().await;
    });
}

#[test]
fn in_sync_mode_what_was_answered_is_at_the_replica() {
    run(|| async {
        let mut life = Life::new(4, SYNC, |_| {}).await;
        life.mirroring().await;
        for round in 0..60 {
            life.some_writes(5).await;
            let written = life.writes.len();
            let holds = life.recovered(Crash::Kill, round).await;
            assert_eq!(holds, written, "answered, and not in the replica's journal");
            life.some_writes(2).await;
            life.source.flush().await.unwrap();
            let flushed = life.writes.len();
            let holds = life.recovered(Crash::PowerCut, round).await;
            assert_eq!(holds, flushed, "flushed, and not durable at the replica");
        }
        life.cut_link().await;
        // It goes on alone, after a mark that says so.
        life.write().await.unwrap();
        assert!(life.source.store().with(|s| s.peers[0].alone.is_some()));
        life.connect().await;
        life.mirroring().await;
        life.write().await.unwrap();
        assert_eq!(life.source.store().with(|s| s.peers[0].alone.clone()), None);
    });
}

#[test]
fn a_source_that_crashed_in_the_middle_of_an_epoch_is_followed_again_by_itself() {
    for (seed, kind) in [(5, Crash::Kill), (6, Crash::PowerCut), (7, Crash::PowerCut)] {
        run(|| async {
            let mut life = Life::new(seed, SYNC, |_| {}).await;
            life.mirroring().await;
            for round in 0..6 {
                life.some_writes(23).await;
                life.source.flush().await.unwrap();
                life.restart_source(kind, round).await;
                life.connect().await;
                life.mirroring().await;
                life.equal().await;
            }
        });
    }
}

#[test]
fn a_clean_stop_of_either_side_is_followed_by_a_delta() {
    run(|| async {
        let mut life = Life::new(8, Mode::Async, |_| {}).await;
        for round in 0..6 {
            life.some_writes(30).await;
            life.cut_link().await;
            if round % 2 == 0 {
                life.source.stop().await.unwrap();
                life.pair.source_machine.crash_seeded(Crash::PowerCut, round);
                life.source = life.pair.start_source().await.unwrap();
            } else {
                life.replica.stop().await.unwrap();
                life.pair.replica_machine.crash_seeded(Crash::PowerCut, round);
                life.replica = life.pair.start_replica().await.unwrap();
            }
            life.connect().await;
        }
        life.equal().await;
    });
}

#[test]
fn a_peer_that_is_too_slow_ends_the_stream_and_catches_up() {
    run(|| async {
        let mut life = Life::new(9, Mode::Async, |pair| {
            pair.serve.stream.queue_bytes = 20_000;
        })
        .await;
        let progress = life.session.as_ref().unwrap().progress.clone();
        for _ in 0..30 {
            let before = tokio::time::Instant::now();
            for _ in 0..20 {
                life.write().await.unwrap();
            }
            assert!(before.elapsed() < Duration::from_secs(1), "writers do not wait for the link");
            let pause = life.below(900);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        assert!(progress.stream.overflows.get() > 0, "{progress:?}");
        life.equal().await;
        // By itself it streams again.
        life.streaming().await;
        life.write().await.unwrap();
        life.equal().await;
    });
}

#[test]
fn a_peer_that_hangs_does_not_hang_the_application() {
    run(|| async {
        let mut life = Life::new(10, SYNC, |pair| {
            pair.serve.stream.age_limit = Duration::from_secs(3);
        })
        .await;
        life.mirroring().await;
        life.write().await.unwrap();
        life.delay.set(Duration::from_secs(3600));
        let before = tokio::time::Instant::now();
        life.write().await.unwrap();
        let took = before.elapsed();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
        assert!(life.source.store().with(|s| s.peers[0].alone.is_some()), "answered alone");
    });
}

#[test]
fn with_block_writes_wait_for_the_peer_and_fail_in_the_end() {
    run(|| async {
        let block = Mode::Sync { on_link_loss: OnLinkLoss::Block { limit_ms: 20_000 } };
        let mut life = Life::new(11, block, |_| {}).await;
        life.mirroring().await;
        life.write().await.unwrap();
        life.cut_link().await;
        let source = life.source.clone();
        let waits = tokio::task::spawn_local(async move {
            let data = Change::Data(vec![9; 100].into());
            source.write(VolumeId(0), 50, data, false).await
        });
        life.image[0][50..150].fill(9);
        life.writes.push((0, 50, vec![9; 100]));
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waits.is_finished(), "it waits");
        life.connect().await;
        waits.await.unwrap().expect("the peer came back");
        life.equal().await;
        assert_eq!(life.source.store().with(|s| s.peers[0].alone.clone()), None);
        life.cut_link().await;
        let before = tokio::time::Instant::now();
        let refused = life.write().await.expect_err("nobody came back");
        assert!(before.elapsed() >= Duration::from_secs(19), "{refused}");
        assert!(refused.to_string().contains("not acknowledged"), "{refused}");
        let alone = life.source.store().with(|s| s.peers[0].alone.clone());
        assert_eq!(alone, None, "nothing was acknowledged alone");
        // The operator's word ends it.
        life.pair.keep(&life.source, Mode::Async).await;
        life.write().await.unwrap();
        assert!(life.source.store().with(|s| s.peers[0].alone.is_some()));
        life.connect().await;
        life.equal().await;
    });
}

#[test]
fn the_mode_is_changed_while_it_runs() {
    run(|| async {
        let mut life = Life::new(12, Mode::Async, |_| {}).await;
        let hour = Mode::Cycle { every_ms: Some(3_600_000) };
        life.some_writes(20).await;
        life.pair.keep(&life.source, hour).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!life.replica.stream_view().streaming.get());
        assert_eq!(life.replica.stream_view().mode.get(), Some(hour));
        life.some_writes(20).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(life.pair.replica_content().await != life.image, "the next cycle is far");
        assert!(life.source.store().with(|s| s.peers[0].alone.is_some()));
        life.pair.keep(&life.source, SYNC).await;
        life.streaming().await;
        life.mirroring().await;
        life.write().await.unwrap();
        assert_eq!(life.recovered(Crash::Kill, 1).await, life.writes.len());
        life.pair.keep(&life.source, Mode::Async).await;
        life.some_writes(20).await;
        life.equal().await;
        assert!(life.replica.stream_view().streaming.get(), "the same stream goes on");
    });
}

#[test]
fn a_stream_survives_cuts_of_others_and_a_dump() {
    run(|| async {
        let mut life = Life::new(13, Mode::Async, |_| {}).await;
        for _ in 0..20 {
            life.some_writes(10).await;
            let cut = life.source.cut(CutReason::Bookmark, |_| Vec::new()).await.unwrap();
            life.some_writes(3).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(life.replica.store().with(|s| s.lineage.contains(cut.cut.id)));
        }
        life.equal().await;
        assert!(life.replica.stream_view().streaming.get());
    });
}
