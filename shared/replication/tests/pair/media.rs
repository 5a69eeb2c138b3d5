//! Dump, ship, load, catch up on simulated machines: one fingerprint for all copies of a cut.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::{Context, OpenMode};
use grain::fingerprint::{Fingerprint, FingerprintPlan, FingerprintSum};
use grain::{CutId, Lineage, VolumeId};
use replication::Error;
use replication::dump::{DumpEnd, DumpJob, DumpOptions, DumpRequest, Preserve, SavedOptions};
use replication::replica::{Condition, FollowSettings, LoadReport, LoadRequest, Replica};
use replication::source::Source;

use crate::rig::{GRAIN, Pair, fill, run, volume_path};

const SIZES: [u64; 2] = [96 * GRAIN, 40 * GRAIN + 100];

/// Where medium `number` is, on either machine.
pub fn medium(number: u32) -> PathBuf {
    PathBuf::from(format!("/media/{number}"))
}

/// What is asked of a dump to so many media.
pub fn request(pair: &Pair, media: u32) -> DumpRequest {
    let saved = SavedOptions {
        segment_bytes: 64 << 10,
        level: None,
        encrypt: false,
        recipients: Vec::new(),
        buffer_bytes: 1 << 20,
        side_bytes: 0,
        side_dir: "/site".into(),
        preserve_wait_ms: Duration::from_secs(2).as_millis() as u64,
        preserve: Preserve::Fuzzy,
        rate_bytes: 0,
    };
    let keys = pair.source_keys.clone();
    let options = DumpOptions { saved, recipients: Vec::new(), keys, ticket: String::new() };
    DumpRequest { media: (1..=media).map(medium).collect(), options }
}

/// Dumps the source to so many media.
pub async fn dump(pair: &Pair, source: &Rc<Source>, media: u32) -> replication::Result<DumpEnd> {
    let ctx = pair.source_machine.context();
    ctx.storage.create_dir("/media".as_ref()).await.unwrap();
    let job = DumpJob::begin(source, request(pair, media)).await?;
    job.run().await
}

/// Carries a medium to the replica.
pub async fn ship(pair: &Pair, number: u32) {
    let (from, to) = (pair.source_machine.context(), pair.replica_machine.context());
    copy_dir(&from, &to, &medium(number)).await;
}

async fn copy_dir(from: &Context, to: &Context, dir: &Path) {
    to.storage.create_dir("/media".as_ref()).await.unwrap();
    to.storage.create_dir(dir).await.unwrap();
    for entry in from.storage.list(dir).await.unwrap() {
        let path = dir.join(&entry.name);
        let bytes = from.storage.read_all(&path, 64 << 20).await.unwrap();
        to.storage.replace(&path, Bytes::from(bytes)).await.unwrap();
    }
}

/// A replica with empty volumes, started.
pub async fn blank_replica(pair: &Pair) -> Rc<Replica> {
    let blank: Vec<_> =
        pair.geometry.volumes.iter().map(|volume| vec![0; volume.bytes as usize]).collect();
    pair.create_replica(Lineage::new(), &blank).await;
    pair.start_replica().await.unwrap()
}

/// Loads one medium.
pub async fn load(replica: &Rc<Replica>, number: u32) -> replication::Result<LoadReport> {
    let request = LoadRequest { dirs: vec![medium(number)], keys: Vec::new() };
    replica.load(request, &Default::default()).await
}

fn fingerprint(pair: &Pair, cut: CutId, content: &[Vec<u8>]) -> Fingerprint {
    let plan = FingerprintPlan::of_cut(&pair.geometry, cut);
    let mut sum = FingerprintSum::new();
    for (number, bytes) in content.iter().enumerate() {
        plan.add(&mut sum, VolumeId(number as u16), 0, bytes);
    }
    plan.finish(&sum).unwrap()
}

async fn filled(seed: u64) -> (Pair, Rc<Source>) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in (0..96).filter(|g| g % 3 != 1) {
        fill(&source, 0, grain, grain as u8 + 1).await;
    }
    fill(&source, 1, 7, 0x77).await;
    (pair, source)
}

#[test]
fn every_copy_of_a_cut_has_its_fingerprint() {
    run(|| async {
        let (pair, source) = filled(101).await;
        let end = dump(&pair, &source, 2).await.unwrap();
        let content = pair.oracle.at(end.cut, SIZES.len()).await;
        let expected = fingerprint(&pair, end.cut, &content);
        assert_eq!(end.summary.fingerprint, expected, "what went to the media");
        assert_eq!(source.store().with(|s| s.sets[0].fingerprint), Some(expected));

        fill(&source, 0, 3, 0xee).await;
        let replica = blank_replica(&pair).await;
        ship(&pair, 1).await;
        let report = load(&replica, 1).await.unwrap();
        assert_eq!(report.fingerprint, None, "half a set has no fingerprint");
        ship(&pair, 2).await;
        let report = load(&replica, 2).await.unwrap();
        assert_eq!(report.fingerprint, Some(expected));
        let seed = replica.store().with(|s| s.replica.clone().unwrap().seed.unwrap());
        assert_eq!((seed.fingerprint, seed.loaded_fingerprint), (expected, Some(expected)));
        assert_eq!(load(&replica, 1).await.unwrap().fingerprint, Some(expected), "again");

        let cut = pair.attach(&source, &replica).await.in_step();
        let taken = replica.store().with(|s| s.replica.clone().unwrap().generation.unwrap());
        let content = pair.replica_content().await;
        assert_eq!((taken.cut, taken.fingerprint), (cut, fingerprint(&pair, cut, &content)));
        pair.assert_equal().await;
    });
}

#[test]
fn a_dump_that_broke_off_counts_what_it_finds_on_the_media() {
    run(|| async {
        let (pair, source) = filled(102).await;
        let begun = std::cell::Cell::new(0);
        pair.oracle.fault(move |op| {
            // The first segment is finished before the third is begun.
            let segment = op.path.to_string_lossy().contains("segment");
            begun.set(begun.get() + u32::from(segment && op.kind == disk::simulated::OpKind::Open));
            if segment && begun.get() > 2 { disk::simulated::Fault::Io } else { Default::default() }
        });
        dump(&pair, &source, 1).await.unwrap_err();
        pair.oracle.calm();
        let record = source.store().with(|s| s.sets[0].clone());
        let saved = SavedOptions::from_json(&record.options).unwrap();
        let keys = pair.source_keys.clone();
        let options = DumpOptions { saved, recipients: Vec::new(), keys, ticket: String::new() };
        let request = DumpRequest { media: record.media, options };
        let job = DumpJob::resume(&source, record.id, request).await.unwrap();
        let end = job.run().await.unwrap();
        assert!(end.fuzzy_end.is_some());
        let first = medium(1).join("segment-00000001.ghs");
        let kept = pair.source_machine.context().storage.exists(&first).await.unwrap();
        assert!(kept.is_some(), "nothing of the first attempt counted");
        let content = pair.source_content().await;
        assert_eq!(end.summary.fingerprint, fingerprint(&pair, end.cut, &content));
    });
}

#[test]
fn a_volume_that_does_not_read_back_as_loaded_is_named_and_compared() {
    run(|| async {
        let (mut pair, source) = filled(103).await;
        dump(&pair, &source, 2).await.unwrap();
        let replica = blank_replica(&pair).await;
        ship(&pair, 1).await;
        ship(&pair, 2).await;
        load(&replica, 1).await.unwrap();
        let before = pair.replica_content().await;
        let grain = before[0].chunks(GRAIN as usize).position(|g| g[0] != 0).unwrap();
        let ctx = pair.replica_machine.context();
        let file = ctx.storage.open(&volume_path(0), OpenMode::ReadWrite).await.unwrap();
        file.write_at(grain as u64 * GRAIN + 5, vec![0].into()).await.unwrap();
        drop(file);
        for _ in 0..2 {
            let error = load(&replica, 2).await.unwrap_err();
            assert!(matches!(error, Error::SeedFingerprint(_)), "{error}");
        }
        assert_eq!(replica.condition(), Condition::Inconsistent);
        let ended = pair.attach(&source, &replica).await;
        let error = ended.replica.unwrap().unwrap_err();
        assert!(matches!(error, Error::SeedFingerprint(_)), "{error}");
        pair.follow = FollowSettings { compare: true, ..pair.follow.clone() };
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert_eq!(ended.progress.sent_bytes.get(), GRAIN, "only what differs travels");
        pair.assert_equal().await;
        assert_eq!(replica.condition(), Condition::Consistent);
        let seed = replica.store().with(|s| s.replica.clone().unwrap().seed.unwrap());
        assert!(!seed.differs());
    });
}
