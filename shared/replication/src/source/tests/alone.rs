//! Alone marks: durable before the first reply, also for a writer that finds the mark made by another
//! one, and after a save that failed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};

use super::*;

async fn mark_on_disk(site: &Site) -> bool {
    let store = StateStore::open(&site.machine.context(), &dir()).await.unwrap();
    store.with(|s| s.peers[0].alone.is_some())
}

#[test]
fn no_writer_is_answered_before_the_mark_is_on_disk() {
    run(async {
        let site = Site::new(1).await;
        let source = site.start().await.unwrap();
        site.machine.set_latency(Duration::from_millis(1)..Duration::from_millis(2));
        let writers: Vec<_> = (0..4)
            .map(|i| {
                let (source, site) = (source.clone(), site.clone());
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_micros(i * 700)).await;
                    write_grain(&source, 0, i, 1).await.unwrap();
                    assert!(mark_on_disk(&site).await, "writer {i} was answered too early");
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn a_mark_that_could_not_be_saved_is_saved_before_the_next_reply() {
    run(async {
        let site = Site::new(2).await;
        let source = site.start().await.unwrap();
        let fails = Rc::new(Cell::new(true));
        let flag = fails.clone();
        site.machine.set_fault_hook(move |op| {
            let state = op.path.to_string_lossy().contains("state.json");
            if flag.get() && state && op.kind == OpKind::Write {
                Fault::NoSpace
            } else {
                Fault::None
            }
        });
        assert!(write_grain(&source, 0, 0, 1).await.is_err());
        fails.set(false);
        write_grain(&source, 0, 1, 1).await.unwrap();
        assert!(mark_on_disk(&site).await);
    });
}

#[test]
fn an_acknowledgement_renews_the_mark_when_something_was_written_since() {
    run(async {
        let site = Site::new(3).await;
        let source = site.start().await.unwrap();
        write_grain(&source, 0, 0, 1).await.unwrap();
        let first = cut(&source).await.unwrap();
        publish(&source, first).await.unwrap();
        source.acknowledged(PEER, first).await.unwrap();
        assert!(!mark_on_disk(&site).await, "nothing was written since");
        write_grain(&source, 0, 1, 1).await.unwrap();
        assert!(mark_on_disk(&site).await);
        source.acknowledged(PEER, first).await.unwrap();
        assert!(mark_on_disk(&site).await, "a write stands since the acknowledged cut");
        let since = source.store().with(|s| s.peers[0].alone.as_ref().map(|m| m.acked));
        assert_eq!(since, Some(Some(first)));
    });
}

#[test]
fn a_late_acknowledgement_moves_nothing_back() {
    run(async {
        let site = Site::new(4).await;
        let source = site.start().await.unwrap();
        let first = cut(&source).await.unwrap();
        publish(&source, first).await.unwrap();
        let second = cut(&source).await.unwrap();
        publish(&source, second).await.unwrap();
        source.acknowledged(PEER, second).await.unwrap();
        drop(source.acknowledged(PEER, first).await);
        assert_eq!(source.store().with(|s| s.peers[0].acked), Some(second));
        site.machine.crash_seeded(Crash::PowerCut, 1);
        let source = site.start().await.unwrap();
        assert_eq!(source.store().with(|s| s.peers[0].acked), Some(second));
    });
}
