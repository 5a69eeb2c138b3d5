//! Loads that must not happen: into volumes that are being sealed, and from another set than the one that
//! the seed was begun from.

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};
use replication::Error;
use replication::dump::{DumpJob, DumpRequest};
use replication::replica::Replica;
use replication::source::Source;
use wire::link::Fate;

use crate::media::{blank_replica, dump, load, medium, request, ship};
use crate::rig::{GRAIN, Pair, fill, run, write};

const SIZES: [u64; 2] = [96 * GRAIN, 40 * GRAIN + 100];

/// A source whose volumes were dumped, and a blank replica to which the medium was shipped.
async fn shipped(seed: u64) -> (Pair, Rc<Replica>) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in 0..96 {
        fill(&source, 0, grain, grain as u8 + 1).await;
    }
    dump(&pair, &source, 1).await.unwrap();
    let replica = blank_replica(&pair).await;
    ship(&pair, 1).await;
    (pair, replica)
}

/// The load is asked for before the stop, during it, and after it; whenever that is, the next start finds the
/// volumes as they were sealed.
#[test]
fn nothing_is_loaded_into_sealed_volumes() {
    for after_us in (0..60_000).step_by(1_500) {
        run(|| async move {
            let (pair, replica) = shipped(131).await;
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

/// A process that is killed in the middle of a load leaves bits that only the page cache has. Whatever its
/// successor makes of them, it does not take back.
#[test]
fn a_replica_that_starts_consistent_after_a_load_that_was_killed_stays_so() {
    let mut consistent = 0;
    for after in 0..60 {
        run(|| async {
            let (pair, replica) = shipped(137).await;
            let machine = pair.replica_machine.clone();
            // Of the operations that change something, the last ones before the load has ended.
            let (seen, crashing) = (std::cell::Cell::new(0), machine.clone());
            machine.set_fault_hook(move |op| {
                if op.path.starts_with("/site/layers") && op.kind == OpKind::Sync {
                    seen.set(seen.get() + 1);
                    if seen.get() == after {
                        crashing.crash_seeded(Crash::Kill, after);
                    }
                }
                Fault::None
            });
            drop(load(&replica, 1).await);
            drop(replica);
            machine.clear_fault_hook();
            machine.crash_seeded(Crash::Kill, after);
            let said = pair.start_replica().await.unwrap().is_consistent();
            machine.crash_seeded(Crash::PowerCut, after);
            let now = pair.start_replica().await.unwrap().is_consistent();
            assert!(now || !said, "killed before sync {after} of a map");
            consistent += u64::from(said && after < 40);
        });
    }
    assert!(consistent > 0, "it was never killed late enough");
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

/// The first of two disks is loaded, everything is pulled straight into the volumes, and the second disk comes in
/// the middle of that: it overwrites what had arrived, which is asked for again. The sync that the arrived had
/// waited for strikes nothing of it from the map: after a crash it would count as arrived.
#[test]
fn what_a_load_overwrote_has_not_arrived() {
    let mut overwrote = 0;
    for (stalls_at, cut_after_ms) in (1..4).flat_map(|mib| (1..30).map(move |ms| (mib << 20, ms))) {
        run(|| async {
            let (pair, source, replica) = half_seeded(138).await;
            let latency = Duration::from_micros(200)..Duration::from_millis(1);
            pair.replica_machine.set_latency(latency);
            let mut delivered = 0;
            let session = pair.connect_through(&source, &replica, move |_, bytes| {
                delivered += bytes;
                let after = Duration::from_secs(if delivered > stalls_at { 3600 } else { 0 });
                Fate::Deliver { after }
            });
            tokio::time::sleep(Duration::from_secs(60)).await;
            let arrived = replica.progress().received_grains.get();
            let cable = session.cable.clone();
            let goes = async {
                tokio::time::sleep(Duration::from_millis(cut_after_ms)).await;
                cable.cut();
            };
            let (loaded, ended, ()) = tokio::join!(load(&replica, 2), session.ended(), goes);
            assert!(ended.replica.unwrap().is_err(), "it was done before");
            overwrote += if arrived > 0 { loaded.unwrap().loaded_grains } else { 0 };
            drop(replica);
            pair.replica_machine.crash_seeded(Crash::Kill, cut_after_ms);
            let replica = pair.start_replica().await.unwrap();
            let cut = pair.attach(&source, &replica).await.in_step();
            pair.assert_replica_at(cut).await;
        });
    }
    assert!(overwrote > 0, "the second disk never came in the middle");
}

/// A source that wrote everything again after a dump to two media, and a replica that has the first of them and
/// pulls the rest without waiting.
async fn half_seeded(seed: u64) -> (Pair, Rc<Source>, Rc<Replica>) {
    const PIECES: u64 = 64;
    let mut pair = Pair::new(seed, &[PIECES * 16 * GRAIN]).await;
    pair.follow.pull_unloaded = true;
    pair.follow.samples = 0;
    let source = pair.start_source().await.unwrap();
    let written = async |value: u8| {
        for piece in 0..PIECES {
            let at = piece * 16 * GRAIN;
            write(&source, 0, at, 16 * GRAIN as usize, value ^ piece as u8).await;
        }
    };
    written(0x40).await;
    dump(&pair, &source, 2).await.unwrap();
    written(0x80).await;
    let replica = blank_replica(&pair).await;
    ship(&pair, 1).await;
    ship(&pair, 2).await;
    load(&replica, 1).await.unwrap();
    (pair, source, replica)
}
