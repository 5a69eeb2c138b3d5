//! Where a history is kept the base passes through the image at every commit, and the journal shows the
//! replica as it was at each of those that the base has not left yet.

use std::collections::BTreeMap;
use std::time::Duration;

use disk::simulated::Crash;
use grain::{Run, VolumeId};
use journal::Moment;

use crate::world::{Grains, World, bytes_in, run};

/// The images at the moments that have been, by the model.
type Images = BTreeMap<Moment, Grains>;

/// What a reader sees who lays what the journal has of `moment` over the base.
async fn assert_shows(world: &World, moment: Moment, grains: &Grains) {
    let (mut seen, geometry) = (BTreeMap::new(), &world.geometry);
    for (volume, shape) in geometry.iter() {
        let base = world.base(volume).await.unwrap();
        let mut image = base.read_at(0, shape.bytes as usize).await.unwrap();
        let all = grain::Span { volume, start: 0, bytes: shape.bytes };
        for piece in world.journal().lookup_at(moment, all) {
            let data = piece.read().await.unwrap();
            let (from, to) = (data.span.start as usize, data.span.end() as usize);
            image[from..to].copy_from_slice(&bytes_in(&data));
        }
        for index in 0..geometry.grains(volume) {
            let range = geometry.byte_range(volume, index, 1);
            let bytes = image[range.start as usize..range.end as usize].to_vec();
            seen.insert((volume, index), bytes);
        }
    }
    assert!(world.shows(&seen, grains), "another image at {moment:?}");
}

/// Every image that the base has not left.
async fn assert_all(world: &World, images: &Images, left: Option<Moment>) {
    for (moment, grains) in images.iter().filter(|(moment, _)| Some(**moment) > left) {
        assert_shows(world, *moment, grains).await;
    }
}

/// Applies a batch; `left` is the newest moment that the base has left.
async fn applies(world: &mut World, bytes: u64, left: &mut Option<Moment>) -> bool {
    let leaves = world.journal().next_apply(1).map(|batch| batch.moment());
    *left = (*left).max(leaves);
    world.apply(bytes).await.unwrap()
}

async fn commits_something(world: &mut World, images: &mut Images) {
    let session = world.begin().unwrap();
    for sequence in 1..=1 + world.below(6) {
        let run = world.random_run(5);
        let zero = world.below(4) == 0;
        world.append(session, sequence, run, zero).await.unwrap();
    }
    let commit = world.commit(&[session]).await.unwrap();
    images.insert(Moment { commit, split: 0 }, world.model.grains.clone());
}

#[test]
fn the_base_passes_through_every_commit() {
    for seed in 0..60 {
        run(async {
            let mut world = World::new(seed);
            world.config.max_bytes *= 16;
            world.config.keep_points = seed % 4 > 0;
            world.make_base().await;
            world.open().await.unwrap();
            let (mut images, mut left) = (Images::new(), None);
            for _ in 0..40 {
                match world.below(8) {
                    0..=2 if world.config.keep_points => {
                        commits_something(&mut world, &mut images).await;
                    }
                    // Commits in between that nobody looks at share a generation.
                    0..=2 => commits_something(&mut world, &mut Images::new()).await,
                    3..=5 => {
                        let bytes = 1 + world.below(30_000);
                        applies(&mut world, bytes, &mut left).await;
                    }
                    6 => {
                        let now = world.journal().split();
                        assert!(images.keys().all(|before| *before < now));
                        images.insert(now, world.model.grains.clone());
                    }
                    _ => {
                        let kind = if seed % 2 == 0 { Crash::Kill } else { Crash::PowerCut };
                        world.machine.crash_seeded(kind, seed);
                        let recovered = world.open().await.unwrap();
                        world.settle(&recovered).await;
                        // Looks inside of an epoch end with the process.
                        images.retain(|moment, _| moment.split == 0 && world.config.keep_points);
                        assert_eq!(world.journal().moment().split, 0);
                    }
                }
                world.check().await;
                assert_all(&world, &images, left).await;
            }
            while applies(&mut world, 8 << 10, &mut left).await {
                assert_all(&world, &images, left).await;
            }
        });
    }
}

/// Somebody looks while a commit is under way: what comes with it, and after it, is not of that look.
#[test]
fn a_look_during_a_commit_is_of_before_it() {
    let mut inside = 0;
    for after_us in (0..12_000).step_by(150) {
        run(async {
            let mut world = World::new(77);
            world.config.keep_points = true;
            world.make_base().await;
            world.open().await.unwrap();
            let mut images = Images::new();
            commits_something(&mut world, &mut images).await;
            let before = world.model.grains.clone();
            let session = world.begin().unwrap();
            world.append(session, 1, world_run(), false).await.unwrap();
            let latency = Duration::from_micros(400)..Duration::from_millis(2);
            world.machine.set_latency(latency);
            let journal = world.journal();
            let looks = async {
                tokio::time::sleep(Duration::from_micros(after_us)).await;
                journal.split()
            };
            let list = [session];
            let (done, look) = tokio::join!(world.commit(&list), looks);
            let commit = done.unwrap();
            let seen = if look.commit == commit { world.model.grains.clone() } else { before };
            inside += u64::from(look.commit < commit);
            assert_shows(&world, look, &seen).await;
            commits_something(&mut world, &mut images).await;
            assert_shows(&world, look, &seen).await;
        });
    }
    assert!((20..75).contains(&inside), "{inside} looks came before the commit counted");
}

fn world_run() -> Run {
    Run { volume: VolumeId(0), first: 3, count: 4 }
}
