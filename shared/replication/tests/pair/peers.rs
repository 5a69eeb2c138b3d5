//! A peer that is forgotten while writes wait for it.

use std::time::Duration;

use replication::state::{Mode, OnLinkLoss};

use crate::rig::run;
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
