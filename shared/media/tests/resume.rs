//! A dump that is interrupted: killed or cut from power at every stage, resumed, cancelled, stopped
//! by a full or broken disk.

#![allow(clippy::unwrap_used, reason = "a test ends where its scene cannot be built")]

mod scene;

use std::path::PathBuf;

use disk::simulated::{Crash, Fault as DiskFault, OpKind, SimMachine};
use grain::{ErrorClass, GrainSet, SetId};
use media::{FinishInfo, MediaError, RootVerdict, SetWriter, remove_set};
use scene::{Scene, run};

const SIZE: u64 = 512 << 10;

fn scene(machine: &SimMachine, media: usize, sealed: bool) -> Scene {
    let mut scene = Scene::new(machine.context(), "/mnt", media, SIZE, sealed);
    scene.segment_bytes = 96 << 10;
    scene
}

/// Everything there and proven.
async fn assert_whole(scene: &Scene) {
    let proof = scene.check(&scene.media).await.unwrap();
    assert_eq!((proof.damage, proof.root), (vec![], RootVerdict::Proven));
    let plain = media::SignedSet::open(&scene.ctx, &scene.media, None).await.unwrap();
    assert_eq!(plain.check_files(&|_| ()).await, vec![]);
}

async fn resume_and_finish(scene: &Scene, at_least: &GrainSet) {
    let (writer, done) = SetWriter::resume(&scene.ctx, scene.plan(1)).await.unwrap();
    assert!(at_least.is_subset(&done), "what was durable is gone");
    scene.push_all(&writer, &done).await.unwrap();
    writer.finish(FinishInfo::default()).await.unwrap();
    assert_whole(scene).await;
}

/// Lets `operations` disk operations pass, then fails every further one, as a machine does that is
/// going down.
fn fail_after(machine: &SimMachine, operations: u64) {
    let limit = machine.operations() + operations;
    machine.set_fault_hook(
        move |op| {
            if op.number >= limit { DiskFault::Io } else { DiskFault::None }
        },
    );
}

/// Lets the lanes write for a while.
async fn let_it_write() {
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
}

/// Pushes all, noting what the writer says is durable before each push.
async fn dump_until_it_breaks(scene: &Scene) -> (GrainSet, bool) {
    let mut durable = GrainSet::new();
    let Ok(writer) = SetWriter::create(&scene.ctx, scene.plan(1)).await else {
        return (durable, false);
    };
    for run in scene.runs(&GrainSet::new(), 5) {
        let pushed = writer.push(scene.data(run)).await;
        tokio::task::yield_now().await;
        durable = writer.durable();
        if pushed.is_err() {
            return (durable, false);
        }
    }
    let finished = writer.finish(FinishInfo::default()).await.is_ok();
    (durable, finished)
}

#[test]
fn a_crash_after_any_operation_is_resumed() {
    for (media, sealed) in [(1, true), (2, true), (2, false)] {
        let machine = SimMachine::new(7);
        let all = {
            let scene = scene(&machine, media, sealed);
            run(scene.write(1)).unwrap();
            machine.operations()
        };
        for stop in (0..all).step_by(if media == 1 { 3 } else { 7 }) {
            let machine = SimMachine::new(stop + 1);
            let mut scene = scene(&machine, media, sealed);
            run(async {
                fail_after(&machine, stop);
                let (durable, finished) = dump_until_it_breaks(&scene).await;
                machine.clear_fault_hook();
                let kind = if stop % 2 == 0 { Crash::PowerCut } else { Crash::Kill };
                machine.crash_seeded(kind, stop);
                scene.ctx = machine.context();
                if finished {
                    return assert_whole(&scene).await;
                }
                // Not complete, unless the crash hit only the labels behind the signed directory.
                if let Ok(view) = scene.view(&scene.media).await {
                    assert_eq!(view.verify(&|_| ()).await.root, RootVerdict::Proven);
                }
                resume_and_finish(&scene, &durable).await;
            });
        }
    }
}

#[test]
fn finished_segments_count_and_numbers_are_not_used_twice() {
    let machine = SimMachine::new(1);
    let mut scene = scene(&machine, 2, true);
    run(async {
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        let runs = scene.runs(&GrainSet::new(), 5);
        for run in &runs[..runs.len() * 2 / 3] {
            writer.push(scene.data(*run)).await.unwrap();
        }
        let_it_write().await;
        let durable = writer.durable();
        assert!(!durable.is_empty(), "the scene is too small for its purpose");
        drop(writer);
        machine.crash_seeded(Crash::PowerCut, 3);
        scene.ctx = machine.context();
        let before = segment_numbers(&scene).await;
        let (writer, done) = SetWriter::resume(&scene.ctx, scene.plan(1)).await.unwrap();
        assert!(durable.is_subset(&done));
        let kept = segment_numbers(&scene).await;
        assert!(!kept.is_empty() && kept.iter().all(|n| before.contains(n)));
        scene.push_all(&writer, &done).await.unwrap();
        let summary = writer.finish(FinishInfo::default()).await.unwrap();
        let after = segment_numbers(&scene).await;
        assert_eq!(summary.segments, after.len() as u64);
        assert!(after.iter().all(|n| kept.contains(n) || !before.contains(n)), "{after:?}");
        assert_whole(&scene).await;
        let generation = scene.view(&scene.media).await.unwrap().directory().manifest.generation;
        assert_eq!(generation, 1);
    });
}

async fn segment_numbers(scene: &Scene) -> Vec<String> {
    let mut names = Vec::new();
    for dir in &scene.media {
        let entries = scene.ctx.storage.list(dir).await.unwrap();
        names.extend(entries.into_iter().map(|e| e.name).filter(|name| name.ends_with(".ghs")));
    }
    names.sort();
    names
}

#[test]
fn a_segment_that_changed_meanwhile_does_not_count() {
    let machine = SimMachine::new(1);
    let scene = scene(&machine, 1, false);
    run(async {
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        scene.push_all(&writer, &GrainSet::new()).await.unwrap();
        let_it_write().await;
        drop(writer);
        let names = segment_numbers(&scene).await;
        // The last byte but sixty: in the trailer.
        let path = scene.media[0].join(&names[0]);
        let len = scene.ctx.storage.read_all(&path, 1 << 30).await.unwrap().len() as u64;
        machine.flip(&path, len - 60, 1).unwrap();
        resume_and_finish(&scene, &GrainSet::new()).await;
        assert!(!segment_numbers(&scene).await.contains(&names[0]));
    });
}

#[test]
fn resume_refuses_what_is_not_this_set() {
    let machine = SimMachine::new(1);
    let mut scene = scene(&machine, 2, true);
    run(async {
        scene.write(1).await.unwrap();
        let error = SetWriter::resume(&scene.ctx, scene.plan(2)).await.err().unwrap();
        assert!(matches!(error, MediaError::OtherSet { .. }), "{error}");
        // Another source cannot open its envelope, and must not wipe it.
        let keys = std::mem::replace(&mut scene.keys, scene.peer.clone());
        scene.peer = std::rc::Rc::new(wire::SiteKeys::generate().unwrap());
        scene.keys = std::rc::Rc::new(wire::SiteKeys::generate().unwrap());
        let error = SetWriter::resume(&scene.ctx, scene.plan(1)).await.err().unwrap();
        assert!(matches!(error, MediaError::CannotResume { .. }), "{error}");
        scene.keys = keys;
        let all = scene.media.clone();
        scene.media = vec![all[0].clone()];
        let error = SetWriter::resume(&scene.ctx, scene.plan(1)).await.err().unwrap();
        assert!(matches!(error, MediaError::CannotResume { .. }), "{error}");
        let label = scene.ctx.storage.read_all(&all[0].join("LABEL.json"), 9999).await.unwrap();
        let copy = PathBuf::from("/mnt/copy");
        scene.ctx.storage.create_dir(&copy).await.unwrap();
        scene.ctx.storage.replace(&copy.join("LABEL.json"), label.into()).await.unwrap();
        scene.media = vec![all[0].clone(), copy];
        let error = SetWriter::resume(&scene.ctx, scene.plan(1)).await.err().unwrap();
        assert!(error.to_string().contains("twice"), "{error}");
    });
}

#[test]
fn media_in_another_order_are_the_same_media() {
    let machine = SimMachine::new(1);
    let mut scene = scene(&machine, 3, true);
    run(async {
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        scene.push_all(&writer, &GrainSet::new()).await.unwrap();
        let_it_write().await;
        let durable = writer.durable();
        assert!(!durable.is_empty());
        drop(writer);
        scene.media.reverse();
        resume_and_finish(&scene, &durable).await;
    });
}

async fn listing(scene: &Scene) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for dir in &scene.media {
        let entries = scene.ctx.storage.list(dir).await.unwrap();
        all.push(entries.into_iter().map(|entry| entry.name).collect());
    }
    all
}

#[test]
fn cancel_removes_only_its_own_files() {
    let machine = SimMachine::new(1);
    let mut scene = scene(&machine, 2, true);
    run(async {
        let note = scene.media[0].join("packing list.txt");
        scene.ctx.storage.create_dir(&scene.media[0]).await.unwrap();
        scene.ctx.storage.replace(&note, "keep".into()).await.unwrap();
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        for run in scene.runs(&GrainSet::new(), 5).into_iter().take(30) {
            writer.push(scene.data(run)).await.unwrap();
        }
        writer.cancel().await.unwrap();
        assert_eq!(listing(&scene).await, [vec!["packing list.txt".to_owned()], vec![]]);
        // And after a crash, by the id alone; twice is as good as once.
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        scene.push_all(&writer, &GrainSet::new()).await.unwrap();
        let_it_write().await;
        drop(writer);
        machine.crash_seeded(Crash::Kill, 1);
        scene.ctx = machine.context();
        let set = |byte| SetId::from_bytes([byte; 16]);
        let other = remove_set(&scene.ctx, set(2), &scene.media).await.unwrap_err();
        assert!(matches!(other, MediaError::OtherSet { .. }), "{other}");
        for _ in 0..2 {
            remove_set(&scene.ctx, set(1), &scene.media).await.unwrap();
            assert_eq!(listing(&scene).await, [vec!["packing list.txt".to_owned()], vec![]]);
        }
    });
}

#[test]
fn a_used_directory_is_refused_by_name() {
    let machine = SimMachine::new(1);
    let mut scene = scene(&machine, 1, true);
    run(async {
        scene.write(1).await.unwrap();
        scene.media.push(PathBuf::from("/mnt/free"));
        let error = scene.write(2).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Operator);
        let text = error.to_string();
        assert!(text.contains("/mnt/medium0") && text.contains("payroll"), "{text}");
        scene.media.pop();
        assert_whole(&scene).await;
        scene.media = vec!["/mnt/twice".into(), "/mnt/twice".into()];
        assert!(matches!(scene.write(2).await, Err(MediaError::Plan(_))));
    });
}

#[test]
fn a_full_disk_is_named_and_what_was_finished_stays() {
    let machine = SimMachine::new(1);
    let mut scene = scene(&machine, 2, true);
    scene.level = None;
    run(async {
        let hits = |op: &disk::simulated::Op| op.path.starts_with("/mnt/medium1");
        let written = std::rc::Rc::new(std::cell::Cell::new(0));
        machine.set_fault_hook(move |op| {
            if hits(op) && op.kind == OpKind::Write {
                written.set(written.get() + 1);
            }
            if hits(op) && written.get() > 10 {
                return DiskFault::NoSpace;
            }
            DiskFault::None
        });
        let writer = SetWriter::create(&scene.ctx, scene.plan(1)).await.unwrap();
        let error = match scene.push_all(&writer, &GrainSet::new()).await {
            Err(error) => error,
            Ok(()) => writer.finish(FinishInfo::default()).await.unwrap_err(),
        };
        assert_eq!(error.class(), ErrorClass::Operator);
        assert!(error.to_string().contains("/mnt/medium1/"), "{error}");
        machine.clear_fault_hook();
        resume_and_finish(&scene, &GrainSet::new()).await;
    });
}
