//! The rig: machines, states made by hand as `init` and a loaded media set would leave them, a link.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::simulated::{Crash, SimMachine, SplitMix64};
use disk::{Context, OpenMode};
use grain::{
    CutId, CutReason, Geometry, GrainSize, Lineage, RelationshipId, SetId, VolumeId, VolumeShape,
};
use replication::protocol;
use replication::replica::{self, FollowEnd, FollowSettings, Replica, follow};
use replication::source::{
    self, Change, LinkProgress, ServeSettings, Source, StreamSettings, serve_link,
};
use replication::state::{
    LayerTable, Mode, Peer, ReplicaState, Role, RunRecord, STATE_VERSION, SetRecord, SetStage,
    State, StateStore,
};
use wire::link::{Cable, Calm, LinkConfig, MemoryPair, Weather, memory_pair};
use wire::{Identity, SiteKeys};

use crate::oracle::{Oracle, assert_same, read_volumes};

/// Bytes of a grain in these tests.
pub const GRAIN: u64 = 4096;
const DIR: &str = "/site";

/// Where volume `number` is, on either machine.
pub fn volume_path(number: usize) -> PathBuf {
    PathBuf::from(format!("/volumes/{number}"))
}

/// Runs a test on a paused clock; a hang ends it after a virtual day.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let local = tokio::task::LocalSet::new();
    let limit = Duration::from_secs(86_400);
    let ended =
        local.block_on(&runtime.unwrap(), async { tokio::time::timeout(limit, test()).await });
    ended.expect("the test hangs");
}

/// Both sites.
pub struct Pair {
    pub source_machine: SimMachine,
    pub replica_machine: SimMachine,
    pub geometry: Geometry,
    pub source_keys: Rc<SiteKeys>,
    pub source_id: Identity,
    pub replica_id: Identity,
    pub oracle: Oracle,
    pub serve: ServeSettings,
    pub follow: FollowSettings,
    pub source_settings: source::Settings,
    pub replica_settings: replica::Settings,
}

/// How a session ended at both sides.
#[derive(Debug)]
pub struct Ended {
    pub source: Option<replication::Result<()>>,
    pub replica: Option<replication::Result<FollowEnd>>,
    pub progress: Rc<LinkProgress>,
}

impl Ended {
    /// The cut at which the replica is in step.
    pub fn in_step(&self) -> CutId {
        match &self.replica {
            Some(Ok(FollowEnd::InStep(cut))) => *cut,
            other => panic!("not in step: {other:?}; the source says {:?}", self.source),
        }
    }
}

/// A running session.
pub struct Session {
    pub serving: tokio::task::JoinHandle<replication::Result<()>>,
    pub following: tokio::task::JoinHandle<replication::Result<FollowEnd>>,
    pub near: tokio::task::JoinHandle<()>,
    pub far: tokio::task::JoinHandle<()>,
    pub cable: Cable,
    pub progress: Rc<LinkProgress>,
}

impl Session {
    /// Waits for the end of both sides.
    pub async fn ended(self) -> Ended {
        let (replica, source) = (self.following.await.ok(), self.serving.await.ok());
        self.near.abort();
        self.far.abort();
        Ended { source, replica, progress: self.progress }
    }

    /// The source's process is gone.
    pub fn abort_source(&self) {
        self.serving.abort();
        self.near.abort();
    }

    /// The replica's process is gone.
    pub fn abort_replica(&self) {
        self.following.abort();
        self.far.abort();
    }
}

impl Pair {
    /// Two machines with volumes of these sizes; the source has a state, the replica nothing yet.
    pub async fn new(seed: u64, sizes: &[u64]) -> Pair {
        let grain = GrainSize::from_bytes(GRAIN).unwrap();
        let shape =
            |(i, bytes): (usize, &u64)| VolumeShape { alias: format!("v{i}"), bytes: *bytes };
        let volumes = sizes.iter().enumerate().map(shape).collect();
        let geometry = Geometry { grain, volumes };
        let mut random = SplitMix64::new(seed);
        let machine = |random: &mut SplitMix64| SimMachine::new(random.next_u64());
        let journal = journal::Config {
            dir: Path::new(DIR).join("journal"),
            segment_bytes: 2 << 20,
            max_bytes: 64 << 20,
            max_records: 1 << 16,
            keep_points: false,
        };
        let source_keys = Rc::new(SiteKeys::generate().unwrap());
        let pair = Pair {
            source_machine: machine(&mut random),
            replica_machine: machine(&mut random),
            geometry,
            source_id: source_keys.identity(),
            source_keys,
            replica_id: SiteKeys::generate().unwrap().identity(),
            oracle: Oracle::default(),
            serve: ServeSettings {
                buffer_bytes: 4 << 20,
                side_bytes: 0,
                side_dir: DIR.into(),
                preserve_wait: Duration::from_secs(2),
                stream: StreamSettings::default(),
            },
            follow: FollowSettings { once: true, in_step_bytes: 0, ..FollowSettings::default() },
            source_settings: source::Settings::default(),
            replica_settings: replica::Settings {
                journal,
                history: replica::HistorySettings {
                    dir: Path::new(DIR).join("history"),
                    retain: replica::Retain::default(),
                },
                apply_at_start: true,
                promote_past: 64 << 20,
                allow_direct: false,
                layer_history_bytes: 1 << 20,
                accept_touched: false,
            },
        };
        let ctx = pair.source_machine.context();
        let blank = sizes.iter().map(|bytes| vec![0; *bytes as usize]).collect::<Vec<_>>();
        put_volumes(&ctx, &blank).await;
        let peer = Peer::new(pair.replica_id.to_string());
        let state = State { peers: vec![peer], ..pair.state(Role::Source) };
        StateStore::create(&ctx, Path::new(DIR), state).await.unwrap();
        pair
    }

    fn state(&self, role: Role) -> State {
        State {
            version: STATE_VERSION,
            relationship: RelationshipId::from_bytes([7; 16]),
            name: "pair".into(),
            geometry: self.geometry.clone(),
            volumes: (0..self.geometry.volumes.len()).map(volume_path).collect(),
            role,
            lineage: Lineage::new(),
            synced: None,
            layers: LayerTable::default(),
            peers: Vec::new(),
            sets: Vec::new(),
            suspect: None,
            run: RunRecord::default(),
            replica: None,
            promoted: None,
            bookmarks: Vec::new(),
            backlog: None,
        }
    }

    /// Starts the source's process.
    pub async fn start_source(&self) -> replication::Result<Rc<Source>> {
        let ctx = self.source_machine.context();
        let store = StateStore::open(&ctx, Path::new(DIR)).await?;
        self.oracle.watch(&self.source_machine, &store);
        let settings = self.source_settings.clone();
        Source::start(&ctx, Path::new(DIR), &store, settings).await
    }

    /// Starts a source on a machine that became one.
    pub async fn start_source_on(&self, machine: &SimMachine) -> replication::Result<Rc<Source>> {
        let ctx = machine.context();
        let store = StateStore::open(&ctx, Path::new(DIR)).await?;
        Source::start(&ctx, Path::new(DIR), &store, self.source_settings.clone()).await
    }

    /// Starts the replica's process.
    pub async fn start_replica(&self) -> replication::Result<Rc<Replica>> {
        self.start_replica_on(&self.replica_machine).await
    }

    /// The same on another machine, for a look at what a crash left.
    pub async fn start_replica_on(&self, machine: &SimMachine) -> replication::Result<Rc<Replica>> {
        let ctx = machine.context();
        let store = StateStore::open(&ctx, Path::new(DIR)).await?;
        Replica::start(&ctx, Path::new(DIR), &store, self.replica_settings.clone()).await
    }

    /// Makes a cut and puts the replica at it, as a loaded media set would.
    pub async fn seed(&self, source: &Rc<Source>) -> CutId {
        let cut = source.cut(CutReason::Dump, |_| Vec::new()).await.unwrap().cut;
        self.oracle.look(&self.source_machine);
        let set = SetRecord {
            id: SetId::new(cut.unix_ms, [1; 10]),
            cut: cut.id,
            end: None,
            stage: SetStage::Finished,
            media: Vec::new(),
            unix_ms: cut.unix_ms,
            options: serde_json::Value::Null,
            root_digest: None,
            fingerprint: None,
            unreadable_grains: 0,
            media_bytes: 0,
        };
        source.store().update(|s| s.sets.push(set)).await.unwrap();
        let content = self.oracle.at(cut.id, self.geometry.volumes.len()).await;
        let lineage = source.store().with(|s| s.lineage.up_to(cut.id)).unwrap();
        self.create_replica(lineage, &content).await;
        cut.id
    }

    /// A replica with this lineage and content.
    pub async fn create_replica(&self, lineage: Lineage, content: &[Vec<u8>]) {
        let ctx = self.replica_machine.context();
        put_volumes(&ctx, content).await;
        let replica =
            ReplicaState { source: self.source_id.to_string(), ..ReplicaState::default() };
        let state = State { lineage, replica: Some(replica), ..self.state(Role::Replica) };
        StateStore::create(&ctx, Path::new(DIR), state).await.unwrap();
    }

    /// Changes the replica's state behind its back.
    pub async fn change_replica(&self, change: impl FnOnce(&mut State)) {
        let ctx = self.replica_machine.context();
        let store = StateStore::open(&ctx, Path::new(DIR)).await.unwrap();
        store.update(change).await.unwrap();
    }

    /// A second process on a copy of the replica's machine.
    pub async fn twin_of_replica(&self) -> Rc<Replica> {
        let twin = SimMachine::new(1);
        twin.restore(&self.replica_machine.snapshot());
        twin.crash_seeded(Crash::Kill, 0);
        self.start_replica_on(&twin).await.unwrap()
    }

    /// Sets how the replica is kept.
    pub async fn keep(&self, source: &Rc<Source>, mode: Mode) {
        source.set_mode(&self.replica_id.to_string(), mode).await.unwrap();
    }

    /// Connects the sites.
    pub fn connect(&self, source: &Rc<Source>, replica: &Rc<Replica>) -> Session {
        self.connect_through(source, replica, Calm)
    }

    /// Connects the sites through this weather.
    pub fn connect_through(
        &self,
        source: &Rc<Source>,
        replica: &Rc<Replica>,
        weather: impl Weather + 'static,
    ) -> Session {
        self.connect_over(self.link(weather), source, replica)
    }

    /// Connects them over this link: near is the source.
    pub fn connect_over(
        &self,
        link: MemoryPair,
        source: &Rc<Source>,
        replica: &Rc<Replica>,
    ) -> Session {
        let MemoryPair { near, far, near_session, far_session, cable } = link;
        let progress = Rc::new(LinkProgress::default());
        let (source, serve, shown) = (source.clone(), self.serve.clone(), progress.clone());
        let serving = tokio::task::spawn_local(async move {
            let (connection, inbox) = protocol::open(near);
            serve_link(&source, connection, inbox, &serve, &shown).await
        });
        let (replica, settings) = (replica.clone(), self.follow.clone());
        let following = tokio::task::spawn_local(async move {
            let (connection, inbox) = protocol::open(far);
            follow(&replica, connection, inbox, &settings, |_| {}).await
        });
        let near = tokio::task::spawn_local(near_session);
        let far = tokio::task::spawn_local(far_session);
        Session { serving, following, near, far, cable, progress }
    }

    /// Two ends of a link: near is the source.
    pub fn link(&self, weather: impl Weather + 'static) -> MemoryPair {
        let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
        memory_pair(self.source_id, self.replica_id, 1, &config, weather)
    }

    /// The same where the site that was the replica is the source.
    pub fn link_back(&self, weather: impl Weather + 'static) -> MemoryPair {
        let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
        memory_pair(self.replica_id, self.source_id, 1, &config, weather)
    }

    /// One whole session.
    pub async fn attach(&self, source: &Rc<Source>, replica: &Rc<Replica>) -> Ended {
        self.connect(source, replica).ended().await
    }

    /// What the source's volumes hold now.
    pub async fn source_content(&self) -> Vec<Vec<u8>> {
        read_volumes(&self.source_machine.context(), self.geometry.volumes.len()).await
    }

    /// What the replica's base holds now.
    pub async fn replica_content(&self) -> Vec<Vec<u8>> {
        read_volumes(&self.replica_machine.context(), self.geometry.volumes.len()).await
    }

    /// The base is the source at `cut`.
    pub async fn assert_replica_at(&self, cut: CutId) {
        let expected = self.oracle.at(cut, self.geometry.volumes.len()).await;
        assert_same(&self.replica_content().await, &expected, GRAIN as usize, "replica");
    }

    /// Both sites hold the same now.
    pub async fn assert_equal(&self) {
        let (left, right) = (self.source_content().await, self.replica_content().await);
        assert_same(&left, &right, GRAIN as usize, "source and replica");
    }

    /// What a start after this crash of the replica's machine announces as consistent is the source at
    /// that cut, exactly. Gives the cut announced.
    pub async fn assert_recovers(
        &self,
        at: &disk::simulated::Snapshot,
        kind: Crash,
        seed: u64,
    ) -> Option<CutId> {
        let scratch = SimMachine::new(seed);
        scratch.restore(at);
        scratch.crash_seeded(kind, seed);
        let replica = self.start_replica_on(&scratch).await.expect("a start after a crash");
        if !replica.is_consistent() {
            return None;
        }
        let cut = replica.head()?;
        let content = read_volumes(&scratch.context(), self.geometry.volumes.len()).await;
        let expected = self.oracle.at(cut, self.geometry.volumes.len()).await;
        assert_same(&content, &expected, GRAIN as usize, "a recovered replica");
        Some(cut)
    }
}

/// Writes whole volumes, durable.
pub async fn put_volumes(ctx: &Context, content: &[Vec<u8>]) {
    ctx.storage.create_dir(Path::new("/volumes")).await.unwrap();
    ctx.storage.create_dir(Path::new(DIR)).await.unwrap();
    for (number, bytes) in content.iter().enumerate() {
        let path = volume_path(number);
        let file = ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap();
        file.set_len(bytes.len() as u64).await.unwrap();
        for (at, piece) in bytes.chunks(GRAIN as usize).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                let piece = Bytes::copy_from_slice(piece);
                file.write_at(at as u64 * GRAIN, piece).await.unwrap();
            }
        }
        file.sync_data().await.unwrap();
    }
    ctx.storage.sync_dir(Path::new("/volumes")).await.unwrap();
}

/// Writes `len` bytes of `value` as an application does.
pub async fn write(source: &Rc<Source>, volume: u16, offset: u64, len: usize, value: u8) {
    let data = Change::Data(vec![value; len].into());
    source.clone().write(VolumeId(volume), offset, data, false).await.unwrap();
}

/// Fills a grain.
pub async fn fill(source: &Rc<Source>, volume: u16, grain: u64, value: u8) {
    write(source, volume, grain * GRAIN, GRAIN as usize, value).await;
}
