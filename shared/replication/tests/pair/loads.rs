//! Loads that must not happen: into volumes that are being sealed, and from another set than the one that
//! the seed was begun from.

use std::time::Duration;

use disk::simulated::Crash;
use replication::Error;
use replication::dump::{DumpJob, DumpRequest};

use crate::media::{blank_replica, dump, load, medium, request, ship};
use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [96 * GRAIN, 40 * GRAIN + 100];

/// The load is asked for before the stop, during it, and after it; whenever that is, the next start finds the
/// volumes as they were sealed.
#[test]
fn nothing_is_loaded_into_sealed_volumes() {
    for after_us in (0..60_000).step_by(1_500) {
        run(|| async move {
            let pair = Pair::new(131, &SIZES).await;
            let source = pair.start_source().await.unwrap();
            for grain in 0..96 {
                fill(&source, 0, grain, grain as u8 + 1).await;
            }
            dump(&pair, &source, 1).await.unwrap();
            let replica = blank_replica(&pair).await;
            ship(&pair, 1).await;
            let most = Duration::from_millis(2);
            pair.replica_machine.set_latency(Duration::from_millis(1)..most);
            let stopping = {
                let replica = replica.clone();
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                    replica.stop().await
                })
            };
            tokio::time::sleep(Duration::from_micros(after_us)).await;
            let loaded = load(&replica, 1).await;
            stopping.await.unwrap().unwrap();
            assert!(matches!(loaded, Ok(_) | Err(Error::Cancelled)), "{loaded:?}");
            let late = load(&replica, 1).await;
            assert!(matches!(late, Err(Error::Cancelled)), "{late:?}");
            drop(replica);
            pair.replica_machine.crash_seeded(Crash::Kill, 1);
            let replica = pair.start_replica().await;
            assert!(replica.is_ok(), "{:?}", replica.err());
        });
    }
}

/// Two sets of the same source; half of the first is loaded, and the carrier brings the second. Together they
/// would be no point in time that the source ever was at.
#[test]
fn a_seed_is_filled_up_from_its_own_set_alone() {
    run(|| async {
        let pair = Pair::new(132, &SIZES).await;
        let source = pair.start_source().await.unwrap();
        for grain in 0..96 {
            fill(&source, 0, grain, 0x10).await;
        }
        let first = dump(&pair, &source, 2).await.unwrap();
        for grain in 0..96 {
            fill(&source, 0, grain, 0x20).await;
        }
        let again = DumpRequest { media: vec![medium(3), medium(4)], ..request(&pair, 2) };
        DumpJob::begin(&source, again).await.unwrap().run().await.unwrap();
        let replica = blank_replica(&pair).await;
        for number in 1..=4 {
            ship(&pair, number).await;
        }
        load(&replica, 1).await.unwrap();
        let half = pair.replica_content().await;
        for number in [3, 4] {
            let other = load(&replica, number).await;
            assert!(matches!(other, Err(Error::State(_))), "{other:?}");
        }
        assert!(pair.replica_content().await == half, "something was written all the same");
        load(&replica, 2).await.unwrap();
        pair.assert_replica_at(first.cut).await;
    });
}
