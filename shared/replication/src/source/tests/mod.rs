//! Tests of the source on a simulated machine: random histories with crashes, errors at every
//! operation, damage at rest, gate, regions, alone marks.
//!
//! [`Site`] is one machine with the files of a relationship; it says what the volumes hold and runs
//! one life of the process after the other.

mod alone;
mod damage;
mod errors;
mod gate;
mod history;
mod peers;
mod regions;
mod restart;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::OpenMode;
use disk::simulated::{SimMachine, SplitMix64};
use grain::{
    CutId, CutReason, Geometry, GrainSet, GrainSize, Lineage, RelationshipId, VolumeId, VolumeShape,
};

use super::{Change, Settings, Source};
use crate::source::Written;
use crate::state::{LayerTable, Peer, Role, RunRecord, STATE_VERSION, State, StateStore};
use crate::{Error, Result};

/// 4 KiB.
pub(super) const GRAIN: u64 = 4096;
/// A region of volumes as small as these.
pub(super) const REGION: u64 = 4 << 20;
pub(super) const PEER: &str = "peer-one";

/// What the grains that tests write to hold.
pub(super) type Content = BTreeMap<(u16, u64), Vec<u8>>;

/// One machine with the files of a relationship.
#[derive(Clone)]
pub(super) struct Site {
    pub machine: SimMachine,
    pub geometry: Geometry,
    pub settings: Settings,
}

pub(super) fn dir() -> PathBuf {
    PathBuf::from("/state/one")
}

fn volume_path(i: usize) -> PathBuf {
    PathBuf::from(format!("/volumes/{i}"))
}

/// Runs a future with a `LocalSet` on a runtime whose time is paused. What it spawned is dropped with
/// it, as when a process ends.
pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.unwrap(), future)
}

impl Site {
    /// A fresh relationship: a volume of 24 MiB and 1000 bytes, and a small one.
    pub async fn new(seed: u64) -> Site {
        Site::with_volumes(seed, &[6 * REGION + 1000, 3 * GRAIN + 7]).await
    }

    pub async fn with_volumes(seed: u64, bytes: &[u64]) -> Site {
        let machine = SimMachine::new(seed);
        let ctx = machine.context();
        let shape =
            |(i, bytes): (usize, &u64)| VolumeShape { alias: format!("v{i}"), bytes: *bytes };
        let volumes: Vec<_> = bytes.iter().enumerate().map(shape).collect();
        let geometry = Geometry { grain: GrainSize::MIN, volumes };
        ctx.storage.create_dir(&dir()).await.unwrap();
        ctx.storage.create_dir("/volumes".as_ref()).await.unwrap();
        for (i, bytes) in bytes.iter().enumerate() {
            let file = ctx.storage.open(&volume_path(i), OpenMode::CreateNew).await.unwrap();
            file.set_len(*bytes).await.unwrap();
            file.sync_data().await.unwrap();
        }
        ctx.storage.sync_dir("/volumes".as_ref()).await.unwrap();
        let site = Site { machine, geometry, settings: Settings::default() };
        StateStore::create(&ctx, &dir(), site.first_state()).await.unwrap();
        site
    }

    fn first_state(&self) -> State {
        State {
            version: STATE_VERSION,
            relationship: RelationshipId::from_bytes([1; 16]),
            name: "one".to_owned(),
            geometry: self.geometry.clone(),
            volumes: (0..self.geometry.volumes.len()).map(volume_path).collect(),
            role: Role::Source,
            lineage: Lineage::new(),
            synced: None,
            layers: LayerTable::default(),
            peers: vec![Peer::new(PEER.to_owned())],
            sets: Vec::new(),
            suspect: None,
            run: RunRecord::default(),
            replica: None,
            promoted: None,
            bookmarks: Vec::new(),
            backlog: None,
        }
    }

    /// A process starts.
    pub async fn start(&self) -> Result<Rc<Source>> {
        let ctx = self.machine.context();
        let store = StateStore::open(&ctx, &dir()).await?;
        Source::start(&ctx, &dir(), &store, self.settings.clone()).await
    }

    /// What some grains hold on the disk of the machine now.
    pub async fn content(&self, grains: &GrainSet) -> Content {
        let ctx = self.machine.context();
        let mut content = Content::new();
        for (volume, _) in self.geometry.iter() {
            let path = volume_path(volume.index());
            let file = ctx.storage.open(&path, OpenMode::Read).await.unwrap();
            for run in grains.runs().filter(|r| r.volume == volume) {
                for index in run.first..run.end() {
                    let range = self.geometry.byte_range(volume, index, 1);
                    let len = (range.end - range.start) as usize;
                    let bytes = file.read_at(range.start, len).await.unwrap();
                    content.insert((volume.0, index), bytes);
                }
            }
        }
        content
    }

    /// The same without waiting, on a copy of the machine: usable while the gate is closed.
    pub fn content_now(&self, grains: &GrainSet) -> Content {
        let twin = SimMachine::new(0);
        twin.restore(&self.machine.snapshot());
        let site = Site { machine: twin, ..self.clone() };
        futures_util::FutureExt::now_or_never(site.content(grains)).unwrap()
    }
}

/// A cut without sessions.
pub(super) async fn cut(source: &Rc<Source>) -> Result<CutId> {
    source.cut(CutReason::Cycle, |_| Vec::new()).await.map(|made| made.cut.id)
}

/// Tells the peer of a cut, durably.
pub(super) async fn publish(source: &Rc<Source>, cut: CutId) -> Result<()> {
    source.store().update(|s| s.peers[0].published.push(cut)).await
}

/// Writes as the NBD server does: inline, else in a task.
pub(super) async fn write(
    source: &Rc<Source>,
    volume: u16,
    offset: u64,
    data: Vec<u8>,
) -> Result<()> {
    let volume = VolumeId(volume);
    match source.write_now(volume, offset, &data)? {
        Written::Done => Ok(()),
        Written::Waits(tickets) => source.confirm(tickets).await,
        Written::NotNow(tried) => {
            let change = Change::Data(Bytes::from(data));
            source.clone().write_on(tried, volume, offset, change, false).await
        }
    }
}

/// One whole grain of `byte`.
pub(super) async fn write_grain(
    source: &Rc<Source>,
    volume: u16,
    index: u64,
    byte: u8,
) -> Result<()> {
    write(source, volume, index * GRAIN, vec![byte; GRAIN as usize]).await
}

/// Everything written since `cut`, as a delta would take it: every epoch since has to be supplied.
pub(super) async fn written_since(source: &Rc<Source>, cut: CutId) -> Result<GrainSet> {
    let (lineage, closed) = source.store().with(|s| (s.lineage.clone(), s.layers.closed.clone()));
    let names: Vec<_> = closed.iter().map(|c| c.name.clone()).collect();
    let used = grain::lineage::supplying_layers(&lineage, cut, names.iter())
        .map_err(|gap| Error::State(format!("nobody supplies {gap:?}")))?;
    let used: Vec<_> = used.into_iter().map(|i| names[i].clone()).collect();
    let mut union = source.open_layer();
    for layer in source.keeper().load(&used).await? {
        union.union_with(&layer.grains);
    }
    Ok(union)
}

/// The grains of `now` that differ from `then`.
pub(super) fn differing(then: &Content, now: &Content) -> GrainSet {
    let mut differ = GrainSet::new();
    for (key, bytes) in now {
        if then.get(key) != Some(bytes) {
            differ.insert(VolumeId(key.0), key.1);
        }
    }
    differ
}

pub(super) fn pick<T: Copy>(random: &mut SplitMix64, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize]
}
