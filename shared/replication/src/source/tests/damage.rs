//! Damage at rest: a bit flipped anywhere in a map file or in the state reads as dirty, or stops the
//! start with a clear error; never as clean.

use disk::simulated::{Crash, SimMachine};
use grain::ErrorClass;

use super::*;

fn used() -> GrainSet {
    let mut set = GrainSet::new();
    for index in [0, 1, 1500, 3968, 6144] {
        set.insert(VolumeId(0), index);
    }
    set.insert(VolumeId(1), 2);
    set
}

/// A site that was killed with a closed and an open layer since a cut that a peer holds.
async fn killed() -> (Site, CutId, Content) {
    let site = Site::new(1).await;
    let source = site.start().await.unwrap();
    let held = cut(&source).await.unwrap();
    publish(&source, held).await.unwrap();
    let content = site.content_now(&used());
    for run in used().runs() {
        for index in run.first..run.end() {
            write(&source, run.volume.0, index * GRAIN, vec![1; 9]).await.unwrap();
        }
        if run.first == 1500 {
            let second = cut(&source).await.unwrap();
            publish(&source, second).await.unwrap();
        }
    }
    drop(source);
    site.machine.crash_seeded(Crash::Kill, 1);
    (site, held, content)
}

#[test]
fn every_flipped_sector_reads_as_dirty_or_stops_the_start() {
    let (site, held, content) = run(killed());
    let layers = dir().join("layers");
    let files = run(async { site.machine.context().storage.list(&layers).await.unwrap() });
    let mut starts = 0;
    for crash in [Crash::Kill, Crash::PowerCut] {
        site.machine.crash_seeded(crash, 2);
        let before = site.machine.snapshot();
        for file in &files {
            let places =
                (0..file.len / 512).flat_map(|s| [0, 9, 13, 17, 60, 511].map(|b| s * 512 + b));
            for offset in places {
                let machine = SimMachine::new(1_000_000 + offset);
                machine.restore(&before);
                machine.flip(layers.join(&file.name), offset, (offset % 8) as u8).unwrap();
                let twin = Site { machine, ..site.clone() };
                let outcome = run(async {
                    let source = twin.start().await?;
                    let now = twin.content(&used()).await;
                    Ok((written_since(&source, held).await?, differing(&content, &now)))
                });
                match outcome {
                    Ok((known, differ)) => {
                        starts += 1;
                        assert!(differ.is_subset(&known), "{} at {offset}: {differ:?}", file.name);
                    }
                    Err(e @ Error::Corrupt { .. }) => assert_eq!(e.class(), ErrorClass::Corrupt),
                    Err(e) => panic!("{} at {offset}: {e}", file.name),
                }
            }
        }
    }
    assert!(starts > 100);
}

#[test]
fn every_flipped_byte_of_the_state_stops_the_start() {
    let (site, ..) = run(killed());
    let before = site.machine.snapshot();
    let path = dir().join(StateStore::FILE);
    let len =
        run(async { site.machine.context().storage.read_all(&path, 1 << 20).await.unwrap().len() });
    for offset in 0..len as u64 {
        let machine = SimMachine::new(1_000_000 + offset);
        machine.restore(&before);
        machine.flip(&path, offset, (offset % 8) as u8).unwrap();
        let twin = Site { machine, ..site.clone() };
        let refused = run(async { twin.start().await.err() });
        assert!(matches!(refused, Some(Error::Corrupt { .. })), "byte {offset}");
    }
}
