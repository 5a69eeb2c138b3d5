//! A replica in small: a journal and a base on a simulated machine, and the model that says which
//! bytes must be there.
//!
//! Every grain's content is made from a stamp, so that the model is a map from grains to stamps.
//! Appends of a session are kept in the order of the log: what a crash may cut off is a tail of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use disk::simulated::{SimMachine, SplitMix64};
use disk::{Context, File, OpenMode};
use grain::{
    Content, CutId, Geometry, GrainData, GrainSet, GrainSize, Run, SessionId, Span, SpanData,
    VolumeId, VolumeShape,
};
use journal::{ApplyBatch, Config, Error, Journal, Recovered};

/// A grain's content; 0 is zeros.
pub type Stamp = u64;
pub type Grain = (VolumeId, u64);
pub type Grains = BTreeMap<Grain, Stamp>;

/// One append of the model.
#[derive(Clone, Debug)]
pub struct Append {
    pub sequence: u64,
    pub run: Run,
    pub stamps: Vec<Stamp>,
    pub bytes: u64,
}

/// A session of the model.
#[derive(Clone, Debug)]
pub struct Session {
    pub cut: CutId,
    pub appends: Vec<Append>,
    /// So many of them are known to be durable.
    pub durable: usize,
}

/// What must be there.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Committed content.
    pub grains: Grains,
    pub sessions: BTreeMap<SessionId, Session>,
    pub commits: u64,
    /// The content if the commit under way counts, and its sessions.
    pub under_way: Option<(Grains, Vec<SessionId>)>,
    /// The session whose abort is under way.
    pub aborting: Option<SessionId>,
}

pub struct World {
    pub machine: SimMachine,
    pub geometry: Geometry,
    pub config: Config,
    pub random: SplitMix64,
    pub model: Model,
    pub next_id: u64,
    pub ctx: Context,
    pub journal: Option<Rc<Journal>>,
}

pub fn small_geometry() -> Geometry {
    let shape = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
    Geometry {
        grain: GrainSize::MIN,
        volumes: vec![shape("a", 40 * 4096 + 512), shape("b", 9 * 4096)],
    }
}

pub fn small_config() -> Config {
    Config {
        segment_bytes: 64 << 10,
        max_bytes: 16 * (64 << 10),
        max_records: 10_000,
        ..Config::new("/journal")
    }
}

pub fn content(stamp: Stamp, len: usize) -> Vec<u8> {
    if stamp == 0 {
        return vec![0; len];
    }
    let mut random = SplitMix64::new(stamp);
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend_from_slice(&stamp.to_le_bytes());
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl World {
    pub fn new(seed: u64) -> World {
        let machine = SimMachine::new(seed);
        let ctx = machine.context();
        World {
            machine,
            geometry: small_geometry(),
            config: small_config(),
            random: SplitMix64::new(seed ^ 0x5eed),
            model: Model::default(),
            next_id: 1,
            ctx,
            journal: None,
        }
    }

    pub fn journal(&self) -> Rc<Journal> {
        self.journal.clone().expect("the journal is open")
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    pub fn id(&mut self) -> [u8; 16] {
        self.next_id += 1;
        u128::from(self.next_id).to_le_bytes()
    }

    pub fn bytes_of(&self, grain: Grain, stamp: Stamp) -> Vec<u8> {
        let range = self.geometry.byte_range(grain.0, grain.1, 1);
        content(stamp, (range.end - range.start) as usize)
    }

    fn base_path(volume: VolumeId) -> PathBuf {
        PathBuf::from(format!("/base-{}", volume.0))
    }

    pub async fn base(&self, volume: VolumeId) -> std::io::Result<Rc<dyn File>> {
        self.ctx.storage.open(&Self::base_path(volume), OpenMode::ReadWrite).await
    }

    /// Makes the base volumes, durable and zero.
    pub async fn make_base(&self) {
        for (id, shape) in self.geometry.iter() {
            let path = Self::base_path(id);
            let file = self.ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap();
            file.set_len(shape.bytes).await.unwrap();
            file.sync_data().await.unwrap();
        }
        self.ctx.storage.sync_dir(Path::new("/")).await.unwrap();
    }

    /// A process starts: opens the journal.
    pub async fn open(&mut self) -> Result<Recovered, Error> {
        self.journal = None;
        self.ctx = self.machine.context();
        let opened = Journal::open(self.ctx.clone(), self.config.clone(), self.geometry.clone());
        let (journal, recovered) = opened.await?;
        self.journal = Some(journal);
        Ok(recovered)
    }

    pub fn begin(&mut self) -> Result<SessionId, Error> {
        let (session, cut) = (SessionId::from_bytes(self.id()), CutId::from_bytes(self.id()));
        self.journal().begin_session(session, cut)?;
        let fresh = Session { cut, appends: Vec::new(), durable: 0 };
        self.model.sessions.insert(session, fresh);
        Ok(session)
    }

    pub fn random_run(&mut self, longest: u64) -> Run {
        let volume = VolumeId(self.below(2) as u16);
        let grains = self.geometry.grains(volume);
        let first = self.below(grains);
        let count = 1 + self.below(longest.min(grains - first));
        Run { volume, first, count }
    }

    pub async fn append(
        &mut self,
        session: SessionId,
        sequence: u64,
        run: Run,
        zero: bool,
    ) -> Result<(), Error> {
        let stamps: Vec<Stamp> =
            (0..run.count).map(|_| if zero { 0 } else { self.random.next_u64() | 1 }).collect();
        let mut bytes = Vec::new();
        for (i, stamp) in stamps.iter().enumerate() {
            bytes.extend(self.bytes_of((run.volume, run.first + i as u64), *stamp));
        }
        let digest = *blake3::hash(&bytes).as_bytes();
        let payload = if zero { 0 } else { bytes.len() as u64 };
        let content = if zero { Content::Zero } else { Content::Data(bytes.into()) };
        let append = Append { sequence, run, stamps, bytes: (128 + payload).next_multiple_of(16) };
        // Before the call: after a crash in the middle of it, the record may be there.
        let open = self.model.sessions.get_mut(&session).expect("the session is open");
        open.appends.push(append);
        let data = GrainData { run, content };
        let done = self.journal().append(session, sequence, &data, digest).await;
        if let Err(Error::Full { .. } | Error::TooManyRecords { .. } | Error::NoSpace { .. }) = done
        {
            self.model.sessions.get_mut(&session).expect("still open").appends.pop();
        }
        done
    }

    pub async fn sync(&mut self) -> Result<(), Error> {
        self.journal().sync().await?;
        for session in self.model.sessions.values_mut() {
            session.durable = session.appends.len();
        }
        Ok(())
    }

    /// The content after a commit of these sessions.
    pub fn committed(&self, sessions: &[SessionId]) -> Grains {
        let mut grains = self.model.grains.clone();
        for session in sessions {
            let mut appends = self.model.sessions[session].appends.clone();
            appends.sort_by_key(|append| append.sequence);
            for append in appends {
                for (i, stamp) in append.stamps.iter().enumerate() {
                    grains.insert((append.run.volume, append.run.first + i as u64), *stamp);
                }
            }
        }
        grains
    }

    pub async fn commit(&mut self, sessions: &[SessionId]) -> Result<u64, Error> {
        let cut = CutId::from_bytes(self.id());
        self.model.under_way = Some((self.committed(sessions), sessions.to_vec()));
        let body = Bytes::from(format!("commit {}", self.model.commits + 1));
        let done = self.journal().commit(sessions, cut, body).await;
        match &done {
            Ok(number) => {
                assert_eq!(*number, self.model.commits + 1);
                self.model.count();
            }
            Err(Error::Failed { .. }) => {}
            Err(_) => self.model.under_way = None,
        }
        done
    }

    pub async fn abort(&mut self, session: SessionId) -> Result<(), Error> {
        self.model.aborting = Some(session);
        let done = self.journal().abort(&[session]).await;
        if done.is_ok() {
            self.model.sessions.remove(&session);
        }
        if !matches!(done, Err(Error::Failed { .. })) {
            self.model.aborting = None;
        }
        done
    }

    /// One batch into the base. False when there was none.
    pub async fn apply(&mut self, max_bytes: u64) -> Result<bool, Error> {
        let journal = self.journal();
        let Some(batch) = journal.next_apply(max_bytes) else { return Ok(false) };
        self.write_to_base(&batch).await?;
        journal.applied(batch).await?;
        Ok(true)
    }

    /// Writes a batch to the base, and syncs it.
    pub async fn write_to_base(&self, batch: &ApplyBatch) -> Result<(), Error> {
        let failed = |source: std::io::Error| Error::Io {
            action: "write",
            path: "/base".into(),
            source: Rc::new(source),
        };
        for i in 0..batch.len() {
            let data = batch.read(i).await?;
            let base = self.base(data.span.volume).await.map_err(failed)?;
            let bytes = bytes_in(&data).into();
            base.write_at(data.span.start, bytes).await.map_err(failed)?;
        }
        for (volume, _) in self.geometry.iter() {
            let base = self.base(volume).await.map_err(failed)?;
            base.sync_data().await.map_err(failed)?;
        }
        Ok(())
    }

    /// What a reader sees of each volume: the base, with the journal laid over it. Grains whose bytes the
    /// journal reports as damaged are in the second set.
    pub async fn visible_bytes(&self) -> (Vec<Vec<u8>>, GrainSet) {
        let (mut images, mut damaged) = (Vec::new(), GrainSet::new());
        for (volume, shape) in self.geometry.iter() {
            let base = self.base(volume).await.unwrap();
            let mut image = base.read_at(0, shape.bytes as usize).await.unwrap();
            for piece in self.journal().lookup(Span { volume, start: 0, bytes: shape.bytes }) {
                let (from, to) = (piece.span().start as usize, piece.span().end() as usize);
                match piece.read().await {
                    Ok(data) => image[from..to].copy_from_slice(&bytes_in(&data)),
                    Err(Error::Damaged { run: hit, .. }) => {
                        assert_eq!(hit, piece.grains());
                        damaged.insert_run(hit);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            images.push(image);
        }
        (images, damaged)
    }

    /// The same grain by grain.
    pub async fn visible(&self) -> (BTreeMap<Grain, Vec<u8>>, GrainSet) {
        let (images, damaged) = self.visible_bytes().await;
        let mut seen = BTreeMap::new();
        for ((volume, _), image) in self.geometry.iter().zip(&images) {
            for index in 0..self.geometry.grains(volume) {
                let range = self.geometry.byte_range(volume, index, 1);
                let bytes = image[range.start as usize..range.end as usize].to_vec();
                seen.insert((volume, index), bytes);
            }
        }
        (seen, damaged)
    }

    pub fn shows(&self, seen: &BTreeMap<Grain, Vec<u8>>, grains: &Grains) -> bool {
        seen.iter().all(|(grain, bytes)| {
            let stamp = grains.get(grain).copied().unwrap_or(0);
            *bytes == self.bytes_of(*grain, stamp)
        })
    }

    /// Checks what a reader sees against the committed content.
    pub async fn check(&self) {
        let (seen, damaged) = self.visible().await;
        assert!(damaged.is_empty(), "nothing was damaged: {damaged:?}");
        assert!(self.shows(&seen, &self.model.grains), "a reader sees other bytes");
    }

    /// After a crash and an opening: what must be there is there, and the model goes on with it.
    pub async fn settle(&mut self, recovered: &Recovered) {
        assert_eq!(recovered.damage, vec![], "a crash is no damage");
        let (seen, damaged) = self.visible().await;
        assert!(damaged.is_empty());
        let last = recovered.commits.last().map_or(0, |commit| commit.number);
        if let Some((grains, _)) = self.model.under_way.clone()
            && last == self.model.commits + 1
        {
            assert!(self.shows(&seen, &grains), "the commit counts, and is not whole");
            self.model.count();
        }
        self.model.under_way = None;
        assert!(last <= self.model.commits);
        assert!(self.shows(&seen, &self.model.grains), "other bytes than the last commit's");
        for commit in &recovered.commits {
            assert_eq!(commit.body, format!("commit {}", commit.number));
        }
        let mut survivors = BTreeMap::new();
        for state in &recovered.sessions {
            let known = self.model.sessions.get(&state.session).expect("no session from nowhere");
            assert_eq!(known.cut, state.cut);
            survivors.insert(state.session, known.prefix(state.bytes, &state.received));
        }
        for (id, session) in &self.model.sessions {
            let may_go = session.durable == 0 || self.model.aborting == Some(*id);
            let there = survivors.contains_key(id) || may_go;
            assert!(there, "a session with durable records is gone");
        }
        self.model.sessions = survivors;
        self.model.aborting = None;
    }
}

impl Model {
    /// The commit under way counts.
    pub fn count(&mut self) {
        let Some((grains, sessions)) = self.under_way.take() else { return };
        self.grains = grains;
        self.commits += 1;
        self.sessions.retain(|id, _| !sessions.contains(id));
    }
}

impl Session {
    /// The session as recovered: a prefix of its appends, not shorter than what was durable.
    fn prefix(&self, bytes: u64, received: &GrainSet) -> Session {
        let (mut count, mut sum) = (0, 0);
        while sum < bytes {
            sum += self.appends[count].bytes;
            count += 1;
        }
        assert_eq!(sum, bytes, "what is there is a prefix of what was appended");
        assert!(count >= self.durable, "durable records are gone");
        let appends = self.appends[..count].to_vec();
        let expected: GrainSet = appends.iter().map(|append| append.run).collect();
        assert_eq!(*received, expected);
        Session { cut: self.cut, appends, durable: count }
    }
}

/// The bytes of a span, zeros written out.
pub fn bytes_in(data: &SpanData) -> Vec<u8> {
    match &data.content {
        Content::Data(bytes) => bytes.to_vec(),
        Content::Zero => vec![0; data.span.bytes as usize],
    }
}

/// Runs a test on one thread with a paused clock.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}
