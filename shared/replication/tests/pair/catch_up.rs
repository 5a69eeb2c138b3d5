//! The happy path: writes before and during a catch-up, several volumes, short ends, zeros, holes.

use std::rc::Rc;

use disk::simulated::SimMachine;
use grain::VolumeId;
use replication::replica::Condition;
use replication::source::{Change, Source};
use replication::state::{Peer, StateStore};

use crate::rig::{GRAIN, Pair, fill, run, write};

const SIZES: [u64; 2] = [64 * GRAIN, 40 * GRAIN + 100];

async fn some_content(source: &Rc<Source>) {
    for grain in 0..20 {
        fill(source, 0, grain * 3, grain as u8 + 1).await;
        fill(source, 1, grain * 2, grain as u8 + 101).await;
    }
}

#[test]
fn a_seeded_replica_is_brought_in_step() {
    run(|| async {
        let pair = Pair::new(1, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        some_content(&source).await;
        let seeded = pair.seed(&source).await;
        fill(&source, 0, 7, 0xaa).await;
        write(&source, 1, 40 * GRAIN, 100, 0xbb).await;
        let replica = pair.start_replica().await.unwrap();
        assert_eq!(replica.head(), Some(seeded));
        assert_eq!(replica.condition(), Condition::Consistent);
        let ended = pair.attach(&source, &replica).await;
        let cut = ended.in_step();
        assert_eq!(replica.head(), Some(cut));
        pair.assert_replica_at(cut).await;
        pair.assert_equal().await;
        assert_eq!(ended.progress.sent_grains.get(), 2);
        let peer = source.store().with(|s| s.peers[0].clone());
        assert_eq!((peer.acked, peer.published.len(), peer.alone), (Some(cut), 0, None));
        assert_eq!(source.dirty().len(), 0);
    });
}

#[test]
fn zeros_and_holes_arrive() {
    run(|| async {
        let pair = Pair::new(2, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        some_content(&source).await;
        pair.seed(&source).await;
        let zero = Change::Zero { len: 30 * GRAIN + 17, punch: true, fast: false };
        source.clone().write(VolumeId(0), 5 * GRAIN - 3, zero, false).await.unwrap();
        let zero = Change::Zero { len: 10 * GRAIN, punch: false, fast: false };
        source.clone().write(VolumeId(1), 4 * GRAIN, zero, false).await.unwrap();
        let replica = pair.start_replica().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn in_step_stays_in_step() {
    run(|| async {
        let pair = Pair::new(3, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        pair.seed(&source).await;
        fill(&source, 0, 7, 0xaa).await;
        let replica = pair.start_replica().await.unwrap();
        let first = pair.attach(&source, &replica).await.in_step();
        let again = pair.attach(&source, &replica).await;
        assert_eq!(again.in_step(), first, "nothing was written: no cut is made");
        fill(&source, 0, 8, 0xaa).await;
        let third = pair.attach(&source, &replica).await.in_step();
        assert_ne!(third, first);
        pair.assert_equal().await;
    });
}

/// Another replica, which never comes back.
async fn add_absent_peer(source: &Rc<Source>) {
    let identity = "gone".to_owned();
    let acked = source.head();
    let peer = Peer { acked, ..Peer::new(identity) };
    source.store().update(|s| s.peers.push(peer)).await.unwrap();
}

#[test]
fn a_replica_that_is_gone_does_not_keep_another_from_being_in_step() {
    run(|| async {
        let mut pair = Pair::new(4, &SIZES).await;
        pair.follow.max_rounds = 3;
        let source = pair.start_source().await.unwrap();
        add_absent_peer(&source).await;
        some_content(&source).await;
        pair.seed(&source).await;
        fill(&source, 0, 7, 0xaa).await;
        let replica = pair.start_replica().await.unwrap();
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert_eq!(ended.progress.sent_grains.get(), 1, "one round");
        assert_eq!(replica.progress().source_dirty_bytes.get(), 0);
        assert!(source.dirty().len() > 20, "the other one lacks it all");
        pair.assert_equal().await;
    });
}

/// Map files in a site's directory.
async fn map_files(machine: &SimMachine) -> usize {
    let ctx = machine.context();
    let mut open = vec![std::path::PathBuf::from("/site")];
    let mut files = 0;
    while let Some(dir) = open.pop() {
        if dir.ends_with("journal") {
            continue;
        }
        for entry in ctx.storage.list(&dir).await.unwrap() {
            let path = dir.join(&entry.name);
            match entry.is_dir {
                true => open.push(path),
                false => files += 1,
            }
        }
    }
    files
}

/// Cuts, layers and files of both sites.
async fn sizes(pair: &Pair, stores: [&StateStore; 2]) -> [(usize, usize, usize); 2] {
    let counts = stores.map(|s| s.with(|s| (s.lineage.cuts().len(), s.layers.closed.len())));
    let [here, there] = counts;
    [
        (here.0, here.1, map_files(&pair.source_machine).await),
        (there.0, there.1, map_files(&pair.replica_machine).await),
    ]
}

#[test]
fn cycles_leave_few_cuts_and_layers() {
    for absent in [false, true] {
        run(|| async move {
            let pair = Pair::new(5, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            if absent {
                add_absent_peer(&source).await;
            }
            pair.seed(&source).await;
            let replica = pair.start_replica().await.unwrap();
            let stores = [source.store().clone(), replica.store().clone()];
            let mut early = None;
            for cycle in 0..200 {
                fill(&source, 0, cycle % 60, cycle as u8).await;
                pair.attach(&source, &replica).await.in_step();
                if cycle == 20 {
                    early = Some(sizes(&pair, [&stores[0], &stores[1]]).await);
                }
            }
            let late = sizes(&pair, [&stores[0], &stores[1]]).await;
            assert_eq!(Some(late), early, "180 cycles more, and no file more");
            for (cuts, layers, files) in late {
                assert!(cuts <= 6 && layers <= 5 && files <= 16, "{late:?}");
            }
            pair.assert_equal().await;
        });
    }
}
