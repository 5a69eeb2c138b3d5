//! Views as NBD clients see them: what is read, what may be written, what is left of it.

use std::rc::Rc;

use nbd::{Client, ConnectOptions, Limits, Server, ZeroFlags};
use replication::replica::{At, Drill, Replica, Writable};
use tokio::net::UnixStream;

use crate::oracle::{assert_same, read_volumes};
use crate::rig::{GRAIN, Pair, fill};

const SIZES: [u64; 2] = [64 * GRAIN, 40 * GRAIN + 100];

/// Sockets are the kernel's: these tests run on the real clock, and wait for nothing but answers.
fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test());
}

async fn looked_at(seed: u64, most_bytes: Option<u64>) -> (Pair, Rc<Replica>, Drill) {
    let pair = Pair::new(seed, &SIZES).await;
    let source = pair.start_source().await.unwrap();
    for grain in (0..64).step_by(2) {
        fill(&source, 0, grain, grain as u8 + 1).await;
    }
    fill(&source, 1, 3, 0x31).await;
    pair.seed(&source).await;
    let replica = pair.start_replica().await.unwrap();
    fill(&source, 0, 7, 0xaa).await;
    pair.attach(&source, &replica).await.in_step();
    let view = replica.view(&At::Latest).await.unwrap();
    let writable = most_bytes.map(|most_bytes| Writable { dir: "/site".into(), most_bytes });
    let drill = Drill::new(view, writable).await.unwrap();
    // What is written from here on is not of this view.
    fill(&source, 0, 8, 0xbb).await;
    fill(&source, 0, 9, 0xbb).await;
    pair.attach(&source, &replica).await.in_step();
    (pair, replica, drill)
}

async fn client(drill: &Drill, export: &str) -> Client {
    let server = Server::new(drill.exports(), Limits::default(), None).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(tokio::task::spawn_local(async move { server.serve_connected(theirs).await }));
    let contexts = vec![nbd::BASE_ALLOCATION.to_owned()];
    let options = ConnectOptions { export: export.into(), contexts, ..ConnectOptions::default() };
    Client::connected(ours, &options).await.unwrap()
}

fn grain(image: &[u8], index: u64) -> &[u8] {
    &image[(index * GRAIN) as usize..((index + 1) * GRAIN) as usize]
}

#[test]
fn a_view_is_read_only_unless_it_is_a_drill() {
    run(|| async {
        let (_pair, _replica, drill) = looked_at(1, None).await;
        let client = client(&drill, "v0").await;
        assert!(client.is_read_only());
        let image = client.read(0, SIZES[0] as u32).await.unwrap();
        assert!(grain(&image, 7).iter().all(|byte| *byte == 0xaa));
        assert!(grain(&image, 8).iter().all(|byte| *byte == 9), "as it was");
        assert!(grain(&image, 9).iter().all(|byte| *byte == 0), "as it was");
        assert!(client.write(0, vec![1; 512].into(), false).await.is_err());
        assert_eq!(drill.counts().reads.get(), 1);
        assert_eq!(drill.counts().read_bytes.get(), SIZES[0]);
        drill.close().await;
        assert!(client.read(0, 512).await.is_err(), "it was closed");
    });
}

#[test]
fn what_a_drill_writes_is_seen_by_it_alone_and_gone_with_it() {
    run(|| async {
        let (pair, replica, drill) = looked_at(2, Some(1 << 20)).await;
        let before = read_volumes(&pair.replica_machine.context(), 2).await;
        let (first, second) = (client(&drill, "v0").await, client(&drill, "v1").await);
        let mut image = first.read(0, SIZES[0] as u32).await.unwrap().to_vec();
        let mut small = second.read(0, SIZES[1] as u32).await.unwrap().to_vec();
        let mut random = disk::simulated::SplitMix64::new(7);
        for _ in 0..300 {
            let (client, image) = match random.next_u64() % 3 {
                0 => (&second, &mut small),
                _ => (&first, &mut image),
            };
            let len = 1 + random.next_u64() % 9000;
            let at = random.next_u64() % (image.len() as u64 - len);
            let place = at as usize..(at + len) as usize;
            match random.next_u64() % 3 {
                0 => {
                    let value = random.next_u64() as u8;
                    client.write(at, vec![value; len as usize].into(), false).await.unwrap();
                    image[place].fill(value);
                }
                1 => {
                    client.zero(at, len, ZeroFlags::default()).await.unwrap();
                    image[place].fill(0);
                }
                _ => assert_eq!(client.read(at, len as u32).await.unwrap(), image[place]),
            }
        }
        first.flush().await.unwrap();
        let seen = [first.read(0, SIZES[0] as u32).await.unwrap().to_vec()];
        assert_same(&seen, &[image], GRAIN as usize, "the drill");
        assert_eq!(second.read(0, SIZES[1] as u32).await.unwrap(), small);
        let now = read_volumes(&pair.replica_machine.context(), 2).await;
        assert_same(&now, &before, GRAIN as usize, "the replica");
        assert!(drill.counts().writes.get() > 100 && drill.overlay_bytes() > 0);
        let another = Drill::new(replica.view(&At::Latest).await.unwrap(), None).await.unwrap();
        let looks = client(&another, "v0").await;
        let latest = looks.read(0, SIZES[0] as u32).await.unwrap();
        assert_eq!(latest, before[0], "another look sees nothing of it");
        another.close().await;
        drill.close().await;
        let left = pair.replica_machine.context().storage.list("/site".as_ref()).await.unwrap();
        assert!(left.iter().all(|entry| !entry.name.contains("overlay")), "{left:?}");
    });
}

#[test]
fn a_drill_that_writes_more_than_it_may_is_told_so() {
    run(|| async {
        let (_pair, _replica, drill) = looked_at(3, Some(8 * 4096)).await;
        let client = client(&drill, "v0").await;
        for block in 0..8 {
            client.write(block * 4096, vec![9; 4096].into(), false).await.unwrap();
        }
        // What it has may be written again.
        client.write(0, vec![8; 4096].into(), false).await.unwrap();
        let full = client.write(30 * 4096, vec![9; 4096].into(), false).await;
        assert!(format!("{full:?}").contains("NoSpace"), "{full:?}");
        assert!(client.read(0, 4096).await.unwrap().iter().all(|byte| *byte == 8));
        assert_eq!(drill.counts().errors.get(), 1);
    });
}

/// What is told to be a hole reads as zeros, and what the volumes have of it is no hole.
#[test]
fn holes_of_a_view_are_told() {
    run(|| async {
        let (_pair, _replica, drill) = looked_at(4, Some(1 << 20)).await;
        let client = client(&drill, "v0").await;
        client.write(20 * GRAIN + 5, vec![1; 10].into(), false).await.unwrap();
        let image = client.read(0, SIZES[0] as u32).await.unwrap();
        let extents = client.block_status(0, SIZES[0], false).await.unwrap();
        let (mut at, mut holes) = (0, 0);
        let extents = extents.into_values().next().unwrap();
        for extent in &extents {
            let place = at as usize..(at + extent.len) as usize;
            if extent.flags & nbd::STATE_ZERO != 0 {
                assert!(image[place].iter().all(|byte| *byte == 0), "at {at}");
                holes += extent.len;
            }
            at += extent.len;
        }
        assert_eq!(at, SIZES[0], "{extents:?}");
        assert!(holes >= 20 * GRAIN, "{holes} of {extents:?}");
    });
}
