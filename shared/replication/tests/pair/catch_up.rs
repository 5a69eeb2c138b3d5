//! The happy path: writes before and during a catch-up, several volumes, short ends, zeros, holes.

use std::rc::Rc;

use grain::VolumeId;
use replication::replica::Condition;
use replication::source::{Change, Source};

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
