//! Random lives without faults: every point and every look is what it was.

use grain::{GrainSize, VolumeShape};
use journal::history::{Error, Moment};

use crate::world::{World, run};

/// One random act of the owner.
pub async fn step(world: &mut World) -> Result<(), Error> {
    let (newest, oldest) = (world.model.commit, world.history().oldest());
    match world.below(24) {
        0 | 1 => world.look().await,
        2 => world.note(Some("before the upgrade")).await,
        3 => {
            let below = oldest + world.below(newest + 1 - oldest.min(newest));
            world.withdraw_below(below).await
        }
        4 => {
            // Owners keep within limits like this.
            while world.history().stats().segments > 3
                && let Some(below) = world.history().next_release()
            {
                let before = world.history().stats().segments;
                world.withdraw_below(below.min(newest)).await?;
                if world.history().stats().segments == before {
                    break;
                }
            }
            Ok(())
        }
        5 => {
            let from = newest.saturating_sub(world.below(3));
            world.withdraw_from(from).await
        }
        6 => world.history().seal().await,
        7 => world.sync().await,
        8 if world.below(8) == 0 && world.model.under_way.is_none() => world.reset().await,
        _ => world.apply(true).await,
    }
}

#[test]
fn every_point_and_every_look_is_what_it_was() {
    run(async {
        for seed in 0..25 {
            let mut world = World::new(seed).await;
            for round in 0..60 {
                step(&mut world).await.unwrap();
                if round % 5 == 0 {
                    world.check().await;
                }
                if round % 20 == 19 {
                    let opened = world.open().await.unwrap();
                    world.settle(&opened).await;
                }
            }
            world.check().await;
        }
    });
}

#[test]
fn a_record_is_a_mebibyte_at_most_and_a_batch_goes_over_segments() {
    run(async {
        let mut geometry = crate::world::small_geometry();
        geometry.grain = GrainSize::from_bytes(64 << 10).unwrap();
        geometry.volumes = vec![VolumeShape { alias: "a".into(), bytes: (5 << 20) + 77 }];
        let mut world = World::of(3, geometry, 2 << 20).await;
        let whole = grain::Span { volume: grain::VolumeId(0), start: 0, bytes: (5 << 20) + 77 };
        for commit in 0..3u8 {
            let bytes: Vec<u8> = (0..whole.bytes).map(|i| (i % 253) as u8 ^ commit).collect();
            let content = grain::Content::Data(bytes.into());
            world.model.under_way = Some(vec![grain::SpanData { span: whole, content }]);
            world.apply(false).await.unwrap();
        }
        world.check().await;
        assert!(world.history().stats().segments > 3);
        let found = world.history().lookup(Moment::after(1), whole).await.unwrap();
        assert_eq!(found.len(), 6);
        let small = grain::Span { start: (3 << 20) - 3, bytes: 7, ..whole };
        let found = world.history().lookup(Moment::after(1), small).await.unwrap();
        let spans: Vec<_> = found.iter().map(|s| (s.span().start, s.span().bytes)).collect();
        assert_eq!(spans, vec![((3 << 20) - 3, 3), (3 << 20, 4)]);
        let opened = world.open().await.unwrap();
        world.settle(&opened).await;
    });
}

#[test]
fn one_block_of_an_index_is_not_all() {
    run(async {
        let mut world = World::of(4, crate::world::small_geometry(), 512 << 10).await;
        world.note(None).await.unwrap();
        for _ in 0..150 {
            world.apply(false).await.unwrap();
        }
        world.history().seal().await.unwrap();
        assert!(world.history().stats().records > 300);
        world.check().await;
        let opened = world.open().await.unwrap();
        world.settle(&opened).await;
        let memory = world.history().stats().memory_bytes;
        assert!(memory < 1 << 20, "{memory}");
    });
}
