//! What is written comes back, over real and simulated storage, on one to three media, sealed and
//! not; and not before the set is finished.

#![allow(clippy::unwrap_used, reason = "a test ends where its scene cannot be built")]

mod scene;

use std::rc::Rc;

use disk::simulated::SimMachine;
use grain::{Content, GrainData, GrainSet, GrainSize, Run, SetId, VolumeId, VolumeShape};
use media::{
    FinishInfo, KeySource, MediaError, RootVerdict, SegmentPlace, SetView, SetWriter, SignedSet,
};
use scene::{Scene, run};

const SIZE: u64 = 1 << 20;

async fn round_trip(scene: &Scene) {
    let summary = scene.write(1).await.unwrap();
    assert_eq!(summary.grains, scene.geometry.total_grains());
    assert!(summary.data_grains < summary.grains && summary.data_grains > summary.grains / 2);
    assert!(summary.segments > 3);
    let proof = scene.check(&scene.media).await.unwrap();
    assert_eq!(proof.damage, vec![]);
    assert_eq!(proof.root, RootVerdict::Proven);
    assert!(proof.proven == GrainSet::full(&scene.geometry));
    let plain = SignedSet::open(&scene.ctx, &scene.media, None).await.unwrap();
    assert_eq!(plain.check_files(&|_| ()).await, vec![]);
    let view = scene.view(&scene.media).await.unwrap();
    assert_eq!(view.facts().root_digest, summary.root_digest);
    assert_eq!(view.facts().cut, scene.plan(1).cut);
    assert!(view.segments().await.iter().all(|s| s.place == SegmentPlace::Present));
}

#[test]
fn on_the_real_disk() {
    let root = tempfile::tempdir().unwrap();
    for (media, sealed) in [(1, true), (2, false), (3, true)] {
        let path = root.path().join(format!("{media}"));
        let scene = Scene::new(disk::real::context(), path.to_str().unwrap(), media, SIZE, sealed);
        run(round_trip(&scene));
    }
}

#[test]
fn on_the_simulated_disk() {
    for (media, sealed) in [(1, false), (2, true), (3, false)] {
        let machine = SimMachine::new(media as u64);
        let mut scene = Scene::new(machine.context(), "/mnt", media, SIZE, sealed);
        run(round_trip(&scene));
        scene.level = None;
        scene.media = vec!["/mnt/other".into()];
        run(round_trip(&scene));
    }
}

#[test]
fn the_root_digest_depends_on_content_alone() {
    let machine = SimMachine::new(1);
    let mut scene = Scene::new(machine.context(), "/a", 1, SIZE, true);
    let one = run(scene.write(1)).unwrap().root_digest;
    scene.media = vec!["/b/1".into(), "/b/2".into()];
    (scene.sealed, scene.level, scene.segment_bytes) = (false, None, 1 << 20);
    assert_eq!(run(scene.write(2)).unwrap().root_digest, one);
    scene.volumes[0][5000] ^= 1;
    scene.media = vec!["/c".into()];
    assert_ne!(run(scene.write(3)).unwrap().root_digest, one);
}

#[test]
fn a_huge_sparse_volume_is_small_and_quick() {
    let machine = SimMachine::new(1);
    let mut scene = Scene::new(machine.context(), "/mnt", 1, SIZE, true);
    scene.geometry.grain = GrainSize::DEFAULT;
    scene.geometry.volumes = vec![VolumeShape { alias: "big".into(), bytes: 100 << 40 }];
    let grains = scene.geometry.total_grains();
    let run_of = |first, count| Run { volume: VolumeId(0), first, count };
    run(async {
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        let data = Content::Data(vec![7; 65536].into());
        writer.push(GrainData { run: run_of(1000, 1), content: data }).await.unwrap();
        for (first, count) in [(0, 1000), (1001, grains - 1001)] {
            let zero = GrainData { run: run_of(first, count), content: Content::Zero };
            writer.push(zero).await.unwrap();
        }
        let summary = writer.finish(FinishInfo::default()).await.unwrap();
        assert_eq!((summary.grains, summary.data_grains), (grains, 1));
        assert!(summary.medium_bytes[0] < 100_000, "{:?}", summary.medium_bytes);
        let proof = scene.view(&scene.media).await.unwrap().verify(&|_| ()).await;
        assert_eq!((proof.root, proof.damage), (RootVerdict::Proven, vec![]));
    });
}

#[test]
fn every_grain_size_round_trips() {
    for shift in [12, 16, 20, 22] {
        let machine = SimMachine::new(1);
        let mut scene = Scene::new(machine.context(), "/mnt", 1, 9 << 20, true);
        scene.geometry.grain = GrainSize::from_bytes(1 << shift).unwrap();
        scene.segment_bytes = 6 << 20;
        run(async {
            scene.write(1).await.unwrap();
            assert_eq!(scene.check(&scene.media).await.unwrap().root, RootVerdict::Proven);
        });
    }
}

#[test]
fn an_unfinished_set_is_never_taken_for_complete() {
    let machine = SimMachine::new(1);
    let scene = Scene::new(machine.context(), "/mnt", 2, SIZE, true);
    run(async {
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        scene.push_all(&writer, &GrainSet::new()).await.unwrap();
        drop(writer);
        let error = scene.view(&scene.media).await.err().unwrap();
        assert!(matches!(error, MediaError::NoDirectory { .. }), "{error}");
    });
}

#[test]
fn a_full_copy_that_lacks_grains_is_refused() {
    let machine = SimMachine::new(1);
    let scene = Scene::new(machine.context(), "/mnt", 1, SIZE, true);
    run(async {
        let hole = Run { volume: VolumeId(0), first: 7, count: 2 };
        let mut done = GrainSet::new();
        done.insert_run(hole);
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        scene.push_all(&writer, &done).await.unwrap();
        let error = writer.finish(FinishInfo::default()).await.unwrap_err();
        assert!(error.to_string().contains("lacks 2 of"), "{error}");
        // The same with the grains named as unreadable is a set.
        media::remove_set(&scene.ctx, SetId::from_bytes([1; 16]), &scene.media).await.unwrap();
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        scene.push_all(&writer, &done).await.unwrap();
        let info = FinishInfo { unreadable: done.clone(), ..FinishInfo::default() };
        writer.finish(info).await.unwrap();
        let view = scene.view(&scene.media).await.unwrap();
        assert!(view.facts().unreadable().unwrap() == done);
        assert_eq!(view.verify(&|_| ()).await.root, RootVerdict::Proven);
    });
}

#[test]
fn a_contract_that_is_broken_is_a_bug() {
    let machine = SimMachine::new(1);
    let scene = Scene::new(machine.context(), "/mnt", 1, SIZE, true);
    run(async {
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        let place = Run { volume: VolumeId(0), first: 3, count: 2 };
        writer.push(scene.data(place)).await.unwrap();
        let twice = writer.push(scene.data(Run { first: 4, ..place })).await;
        assert_eq!(twice.unwrap_err().class(), grain::ErrorClass::Bug);
        let short = GrainData { run: place, content: Content::Data(vec![1; 100].into()) };
        assert_eq!(writer.push(short).await.unwrap_err().class(), grain::ErrorClass::Bug);
        let outside = Run { volume: VolumeId(5), ..place };
        let outside = GrainData { run: outside, content: Content::Zero };
        assert_eq!(writer.push(outside).await.unwrap_err().class(), grain::ErrorClass::Bug);
    });
}

#[test]
fn half_of_the_media_is_not_damage() {
    let machine = SimMachine::new(1);
    let scene = Scene::new(machine.context(), "/mnt", 2, SIZE, true);
    run(async {
        scene.write(1).await.unwrap();
        let mut proven = GrainSet::new();
        for (i, dir) in scene.media.iter().enumerate() {
            let view = scene.view(std::slice::from_ref(dir)).await.unwrap();
            assert!(!view.signed().is_complete());
            let proof = scene.check(std::slice::from_ref(dir)).await.unwrap();
            assert_eq!((&proof.damage, proof.root), (&vec![], RootVerdict::Incomplete));
            let mine = i as u16 + 1;
            assert!(proof.proven == view.listed_on(mine));
            assert!(view.listed_on_absent() == view.listed_on(3 - mine));
            assert!(view.segments().await.iter().any(|s| s.place == SegmentPlace::MediumAbsent));
            proven.union_with(&proof.proven);
        }
        assert!(proven == GrainSet::full(&scene.geometry));
    });
}

#[test]
fn only_recipients_and_the_source_open_a_set() {
    let machine = SimMachine::new(1);
    let scene = Scene::new(machine.context(), "/mnt", 1, SIZE, true);
    run(async {
        let mut plan = scene.plan(1);
        let escrow = Rc::new(wire::EscrowKey::generate());
        let words = wire::Passphrase::new("correct horse battery staple").unwrap().with_work(4);
        let recipients = plan.sealing.as_mut().unwrap();
        recipients.push(wire::Recipient::Key(escrow.recipient().unwrap()));
        recipients.push(wire::Recipient::Passphrase(words.clone()));
        let writer = SetWriter::create(&scene.ctx, plan).await.unwrap();
        scene.push_all(&writer, &GrainSet::new()).await.unwrap();
        writer.finish(FinishInfo::default()).await.unwrap();
        let open =
            async |keys: &[KeySource]| SetView::open(&scene.ctx, &scene.media, keys, None).await;
        for key in [
            KeySource::Site(scene.peer.clone()),
            KeySource::Site(scene.keys.clone()),
            KeySource::Escrow(escrow.clone()),
            KeySource::Passphrase(words),
        ] {
            let view = open(&[key]).await.unwrap();
            assert_eq!(view.verify(&|_| ()).await.root, RootVerdict::Proven);
        }
        let stranger = Rc::new(wire::SiteKeys::generate().unwrap());
        let wrong = media::SetKey::new([1; 32]);
        for keys in [vec![], vec![KeySource::Site(stranger)], vec![KeySource::SetKey(wrong)]] {
            let error = open(&keys).await.err().unwrap();
            assert!(matches!(error, MediaError::NoKey { .. }), "{error}");
        }
    });
}
