//! The past of a replica while the base moves under it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Fault, OpKind};
use grain::{Span, VolumeId};
use replication::replica::At;
use replication::state::Mode;

use crate::past::{LONG, assert_points, keeping};
use crate::rig::{GRAIN, fill, run, volume_path};
use crate::stream::Life;

/// A slow disk gives a view what was written after it: what was kept meanwhile is laid over it.
#[test]
fn what_is_overwritten_while_a_view_reads_it_is_shown_as_it_was() {
    run(|| async {
        let mut life = keeping(73, Mode::Async, LONG).await;
        life.some_writes(20).await;
        fill(&life.source, 0, 3, 0x11).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let view = life.replica.view(&At::Latest).await.unwrap();
        let slowed = Rc::new(Cell::new(false));
        let once = slowed.clone();
        life.pair.replica_machine.set_fault_hook(move |op| {
            let base = *op.path == *volume_path(0) && op.kind == OpKind::Read;
            if base && !once.replace(true) {
                return Fault::Slow(Duration::from_secs(20));
            }
            Fault::None
        });
        let span = Span { volume: VolumeId(0), start: 3 * GRAIN, bytes: GRAIN };
        let meanwhile = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(slowed.get(), "the view reads the base");
            fill(&life.source, 0, 3, 0x22).await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            let base = life.replica.volumes().get(VolumeId(0)).unwrap();
            let now = base.file.read_at(span.start, GRAIN as usize).await.unwrap();
            assert!(now.iter().all(|byte| *byte == 0x22), "it has been overwritten");
        };
        let (seen, ()) = tokio::join!(view.read(span), meanwhile);
        assert!(seen.unwrap().iter().all(|byte| *byte == 0x11));
    });
}

/// What the base holds in the middle of an epoch is no point, whatever was one before.
#[test]
fn a_history_that_begins_inside_an_epoch_has_no_point_of_its_start() {
    run(|| async {
        let mut life = Life::new(74, Mode::Async, |pair| {
            pair.replica_settings.history.retain = LONG;
            pair.serve.stream.epoch = Duration::from_secs(600);
        })
        .await;
        life.some_writes(20).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        bookmark(&life, "before").await;
        life.pair.replica_machine.set_fault_hook(|op| {
            let history = op.path.starts_with("/site/history");
            if history && op.kind == OpKind::Write { Fault::Io } else { Fault::None }
        });
        life.some_writes(50).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        life.pair.replica_machine.clear_fault_hook();
        assert!(!life.replica.history_status().kept);
        for _ in 0..70 {
            life.some_writes(5).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(life.replica.history_status().kept, "it has begun anew");
        assert_eq!(assert_points(&life).await, []);
        bookmark(&life, "after").await;
        life.some_writes(20).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(assert_points(&life).await.len(), 1);
    });
}

async fn bookmark(life: &Life, label: &str) {
    life.source.bookmark(label.to_owned(), Duration::from_secs(30)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
}
