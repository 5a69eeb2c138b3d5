//! Zeros in the past of a replica: they change nothing where there were zeros, and are kept all the same.

use std::time::Duration;

use disk::simulated::Crash;
use grain::VolumeId;
use replication::source::Change;
use replication::state::Mode;

use crate::past::{LONG, assert_points, keeping};
use crate::rig::run;
use crate::stream::Life;
use crate::stream_damage;

/// A device that is discarded whole is a hole of a terabyte as a rule: it does not take a record for each of its
/// pieces.
#[test]
fn zeros_over_a_hole_take_little_room() {
    run(|| async {
        let mut life = keeping(69, Mode::Async, LONG).await;
        life.equal().await;
        let before = life.replica.history_status().records;
        zeros_everywhere(&mut life).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        life.equal().await;
        let records = life.replica.history_status().records;
        assert!((before + 1..=before + 4).contains(&records), "{before} {records}");
        assert_points(&life).await;
        life.some_writes(40).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(assert_points(&life).await.len() > 2);
    });
}

async fn zeros_everywhere(life: &mut Life) {
    for volume in 0..2 {
        let (len, source) = (life.image[volume].len() as u64, life.source.clone());
        let zero = Change::Zero { len, punch: true, fast: false };
        source.write(VolumeId(volume as u16), 0, zero, false).await.unwrap();
        life.image[volume].fill(0);
    }
}

/// Zeros over zeros change nothing, and are kept all the same: after a crash what came later in their epoch is
/// brought into the base again, over itself, and would be taken for what was there before.
#[test]
fn zeros_over_zeros_are_kept_for_the_sake_of_what_comes_after_them() {
    run(|| async {
        let mut life = Life::new(70, Mode::Async, |pair| {
            pair.serve.stream.epoch = Duration::from_secs(600);
            pair.replica_settings.history.retain = LONG;
        })
        .await;
        zeros_everywhere(&mut life).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        stream_damage::fill(&mut life, 7, 0x77).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        for kind in [Crash::Kill, Crash::PowerCut] {
            life.restart_replica(kind, 3).await;
            assert!(!assert_points(&life).await.is_empty());
        }
    });
}
