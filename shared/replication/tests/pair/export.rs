//! A volume of the source as an NBD client sees it: what was answered to a request that asked for stable
//! storage survives a power cut, every way of changing bytes is tracked, and a client that leaves does not
//! let its half-done write out of the gate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind, SimMachine};
use grain::{CutReason, GrainSet, VolumeId};
use nbd::{Client, ConnectOptions, Limits, Server, ZeroFlags};
use replication::source::{Source, VolumeExport};
use tokio::net::UnixStream;

use crate::oracle::read_volumes;
use crate::rig::{GRAIN, Pair};

const SIZES: [u64; 2] = [32 * GRAIN, 8 * GRAIN + 9];

/// Sockets are the kernel's: these tests run on the real clock, and wait for nothing but answers.
fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

async fn client(source: &Rc<Source>) -> Client {
    let server = Server::new(VolumeExport::all(source), Limits::default(), None).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(tokio::task::spawn_local(async move { server.serve_connected(theirs).await }));
    let options = ConnectOptions { export: "v0".into(), ..ConnectOptions::default() };
    Client::connected(ours, &options).await.unwrap()
}

async fn started(seed: u64) -> (Pair, Rc<Source>, Client) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    let client = client(&source).await;
    (pair, source, client)
}

/// What the volumes hold after any of some power cuts now.
async fn after_power_cuts(pair: &Pair) -> Vec<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for seed in 0..24 {
        let scratch = SimMachine::new(seed);
        scratch.restore(&pair.source_machine.snapshot());
        scratch.crash_seeded(Crash::PowerCut, seed);
        found.push(read_volumes(&scratch.context(), SIZES.len()).await);
    }
    found
}

async fn durable(pair: &Pair, grains: std::ops::Range<u64>, value: u8, words: &str) {
    let range = (grains.start * GRAIN) as usize..(grains.end * GRAIN) as usize;
    for content in after_power_cuts(pair).await {
        assert!(content[0][range.clone()].iter().all(|b| *b == value), "{words}");
    }
}

#[test]
fn what_was_to_be_stable_is_when_it_is_answered() {
    run(|| async {
        let (pair, _source, client) = started(120).await;
        let grains = |n: u64, value: u8| vec![value; (n * GRAIN) as usize].into();
        client.write(0, grains(12, 0xaa), false).await.unwrap();
        let lost = after_power_cuts(&pair).await.iter().any(|c| c[0][..4096] != [0xaa; 4096]);
        assert!(lost, "a write that asked for nothing is stable: these tests show nothing");
        client.flush().await.unwrap();
        durable(&pair, 0..12, 0xaa, "a flush").await;
        client.write(0, grains(2, 0xbb), true).await.unwrap();
        durable(&pair, 0..2, 0xbb, "a write").await;
        client.trim(2 * GRAIN, 2 * GRAIN, true).await.unwrap();
        durable(&pair, 2..4, 0, "a trim").await;
        for (place, no_hole) in [(4, false), (6, true)] {
            let how = ZeroFlags { fua: true, no_hole, fast: false };
            client.zero(place * GRAIN, 2 * GRAIN, how).await.unwrap();
            durable(&pair, place..place + 2, 0, "zeroes").await;
        }
        durable(&pair, 8..12, 0xaa, "what nobody touched").await;
    });
}

#[test]
fn every_way_of_changing_bytes_is_tracked() {
    run(|| async {
        let (_pair, source, client) = started(121).await;
        let bytes = vec![0x55; 32 * GRAIN as usize];
        client.write(0, bytes.clone().into(), false).await.unwrap();
        source.cut(CutReason::Cycle, |_| Vec::new()).await.unwrap();
        let expect = |grains: &[u64], words: &str| {
            let expected: GrainSet = grains
                .iter()
                .map(|first| grain::Run { volume: VolumeId(0), first: *first, count: 1 })
                .collect();
            assert!(expected.is_subset(&source.open_layer()), "{words}");
        };
        let grain = bytes[..GRAIN as usize].to_vec();
        client.write(GRAIN, grain.clone().into(), false).await.unwrap();
        expect(&[1], "a write");
        client.write(2 * GRAIN, grain.into(), true).await.unwrap();
        expect(&[2], "a durable write");
        client.trim(3 * GRAIN, GRAIN, false).await.unwrap();
        expect(&[3], "a trim");
        client.trim(4 * GRAIN + 100, GRAIN, false).await.unwrap();
        expect(&[4, 5], "a trim across a border");
        client.zero(6 * GRAIN, GRAIN, ZeroFlags::default()).await.unwrap();
        expect(&[6], "zeroes that may be a hole");
        let how = ZeroFlags { no_hole: true, ..ZeroFlags::default() };
        client.zero(7 * GRAIN, GRAIN, how).await.unwrap();
        expect(&[7], "zeroes that may not");
        let open = source.open_layer();
        assert_eq!(open.len(), 7, "and nothing else: {open:?}");
    });
}

#[test]
fn a_client_that_leaves_does_not_let_its_write_out() {
    run(|| async {
        let (pair, source, client) = started(122).await;
        pair.source_machine.set_now_chance(0);
        let begun = Rc::new(Cell::new(false));
        let seen = begun.clone();
        pair.source_machine.set_fault_hook(move |op| {
            let of_base = op.kind == OpKind::Write && op.path.starts_with("/volumes");
            seen.set(seen.get() || of_base);
            if of_base { Fault::Slow(Duration::from_millis(300)) } else { Fault::None }
        });
        let bytes = vec![0x66; 8 * GRAIN as usize];
        let asked =
            tokio::task::spawn_local(async move { client.write(0, bytes.into(), false).await });
        while !begun.get() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The client is gone, and its connection with it, before the disk is done.
        asked.abort();
        assert!(asked.await.is_err());
        let machine = pair.source_machine.clone();
        let seen = RefCell::new(Vec::new());
        let look = |_| {
            *seen.borrow_mut() = machine.content("/volumes/0").unwrap().to_vec();
            Vec::new()
        };
        source.cut(CutReason::Cycle, look).await.unwrap();
        let written = seen.borrow()[..8 * GRAIN as usize].iter().filter(|b| **b == 0x66).count();
        let marked = source.open_layer().is_empty();
        assert!(written == 8 * GRAIN as usize && marked, "a cut in the middle of a write");
    });
}
