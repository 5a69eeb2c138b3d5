//! A peer that is forgotten while writes wait for it; one whose place must not be mistaken.

use std::time::Duration;

use replication::state::{Mode, OnLinkLoss};

use crate::rig::{fill, run};
use crate::roles;
use crate::stream::Life;

#[test]
fn nobody_waits_for_a_peer_that_was_forgotten() {
    run(|| async {
        let block = OnLinkLoss::Block { limit_ms: 3_600_000 };
        let mut life = Life::new(141, Mode::Sync { on_link_loss: block }, |_| {}).await;
        life.mirroring().await;
        life.some_writes(5).await;
        life.source.add_peer("another").await.unwrap();
        life.cut_link().await;
        let replica = life.pair.replica_id.to_string();
        let forgetting = tokio::task::spawn_local({
            let source = life.source.clone();
            async move {
                tokio::time::sleep(Duration::from_secs(60)).await;
                source.remove_peer(&replica).await
            }
        });
        let asked = tokio::time::Instant::now();
        life.write().await.unwrap();
        assert!(asked.elapsed() >= Duration::from_secs(60), "it waited for the peer that is gone");
        forgetting.await.unwrap().unwrap();
        // And nobody lets it in again.
        let refused = life.pair.connect(&life.source, &life.replica).ended().await;
        let words = refused.replica.unwrap().unwrap_err().to_string();
        assert!(words.contains("not a peer"), "{words}");
    });
}

#[test]
fn who_gave_way_and_is_promoted_again_knows_where_the_other_stands() {
    run(|| async {
        let (pair, source, replica) = roles::in_step(14).await;
        let common = replica.head().unwrap();
        fill(&source, 0, 9, 0x61).await;
        // By mistake: the other was not promoted, and brought nothing.
        let mistaken = roles::give_way(&pair, source, common).await;
        mistaken.promote(false).await.unwrap();
        drop(mistaken);
        let source = pair.start_source().await.unwrap();
        assert_eq!(source.store().with(|s| s.peers[0].acked), Some(common));
        fill(&source, 0, 10, 0x62).await;
        source.housekeep().await.unwrap();
        let ended = pair.attach(&source, &replica).await;
        ended.in_step();
        assert!(ended.progress.sent_grains.get() < 8, "{}", ended.progress.sent_grains.get());
        pair.assert_equal().await;
    });
}
