//! Bits turned over and files lost in every region of a history: points are withdrawn, or reading fails, or
//! the bytes are right; never other bytes.

use std::collections::BTreeSet;

use disk::OpenMode;
use disk::simulated::{Crash, Snapshot};
use grain::CutId;
use journal::history::{Error, Moment};

use crate::round_trip::step;
use crate::world::{Model, World, run, segments};

/// A life over several segments, in the middle of an epoch.
async fn life(world: &mut World, steps: u64) -> (Snapshot, Model) {
    for _ in 0..steps {
        step(world).await.unwrap();
    }
    world.note(Some("a label")).await.ok();
    world.sync().await.unwrap();
    let writes = world.random_writes();
    world.overwrite(world.moment(), &writes[..1]).await.unwrap();
    world.model.under_way = Some(writes);
    (world.machine.snapshot(), world.model.clone())
}

/// Every listed point is right, or cannot be read. How many are listed.
async fn judge(world: &World, place: &str) -> usize {
    let points = world.history().points();
    for point in &points {
        assert!(!world.model.withdrawn.contains(&point.cut), "{place}: a withdrawn point is back");
        let moment = Moment::after(point.commit);
        match world.view(moment).await {
            Ok(seen) => {
                let right = seen == world.model.at[&point.commit];
                assert!(right, "{place}: other bytes at {moment:?}");
            }
            Err(Error::Damaged { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("{place}: {error}"),
        }
        match world.history().changed_since(moment).await {
            Ok(_) | Err(Error::Damaged { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("{place}: {error}"),
        }
    }
    points.len()
}

/// Opens, goes on as an owner does, and opens again. Whether damage was named.
async fn live_on(world: &mut World, place: &str) -> (bool, usize) {
    let opened = world.open().await.unwrap();
    let listed = judge(world, place).await;
    let lost = |world: &World| -> BTreeSet<CutId> {
        let listed: BTreeSet<CutId> = world.history().points().iter().map(|p| p.cut).collect();
        world.model.noted.keys().filter(|cut| !listed.contains(cut)).copied().collect()
    };
    let gone = lost(world);
    assert!(gone.is_empty() || !opened.damage.is_empty(), "{place}: points lost without a word");
    world.model.withdrawn.extend(opened.withdrawn.iter().map(|p| p.cut));
    if opened.unbounded {
        assert!(world.history().points().is_empty() && !opened.damage.is_empty());
        let newest = world.model.commit;
        world.history().withdraw_below(newest + 1).await.unwrap();
    }
    world.model.noted.retain(|cut, _| !gone.contains(cut));
    world.apply(false).await.unwrap();
    world.apply(false).await.unwrap();
    judge(world, place).await;
    world.sync().await.unwrap();
    world.machine.crash_seeded(Crash::PowerCut, 1);
    let again = world.open().await.unwrap();
    assert!(!again.unbounded, "{place}");
    assert!(again.withdrawn.is_empty(), "{place}: withdrawn twice: {:?}", again.withdrawn);
    assert!(world.history().points().len() >= 2, "{place}: newer points stay");
    judge(world, place).await;
    (!opened.damage.is_empty(), listed)
}

#[test]
fn a_bit_turned_over_anywhere_never_shows_other_bytes() {
    run(async {
        let (mut named, mut runs, mut all) = (0, 0, 0);
        for seed in 0..4 {
            let mut world = World::new(seed).await;
            let (snapshot, model) = life(&mut world, 25).await;
            let files = segments(&world);
            for (path, bytes) in &files {
                let fixed = (0..16_384).step_by(211);
                for at in fixed.chain((16_384..bytes.len()).step_by(131)) {
                    world.machine.restore(&snapshot);
                    world.model = model.clone();
                    world.machine.flip(path, at as u64, (at % 8) as u8).unwrap();
                    let place = format!("seed {seed}, {} at {at}", path.display());
                    let (told, listed) = live_on(&mut world, &place).await;
                    named += u64::from(told);
                    all += u64::from(listed == model.noted.len());
                    runs += 1;
                }
            }
        }
        assert!(named > 20 && all > 100 && runs > 1000, "{named} and {all} of {runs}");
    });
}

#[test]
fn a_file_that_vanishes_or_is_cut_is_named() {
    run(async {
        for seed in 0..12 {
            let mut world = World::new(seed).await;
            let (snapshot, model) = life(&mut world, 45).await;
            let files = segments(&world);
            for (number, (path, bytes)) in files.iter().enumerate() {
                for cut in [None, Some(0), Some(4096), Some(20_000), Some(bytes.len() as u64 / 2)] {
                    world.machine.restore(&snapshot);
                    world.model = model.clone();
                    let storage = world.machine.context().storage;
                    match cut {
                        None => storage.remove(path).await.unwrap(),
                        Some(len) => {
                            let file = storage.open(path, OpenMode::ReadWrite).await.unwrap();
                            file.set_len(len).await.unwrap();
                        }
                    }
                    if cut.is_none() && files.len() == 1 {
                        assert!(world.open().await.unwrap().began);
                        continue;
                    }
                    let place = format!("seed {seed}, {} cut to {cut:?}", path.display());
                    let (told, _) = live_on(&mut world, &place).await;
                    let must = cut.is_none() || cut == Some(0);
                    assert!(told || !must, "{place}, {} of {}", number + 1, files.len());
                }
            }
        }
    });
}

#[test]
fn a_segment_of_another_time_in_the_middle_is_damage() {
    run(async {
        let mut world = World::new(2).await;
        world.apply(false).await.unwrap();
        world.history().seal().await.unwrap();
        let old = segments(&world)[1].clone();
        let before = world.machine.snapshot();
        let mut lives = Vec::new();
        for _ in 0..2 {
            world.machine.restore(&before);
            world.model.at.retain(|commit, _| *commit <= 1);
            (world.model.commit, world.model.noted) = (1, Default::default());
            world.open().await.unwrap();
            for _ in 0..3 {
                world.apply(false).await.unwrap();
                world.history().seal().await.unwrap();
            }
            lives.push((segments(&world), world.machine.snapshot(), world.model.clone()));
        }
        let (snapshot, model) = (&lives[1].1, &lives[1].2);
        for (path, bytes) in lives[0].0.iter().skip(2).chain([&old]) {
            world.machine.restore(snapshot);
            world.model = model.clone();
            world.machine.plug_in(path, bytes);
            let opened = world.open().await.unwrap();
            judge(&world, "foreign").await;
            assert!(!opened.damage.is_empty(), "{}", path.display());
        }
    });
}

/// A damaged withdrawal does not bring back what it withdrew.
#[test]
fn a_lost_withdrawal_takes_its_suspects_with_it() {
    run(async {
        let mut world = World::of(6, crate::world::small_geometry(), 1 << 20).await;
        for _ in 0..3 {
            world.apply(false).await.unwrap();
        }
        let before = segments(&world).pop().unwrap().1;
        world.withdraw_from(2).await.unwrap();
        let (path, after) = segments(&world).pop().unwrap();
        world.apply(false).await.unwrap();
        let place = (16_384..after.len()).find(|at| before.get(*at) != Some(&after[*at])).unwrap();
        assert_eq!(after[place..place + 5], *b"GHUR\x04");
        world.machine.flip(&path, place as u64 + 17, 2).unwrap();
        let opened = world.open().await.unwrap();
        assert_eq!(opened.damage.len(), 1, "{:?}", opened.damage);
        judge(&world, "withdrawal").await;
        let gone: Vec<u64> = opened.withdrawn.iter().map(|point| point.commit).collect();
        assert!(gone.contains(&2) && gone.contains(&3), "{gone:?}");
        world.apply(false).await.unwrap();
        let listed = world.history().points();
        let again = world.open().await.unwrap();
        assert_eq!((again.withdrawn.len(), world.history().points()), (0, listed));
    });
}
