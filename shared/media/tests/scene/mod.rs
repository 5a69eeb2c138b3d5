//! A source with volumes, media to write them to, and eyes to read them back with.

#![allow(dead_code, reason = "each test file uses its part of the scene")]

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::Context;
use grain::{
    Content, CutId, Geometry, GrainData, GrainSet, GrainSize, RelationshipId, Run, SetId, VolumeId,
    VolumeShape,
};
use media::{
    CutFacts, FinishInfo, KeySource, MediaError, Proof, SetPlan, SetSummary, SetView, SetWriter,
};
use wire::{Recipient, SiteKeys};

/// Runs a test on one thread with a `LocalSet`.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test)
}

/// A small generator, so that content depends on a seed alone.
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Bytes by kind of grain: zero, repeating text, random.
pub fn volume(bytes: u64, grain: u64, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed | 1);
    let mut out = Vec::with_capacity(bytes as usize);
    while (out.len() as u64) < bytes {
        let len = grain.min(bytes - out.len() as u64) as usize;
        match dice.below(4) {
            0 => out.resize(out.len() + len, 0),
            1 => {
                let text = format!("grain {} ", dice.below(1000));
                out.extend(text.bytes().cycle().take(len));
            }
            _ => out.extend((0..len).map(|_| dice.next() as u8)),
        }
    }
    out
}

/// A source.
pub struct Scene {
    pub ctx: Context,
    pub keys: Rc<SiteKeys>,
    pub peer: Rc<SiteKeys>,
    pub geometry: Geometry,
    pub volumes: Vec<Vec<u8>>,
    pub media: Vec<PathBuf>,
    pub sealed: bool,
    pub segment_bytes: u64,
    pub level: Option<i32>,
}

impl Scene {
    /// Two volumes, the second with a short last grain, 4 KiB grains.
    pub fn new(ctx: Context, root: &str, media: usize, bytes: u64, sealed: bool) -> Scene {
        let sizes = [bytes, bytes / 3 + 700];
        let volumes = sizes.iter().zip(1..).map(|(size, seed)| volume(*size, 4096, seed)).collect();
        let shape =
            |(alias, bytes): (&str, &u64)| VolumeShape { alias: alias.into(), bytes: *bytes };
        let shapes = ["data", "log"].into_iter().zip(&sizes).map(shape).collect();
        Scene {
            ctx,
            keys: Rc::new(SiteKeys::generate().unwrap()),
            peer: Rc::new(SiteKeys::generate().unwrap()),
            geometry: Geometry { grain: GrainSize::MIN, volumes: shapes },
            volumes,
            media: (0..media).map(|i| PathBuf::from(format!("{root}/medium{i}"))).collect(),
            sealed,
            segment_bytes: 192 << 10,
            level: Some(1),
        }
    }

    pub fn plan(&self, set: u8) -> SetPlan {
        let peer = Recipient::Site(self.peer.identity());
        SetPlan {
            set: SetId::from_bytes([set; 16]),
            relationship: RelationshipId::from_bytes([9; 16]),
            relationship_name: "payroll".into(),
            geometry: self.geometry.clone(),
            cut: CutFacts { cut: CutId::from_bytes([3; 16]), unix_ms: 77, lineage: vec![1, 2, 3] },
            basis: None,
            media: self.media.clone(),
            segment_bytes: self.segment_bytes,
            queue_bytes: 1 << 20,
            level: self.level,
            sealing: self.sealed.then(|| vec![peer]),
            recipient_names: vec!["the peer".into()],
            keys: self.keys.clone(),
            ticket: "the ticket".into(),
        }
    }

    /// The content of a run.
    pub fn data(&self, run: Run) -> GrainData {
        let range = self.geometry.byte_range(run.volume, run.first, run.count);
        let bytes = &self.volumes[run.volume.index()][range.start as usize..range.end as usize];
        let zero = bytes.iter().all(|&b| b == 0);
        let content =
            if zero { Content::Zero } else { Content::Data(Bytes::copy_from_slice(bytes)) };
        GrainData { run, content }
    }

    /// All grains that are not in `done`, in runs of changing length and a shuffled order.
    pub fn runs(&self, done: &GrainSet, seed: u64) -> Vec<Run> {
        let mut dice = Dice(seed | 1);
        let mut missing = GrainSet::full(&self.geometry);
        missing.subtract(done);
        let mut runs = Vec::new();
        let mut from = (VolumeId(0), 0);
        while let Some(run) = missing.next_run(from, 1 + dice.below(40)) {
            from = (run.volume, run.end());
            runs.push(run);
        }
        for i in (1..runs.len()).rev() {
            runs.swap(i, dice.below(i as u64 + 1) as usize);
        }
        runs
    }

    pub async fn push_all(&self, writer: &SetWriter, done: &GrainSet) -> Result<(), MediaError> {
        for run in self.runs(done, 5) {
            writer.push(self.data(run)).await?;
        }
        Ok(())
    }

    /// Writes a whole set.
    pub async fn write(&self, set: u8) -> Result<SetSummary, MediaError> {
        let writer = SetWriter::create(&self.ctx, self.plan(set)).await?;
        self.push_all(&writer, &GrainSet::new()).await?;
        writer.finish(FinishInfo::default()).await
    }

    pub fn peer_key(&self) -> Vec<KeySource> {
        vec![KeySource::Site(self.peer.clone())]
    }

    pub async fn view(&self, dirs: &[PathBuf]) -> Result<SetView, MediaError> {
        SetView::open(&self.ctx, dirs, &self.peer_key(), Some(&self.keys.identity())).await
    }

    /// Reads what is on `dirs`, compares every byte with the volumes, and every grain that was not
    /// read with what the damage says.
    pub async fn check(&self, dirs: &[PathBuf]) -> Result<Proof, MediaError> {
        let view = self.view(dirs).await?;
        let wrong = RefCell::new(None);
        let proof = view
            .extract(async |run| {
                let expected = match self.data(run.data.run).content {
                    Content::Zero => zeros(&self.geometry, run.data.run),
                    Content::Data(bytes) => bytes,
                };
                let found = match run.data.content {
                    Content::Zero => zeros(&self.geometry, run.data.run),
                    Content::Data(bytes) => bytes,
                };
                if found != expected {
                    *wrong.borrow_mut() = Some(run.data.run);
                }
                Ok::<(), std::convert::Infallible>(())
            })
            .await
            .unwrap();
        assert_eq!(*wrong.borrow(), None, "wrong bytes were handed out");
        let mut accounted = proof.proven.clone();
        for damage in &proof.damage {
            let mut both = damage.grains.clone();
            both.intersect_with(&accounted);
            assert!(both.is_empty(), "{damage} names grains that were read or named before");
            accounted.union_with(&damage.grains);
        }
        let mut expected = view.listed();
        expected.subtract(&view.listed_on_absent());
        assert_eq!(accounted.len(), expected.len(), "{:?}", proof.damage);
        Ok(proof)
    }
}

fn zeros(geometry: &Geometry, run: Run) -> Bytes {
    let range = geometry.byte_range(run.volume, run.first, run.count);
    vec![0; (range.end - range.start) as usize].into()
}
