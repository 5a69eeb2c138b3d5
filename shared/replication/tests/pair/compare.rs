//! Digests decide: samples at attach, a whole comparison, and grains that a power cut made suspected.

use disk::OpenMode;
use disk::simulated::Crash;
use grain::Lineage;
use replication::Error;

use crate::rig::{GRAIN, Pair, fill, run, volume_path, write};

const SIZES: [u64; 2] = [48 * GRAIN, 20 * GRAIN + 77];

async fn filled(seed: u64) -> (Pair, std::rc::Rc<replication::source::Source>) {
    let mut pair = Pair::new(seed, &SIZES).await;
    pair.follow.samples = 4096;
    let source = pair.start_source().await.unwrap();
    for grain in 0..48 {
        fill(&source, 0, grain, grain as u8 + 1).await;
    }
    write(&source, 1, 20 * GRAIN, 77, 9).await;
    (pair, source)
}

async fn touch(pair: &Pair, grains: &[u64]) {
    let ctx = pair.replica_machine.context();
    let file = ctx.storage.open(&volume_path(0), OpenMode::ReadWrite).await.unwrap();
    for grain in grains {
        file.write_at(grain * GRAIN + 7, vec![0x5a; 3].into()).await.unwrap();
    }
    file.sync_data().await.unwrap();
}

#[test]
fn a_base_changed_behind_our_back_is_found_and_then_compared() {
    run(|| async {
        let (mut pair, source) = filled(21).await;
        let seeded = pair.seed(&source).await;
        touch(&pair, &[5, 30]).await;
        let replica = pair.start_replica().await.unwrap();
        fill(&source, 0, 40, 0xaa).await;
        let before = pair.replica_content().await;
        let cuts = source.store().with(|s| s.lineage.cuts().len());
        let ended = pair.attach(&source, &replica).await;
        let (here, there) =
            (ended.replica.unwrap().unwrap_err(), ended.source.unwrap().unwrap_err());
        assert!(matches!(here, Error::Fingerprint(_)), "{here}");
        let bytes =
            |grain| format!("bytes {}..{} of volume v0", grain * GRAIN, (grain + 1) * GRAIN);
        let (place, second) = (bytes(5), bytes(30));
        let text = here.to_string();
        assert!(text.contains(&place) || text.contains(&second), "{text}");
        let text = there.to_string();
        assert!(matches!(there, Error::Fingerprint(_)) && text.contains("2 of"), "{text}");
        assert!(text.contains(&place) && text.contains(&second), "{text}");
        assert!(pair.replica_content().await == before, "nothing was written");
        assert_eq!(replica.head(), Some(seeded));
        assert_eq!(source.store().with(|s| s.lineage.cuts().len()), cuts, "no cut was made");

        pair.follow.compare = true;
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        pair.assert_equal().await;
        assert_eq!(ended.progress.sent_bytes.get(), 3 * GRAIN, "only what differs travels");
    });
}

#[test]
fn what_is_written_is_no_sample() {
    run(|| async {
        let (pair, source) = filled(22).await;
        pair.seed(&source).await;
        touch(&pair, &[5]).await;
        fill(&source, 0, 5, 0xaa).await;
        let replica = pair.start_replica().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn samples_are_those_that_this_replica_holds() {
    run(|| async {
        let (pair, source) = filled(23).await;
        pair.seed(&source).await;
        let old = pair.replica_machine.snapshot();
        let replica = pair.start_replica().await.unwrap();
        fill(&source, 0, 11, 0xaa).await;
        pair.attach(&source, &replica).await.in_step();
        // The replica's machine is put back to an older image: the source still has the layers.
        pair.replica_machine.restore(&old);
        let replica = pair.start_replica().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        pair.assert_equal().await;
    });
}

#[test]
fn a_copy_that_came_another_way_is_adopted() {
    run(|| async {
        let (mut pair, source) = filled(24).await;
        let mut content = pair.source_content().await;
        content[0][3 * GRAIN as usize] ^= 1;
        content[1][20 * GRAIN as usize + 5] ^= 1;
        pair.create_replica(Lineage::new(), &content).await;
        let replica = pair.start_replica().await.unwrap();
        let refused = pair.attach(&source, &replica).await;
        let here = refused.replica.unwrap().unwrap_err();
        assert!(matches!(&here, Error::Refused { rule, .. } if rule == "no-ancestor"), "{here}");
        pair.follow.compare = true;
        let ended = pair.attach(&source, &replica).await;
        pair.assert_replica_at(ended.in_step()).await;
        assert_eq!(ended.progress.sent_bytes.get(), GRAIN + 77);
        assert!(replica.is_consistent());
        pair.follow.compare = false;
        fill(&source, 0, 9, 0xee).await;
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert_eq!(ended.progress.sent_grains.get(), 1, "from then on the delta is known");
    });
}

#[test]
fn suspected_grains_travel_only_where_they_differ() {
    run(|| async {
        let (mut pair, source) = filled(25).await;
        pair.follow.samples = 0;
        pair.seed(&source).await;
        let replica = pair.start_replica().await.unwrap();
        pair.attach(&source, &replica).await.in_step();
        fill(&source, 0, 7, 0xaa).await;
        source.flush().await.unwrap();
        pair.source_machine.crash_seeded(Crash::PowerCut, 4);
        let source = pair.start_source().await.unwrap();
        let suspected = source.suspected().len();
        assert!(suspected > 10, "{suspected}");
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        pair.assert_equal().await;
        assert_eq!(ended.progress.sent_bytes.get(), GRAIN);
        assert!(ended.progress.sent_grains.get() > suspected / 2);
        assert_eq!(source.suspected().len(), 0);
    });
}
