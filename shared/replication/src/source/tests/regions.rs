//! Regions and the seal: the cap, setting ahead, a region map that fails, a base touched behind our back.

use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};

use super::*;

#[test]
fn no_more_is_active_than_the_cap_allows() {
    run(async {
        let mut site = Site::with_volumes(1, &[200 * REGION]).await;
        site.settings.crash_excess_bytes = 20 * REGION;
        let source = site.start().await.unwrap();
        for i in 0..200 {
            write_grain(&source, 0, (i * 37 % 200) * (REGION / GRAIN), 1).await.unwrap();
            assert!(source.crash_excess_bytes() <= 21 * REGION, "{}", source.crash_excess_bytes());
        }
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert_eq!(source.crash_excess_bytes(), 0, "what is quiet is released");
        drop(source);
        site.machine.crash_seeded(Crash::PowerCut, 1);
        let source = site.start().await.unwrap();
        assert!(source.suspected().len() <= 21 * REGION / GRAIN);
    });
}

#[test]
fn regions_are_set_ahead_for_a_writer_that_goes_forward() {
    run(async {
        let site = Site::with_volumes(2, &[64 * REGION]).await;
        let source = site.start().await.unwrap();
        let regions = dir().join("layers/regions.ghm");
        let syncs = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = syncs.clone();
        site.machine.set_fault_hook(move |op| {
            if op.kind == OpKind::Sync && *op.path == *regions {
                count.set(count.get() + 1);
            }
            Fault::None
        });
        for region in 0..64 {
            write_grain(&source, 0, region * (REGION / GRAIN), 1).await.unwrap();
        }
        assert!(syncs.get() < 12, "{} syncs for 64 regions", syncs.get());
    });
}

#[test]
fn a_region_map_that_fails_is_written_afresh() {
    for kind in [OpKind::Sync, OpKind::Write] {
        run(async {
            let site = Site::new(3).await;
            let source = site.start().await.unwrap();
            let held = cut(&source).await.unwrap();
            let regions = dir().join("layers/regions.ghm");
            let failed = std::cell::Cell::new(false);
            site.machine.set_now_chance(0);
            site.machine.set_fault_hook(move |op| {
                let first = op.kind == kind
                    && *op.path == *regions
                    && !failed.replace(*op.path == *regions);
                if first { Fault::Io } else { Fault::None }
            });
            for index in [0, 1024, 2048, 5000] {
                write_grain(&source, 0, index, 1).await.unwrap();
            }
            drop(source);
            site.machine.crash_seeded(Crash::PowerCut, 3);
            let source = site.start().await.unwrap();
            let known = written_since(&source, held).await.unwrap();
            for index in [0, 1024, 2048, 5000] {
                assert!(known.contains(VolumeId(0), index), "{index}");
            }
        });
    }
}

#[test]
fn after_a_clean_stop_nothing_is_suspected() {
    run(async {
        let site = Site::new(4).await;
        let source = site.start().await.unwrap();
        let held = cut(&source).await.unwrap();
        publish(&source, held).await.unwrap();
        write_grain(&source, 0, 9, 1).await.unwrap();
        source.stop().await.unwrap();
        drop(source);
        site.machine.crash_seeded(Crash::PowerCut, 5);
        let source = site.start().await.unwrap();
        assert!(source.suspected().is_empty());
        assert_eq!(written_since(&source, held).await.unwrap().len(), 1);
    });
}

#[test]
fn a_base_touched_behind_our_back_is_named() {
    run(async {
        let mut site = Site::new(5).await;
        let source = site.start().await.unwrap();
        let held = cut(&source).await.unwrap();
        publish(&source, held).await.unwrap();
        source.stop().await.unwrap();
        drop(source);
        site.machine.crash_seeded(Crash::Kill, 1);
        site.machine.flip("/volumes/0", 3, 1).unwrap();
        match site.start().await.err() {
            Some(Error::Volume { alias, .. }) => assert_eq!(alias, "v0"),
            other => panic!("{other:?}"),
        }
        site.settings.accept_touched = true;
        let source = site.start().await.unwrap();
        let all = site.geometry.total_grains();
        assert_eq!(written_since(&source, held).await.unwrap().len(), all);
    });
}

#[test]
fn a_region_is_released_only_after_its_bits_were_synced() {
    for seed in 0..60 {
        run(async {
            let site = Site::new(seed).await;
            let source = site.start().await.unwrap();
            let held = cut(&source).await.unwrap();
            publish(&source, held).await.unwrap();
            write_grain(&source, 0, 9, 1).await.unwrap();
            source.flush().await.unwrap();
            // Not the record that a sync of layers begins.
            site.machine.set_fault_hook(|op| match op.kind {
                OpKind::Sync if op.path.starts_with(dir()) && !op.path.ends_with("regions.ghm") => {
                    Fault::Slow(Duration::from_secs(9))
                }
                _ => Fault::None,
            });
            // The layer's sync is under way.
            tokio::time::sleep(Duration::from_secs(8)).await;
            drop(source);
            site.machine.clear_fault_hook();
            site.machine.crash_seeded(Crash::PowerCut, seed);
            let source = site.start().await.unwrap();
            assert!(written_since(&source, held).await.unwrap().contains(VolumeId(0), 9));
        });
    }
}
