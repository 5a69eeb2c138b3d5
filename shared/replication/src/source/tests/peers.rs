//! Peers that come and go while the source serves.

use disk::simulated::{Crash, Fault, OpKind};

use super::*;

const OTHER: &str = "peer-two";

/// Of this peer on disk: whether it is one, and whether a mark says that it is being done without.
async fn on_disk(site: &Site, identity: &str) -> Option<bool> {
    let store = StateStore::open(&site.machine.context(), &dir()).await.unwrap();
    store.with(|s| Some(s.peers.iter().find(|p| p.identity == identity)?.alone.is_some()))
}

#[test]
fn a_new_peer_is_marked_before_the_next_reply_and_layers_are_kept_for_it() {
    run(async {
        let site = Site::new(21).await;
        let source = site.start().await.unwrap();
        write_grain(&source, 0, 1, 1).await.unwrap();
        assert!(source.add_peer(OTHER).await.unwrap());
        assert!(!source.add_peer(OTHER).await.unwrap(), "said twice, done once");
        assert_eq!(on_disk(&site, OTHER).await, Some(false));
        write_grain(&source, 0, 2, 1).await.unwrap();
        assert_eq!(on_disk(&site, OTHER).await, Some(true));

        // The first one acknowledges a cut; what the other lacks stays.
        let made = cut(&source).await.unwrap();
        publish(&source, made).await.unwrap();
        source.acknowledged(PEER, made).await.unwrap();
        let dirty = source.dirty();
        assert!(dirty.contains(VolumeId(0), 1) && dirty.contains(VolumeId(0), 2));
        assert_eq!(source.dirty_of(OTHER), dirty);
        assert!(source.dirty_of(PEER).is_empty(), "{:?}", source.dirty_of(PEER));
        write_grain(&source, 0, 3, 1).await.unwrap();
        let later = cut(&source).await.unwrap();
        for (who, lacks) in [(PEER, vec![3]), (OTHER, vec![1, 2, 3])] {
            let dirty = source.dirty_of(who);
            let found: Vec<u64> = (0..8).filter(|i| dirty.contains(VolumeId(0), *i)).collect();
            assert_eq!(found, lacks, "{who}");
        }
        publish(&source, later).await.unwrap();
        source.acknowledged(PEER, later).await.unwrap();
        drop(source);
        site.machine.crash_seeded(Crash::PowerCut, 1);
        let source = site.start().await.unwrap();
        assert!(source.dirty().contains(VolumeId(0), 1), "also after a crash");

        source.remove_peer(OTHER).await.unwrap();
        assert_eq!(on_disk(&site, OTHER).await, None);
        let since = written_since(&source, later).await.unwrap();
        assert_eq!(source.dirty(), since, "what only it lacked is owed to nobody");
        for (who, words) in [(OTHER, "not a peer"), (PEER, "the only peer")] {
            let refused = source.remove_peer(who).await.unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    });
}

/// Power cuts and failing saves at each operation: it is a peer or it is not, and the source starts.
#[test]
fn it_is_a_peer_or_not_whatever_crashes() {
    let mut seen = [0, 0];
    for after in 0..24 {
        run(async {
            let site = Site::new(23).await;
            let source = site.start().await.unwrap();
            let (machine, at) = (site.machine.clone(), site.machine.operations() + after / 2);
            let fails = after % 2 == 0;
            let crashing = machine.clone();
            machine.set_fault_hook(move |op| {
                if op.number != at {
                    return Fault::None;
                }
                if fails && op.kind != OpKind::Open {
                    return Fault::Io;
                }
                crashing.crash_seeded(Crash::PowerCut, after);
                Fault::None
            });
            let added = source.add_peer(OTHER).await;
            machine.clear_fault_hook();
            drop(source);
            machine.crash_seeded(Crash::PowerCut, after);
            let source = site.start().await.unwrap();
            let is_one = source.store().with(|s| s.peers.len() == 2);
            assert!(is_one || added.is_err(), "it was said to be one");
            seen[usize::from(is_one)] += 1;
        });
    }
    assert!(seen.iter().all(|times| *times > 2), "{seen:?}");
}
