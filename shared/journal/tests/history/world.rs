//! The applying half of a replica in small: a history and a base on a simulated machine, and the model that
//! says what each volume held at which moment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use disk::simulated::{SimMachine, SplitMix64};
use disk::{Context, File, OpenMode};
use grain::{Content, CutId, Geometry, GrainSize, Span, SpanData, VolumeId, VolumeShape};
use journal::history::{Config, Error, History, Moment, Opened, Point};

/// The bytes of each volume.
pub type Images = Vec<Vec<u8>>;

pub struct World {
    pub machine: SimMachine,
    pub ctx: Context,
    pub geometry: Geometry,
    pub config: Config,
    pub id: [u8; 16],
    pub random: SplitMix64,
    pub history: Option<Rc<History>>,
    pub model: Model,
}

#[derive(Clone, Default)]
pub struct Model {
    /// Volumes after each commit.
    pub at: BTreeMap<u64, Images>,
    /// The newest commit that is wholly in the base.
    pub commit: u64,
    pub split: u32,
    /// What the commit after it writes, while it is being applied.
    pub under_way: Option<Vec<SpanData>>,
    /// What the newest applied commit wrote.
    pub last: Vec<SpanData>,
    /// Looks of this life.
    pub views: BTreeMap<Moment, Images>,
    /// Points that were noted, and nobody tried to withdraw: by cut, with their commit.
    pub noted: BTreeMap<CutId, u64>,
    /// Those that are known to be durable.
    pub durable: BTreeSet<CutId>,
    /// Points that are withdrawn.
    pub withdrawn: BTreeSet<CutId>,
    pub next_cut: u128,
}

pub fn small_geometry() -> Geometry {
    let shape = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
    Geometry {
        grain: GrainSize::MIN,
        volumes: vec![shape("a", 12 * 4096 + 512), shape("b", 5 * 4096)],
    }
}

pub fn bytes_in(data: &SpanData) -> Vec<u8> {
    match &data.content {
        Content::Data(bytes) => bytes.to_vec(),
        Content::Zero => vec![0; data.span.bytes as usize],
    }
}

fn base_failed(source: io::Error) -> Error {
    Error::Io { action: "write", path: "/base".into(), source: Rc::new(source) }
}

impl World {
    pub async fn new(seed: u64) -> World {
        World::of(seed, small_geometry(), 48 << 10).await
    }

    pub async fn of(seed: u64, geometry: Geometry, segment_bytes: u64) -> World {
        let machine = SimMachine::new(seed);
        let ctx = machine.context();
        let config = Config { segment_bytes, ..Config::new("/history") };
        let mut model = Model::default();
        let images: Images = geometry.volumes.iter().map(|v| vec![0; v.bytes as usize]).collect();
        model.at.insert(0, images);
        let random = SplitMix64::new(seed ^ 0x5eed);
        let mut world =
            World { machine, ctx, geometry, config, id: [7; 16], random, history: None, model };
        for (id, shape) in world.geometry.iter() {
            let path = base_path(id);
            let file = world.ctx.storage.open(&path, OpenMode::CreateNew).await.unwrap();
            file.set_len(shape.bytes).await.unwrap();
            file.sync_data().await.unwrap();
        }
        world.ctx.storage.sync_dir(Path::new("/")).await.unwrap();
        world.open().await.unwrap();
        world
    }

    pub fn history(&self) -> Rc<History> {
        self.history.clone().expect("the history is open")
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.random.next_u64() % n
    }

    /// A process starts.
    pub async fn open(&mut self) -> Result<Opened, Error> {
        self.history = None;
        self.ctx = self.machine.context();
        let opened = History::open(&self.ctx, self.config.clone(), &self.geometry, self.id);
        let (history, opened) = opened.await?;
        self.history = Some(history);
        self.model.views.clear();
        self.model.split = 0;
        Ok(opened)
    }

    pub async fn base(&self, volume: VolumeId) -> Result<Rc<dyn File>, Error> {
        let opened = self.ctx.storage.open(&base_path(volume), OpenMode::ReadWrite).await;
        opened.map_err(base_failed)
    }

    pub async fn base_images(&self) -> Result<Images, Error> {
        let mut images = Images::new();
        for (volume, shape) in self.geometry.iter() {
            let base = self.base(volume).await?;
            images.push(base.read_at(0, shape.bytes as usize).await.map_err(base_failed)?);
        }
        Ok(images)
    }

    /// The volumes at a moment: the base first, the history over it.
    pub async fn view(&self, moment: Moment) -> Result<Images, Error> {
        let mut images = self.base_images().await?;
        for (volume, shape) in self.geometry.iter() {
            let span = Span { volume, start: 0, bytes: shape.bytes };
            let mut past = 0;
            for saved in self.history().lookup(moment, span).await? {
                let (from, to) = (saved.span().start as usize, saved.span().end() as usize);
                assert!(from >= past, "in order, without overlaps");
                past = to;
                let data = saved.read().await?;
                assert_eq!(data.span, saved.span());
                images[volume.index()][from..to].copy_from_slice(&bytes_in(&data));
            }
        }
        Ok(images)
    }

    fn random_span(&mut self) -> Span {
        let volume = VolumeId(self.below(self.geometry.volumes.len() as u64) as u16);
        let size = self.geometry.volumes[volume.index()].bytes;
        let unit = [1, 512, 4096, 4096][self.below(4) as usize];
        let start = self.below(size.div_ceil(unit)) * unit;
        let bytes = ((1 + self.below(3)) * unit).min(size - start);
        Span { volume, start, bytes }
    }

    pub fn random_writes(&mut self) -> Vec<SpanData> {
        let count = 1 + self.below(5);
        (0..count)
            .map(|_| {
                let span = self.random_span();
                let byte = (self.random.next_u64() % 255) as u8 + 1;
                let content = match self.below(5) {
                    0 => Content::Zero,
                    _ => {
                        let bytes = (0..span.bytes).map(|i| byte ^ (i % 251) as u8);
                        Content::Data(bytes.collect::<Vec<u8>>().into())
                    }
                };
                SpanData { span, content }
            })
            .collect()
    }

    pub fn moment(&self) -> Moment {
        Moment { commit: self.model.commit, split: self.model.split }
    }

    /// Captures what `writes` overwrite and is not captured yet, then writes them to the base.
    pub async fn overwrite(&mut self, moment: Moment, writes: &[SpanData]) -> Result<(), Error> {
        let mut saved = Vec::new();
        for write in writes {
            for span in self.history().uncaptured(moment, write.span) {
                let base = self.base(span.volume).await?;
                let bytes = base.read_at(span.start, span.bytes as usize).await;
                let content = Content::Data(bytes.map_err(base_failed)?.into());
                saved.push(SpanData { span, content });
            }
        }
        self.history().capture(moment, saved).await?;
        self.model.durable = self.model.noted.keys().copied().collect();
        for write in writes {
            let left = self.history().uncaptured(moment, write.span);
            assert!(left.is_empty() || moment.commit < self.history().oldest());
        }
        self.write_base(writes).await
    }

    pub async fn write_base(&self, writes: &[SpanData]) -> Result<(), Error> {
        for write in writes {
            let base = self.base(write.span.volume).await?;
            let written = base.write_at(write.span.start, bytes_in(write).into()).await;
            written.map_err(base_failed)?;
        }
        for (volume, _) in self.geometry.iter() {
            self.base(volume).await?.sync_data().await.map_err(base_failed)?;
        }
        Ok(())
    }

    /// Begins a commit, and applies some of it or all.
    pub async fn apply(&mut self, looks: bool) -> Result<(), Error> {
        let writes = match &self.model.under_way {
            Some(writes) => writes.clone(),
            None => self.random_writes(),
        };
        self.model.under_way = Some(writes.clone());
        for chunk in writes.chunks(2) {
            if looks && self.below(3) == 0 {
                self.look().await?;
            }
            self.overwrite(self.moment(), chunk).await?;
        }
        let mut images = self.model.at[&self.model.commit].clone();
        for write in &writes {
            let (from, to) = (write.span.start as usize, write.span.end() as usize);
            images[write.span.volume.index()][from..to].copy_from_slice(&bytes_in(write));
        }
        assert_eq!(self.base_images().await?, images);
        self.model.commit += 1;
        self.model.split = 0;
        self.model.at.insert(self.model.commit, images);
        self.model.under_way = None;
        self.model.last = writes;
        self.note(None).await
    }

    /// What was applied last is applied once more, as after a crash before the owner noted it.
    pub async fn apply_again(&mut self) -> Result<(), Error> {
        let Some(before) = self.model.commit.checked_sub(1) else { return Ok(()) };
        let writes = self.model.last.clone();
        self.overwrite(Moment::after(before), &writes).await
    }

    /// A view is taken of the base as it is.
    pub async fn look(&mut self) -> Result<(), Error> {
        let images = self.base_images().await?;
        self.model.split += 1;
        self.model.views.insert(self.moment(), images);
        Ok(())
    }

    /// Notes the replica as it is.
    pub async fn note(&mut self, label: Option<&str>) -> Result<(), Error> {
        self.model.next_cut += 1;
        let cut = CutId::from_bytes(self.model.next_cut.to_le_bytes());
        let commit = self.model.commit;
        let label = label.map(str::to_owned);
        let point = Point { commit, cut, unix_ms: commit * 1000, label };
        self.history().note_point(point).await?;
        if commit >= self.history().oldest() {
            self.model.noted.insert(cut, commit);
        }
        Ok(())
    }

    pub async fn sync(&mut self) -> Result<(), Error> {
        self.history().sync().await?;
        self.model.durable = self.model.noted.keys().copied().collect();
        Ok(())
    }

    fn try_to_withdraw(&mut self, which: impl Fn(u64) -> bool) -> BTreeSet<CutId> {
        let hit = self.model.noted.iter().filter(|(_, commit)| which(**commit));
        let hit: BTreeSet<CutId> = hit.map(|(cut, _)| *cut).collect();
        self.model.noted.retain(|cut, _| !hit.contains(cut));
        self.model.durable.retain(|cut| !hit.contains(cut));
        hit
    }

    pub async fn withdraw_from(&mut self, commit: u64) -> Result<(), Error> {
        let hit = self.try_to_withdraw(|c| c >= commit);
        self.history().withdraw_from(commit).await?;
        self.model.withdrawn.extend(hit);
        Ok(())
    }

    pub async fn withdraw_below(&mut self, below: u64) -> Result<(), Error> {
        let hit = self.try_to_withdraw(|c| c < below);
        self.model.views.retain(|moment, _| moment.commit >= below);
        self.history().withdraw_below(below).await?;
        self.model.withdrawn.extend(hit);
        assert!(self.history().oldest() >= below);
        Ok(())
    }

    pub async fn reset(&mut self) -> Result<(), Error> {
        let hit = self.try_to_withdraw(|_| true);
        self.model.views.clear();
        self.history().reset().await?;
        self.model.withdrawn.extend(hit);
        assert_eq!((self.history().points(), self.history().stats().records), (vec![], 0));
        Ok(())
    }

    /// Every point that is listed, and every look of this life, is what it was; what is known to be durable
    /// is listed, and what is withdrawn is not.
    pub async fn check(&self) {
        let points = self.history().points();
        assert!(points.is_sorted_by_key(|point| point.commit));
        let base = self.base_images().await.unwrap();
        for point in &points {
            assert!(!self.model.withdrawn.contains(&point.cut), "a withdrawn point is back");
            let moment = Moment::after(point.commit);
            let seen = self.view(moment).await.unwrap();
            let expected = &self.model.at[&point.commit];
            assert!(seen == *expected, "other bytes at {moment:?}");
            let changed = self.history().changed_since(moment).await.unwrap();
            for (volume, _) in self.geometry.iter() {
                for index in 0..self.geometry.grains(volume) {
                    let range = self.geometry.byte_range(volume, index, 1);
                    let range = range.start as usize..range.end as usize;
                    let (then, now) = (&expected[volume.index()], &base[volume.index()]);
                    let same = then[range.clone()] == now[range];
                    assert!(same || changed.contains(volume, index), "a change is left out");
                }
            }
        }
        for (moment, images) in &self.model.views {
            let seen = self.view(*moment).await.unwrap();
            assert!(seen == *images, "other bytes in the view at {moment:?}");
        }
        for cut in &self.model.durable {
            assert!(points.iter().any(|point| point.cut == *cut), "a durable point is gone");
        }
    }

    /// After a crash and an opening.
    pub async fn settle(&mut self, opened: &Opened) {
        assert_eq!(opened.damage, Vec::<String>::new(), "a crash is no damage");
        assert!(!opened.unbounded);
        let listed: BTreeSet<CutId> = self.history().points().iter().map(|p| p.cut).collect();
        self.model.noted.retain(|cut, _| listed.contains(cut));
        self.check().await;
    }
}

pub fn base_path(volume: VolumeId) -> PathBuf {
    PathBuf::from(format!("/base-{}", volume.0))
}

/// The segments, by name.
pub fn segments(world: &World) -> Vec<(PathBuf, Vec<u8>)> {
    let files = world.machine.files("/history").into_iter();
    files.map(|(path, _)| (path.clone(), world.machine.content(&path).unwrap().to_vec())).collect()
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
