//! What a start takes up again.

use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind, SimMachine};

use super::*;
use crate::state::{decode, encode};

#[test]
fn layers_since_the_last_synced_cut_are_reopened_after_an_unclean_stop() {
    for crash in [Crash::Kill, Crash::PowerCut] {
        run(async {
            let site = Site::new(1).await;
            let source = site.start().await.unwrap();
            let first = cut(&source).await.unwrap();
            write_grain(&source, 0, 5, 1).await.unwrap();
            let second = cut(&source).await.unwrap();
            publish(&source, second).await.unwrap();
            // As if the second had been a cut inside a stream, published without a sync of the base.
            source.store().update(|s| s.synced = Some(first)).await.unwrap();
            drop(source);
            site.machine.crash_seeded(crash, 1);
            let source = site.start().await.unwrap();
            let known = written_since(&source, second).await.unwrap();
            assert!(known.contains(VolumeId(0), 5), "the base may have lost what the peer has");
        });
    }
}

#[test]
fn a_clean_stop_reopens_nothing() {
    run(async {
        let site = Site::new(2).await;
        let source = site.start().await.unwrap();
        write_grain(&source, 0, 5, 1).await.unwrap();
        let held = cut(&source).await.unwrap();
        publish(&source, held).await.unwrap();
        source.stop().await.unwrap();
        drop(source);
        site.machine.crash_seeded(Crash::Kill, 1);
        let source = site.start().await.unwrap();
        assert!(written_since(&source, held).await.unwrap().is_empty());
    });
}

/// A replica's lineage is the source's, which may have no more the cut at which one of its layers ends.
#[test]
fn layers_that_end_at_a_pruned_cut_are_older_than_the_cuts_after_it() {
    run(async {
        let site = Site::new(3).await;
        let source = site.start().await.unwrap();
        let mut cuts = Vec::new();
        for grain in 3..7 {
            let made = cut(&source).await.unwrap();
            publish(&source, made).await.unwrap();
            cuts.push(made);
            write_grain(&source, 0, grain, 1).await.unwrap();
        }
        let last = cut(&source).await.unwrap();
        source.store().update(|s| s.lineage.prune(|cut| cut != cuts[1])).await.unwrap();
        let keeper = source.keeper();
        let since = |cut| keeper.written_since(cut);
        assert!(since(last).await.unwrap().is_empty());
        let newest: Vec<_> = since(cuts[3]).await.unwrap().runs().collect();
        assert_eq!(newest, [grain::Run { volume: VolumeId(0), first: 6, count: 1 }]);
        assert_eq!(since(cuts[2]).await.unwrap().len(), 2);
        // Nobody knows the epoch around the cut that is gone.
        assert_eq!(since(cuts[0]).await.unwrap().len(), site.geometry.total_grains());
    });
}

/// Power cuts at each operation of a start that follows a power cut.
#[test]
fn a_start_that_is_cut_off_loses_nothing() {
    for seed in 0..6 {
        let (site, held, content) = run(async {
            let site = Site::new(seed).await;
            let source = site.start().await.unwrap();
            let held = cut(&source).await.unwrap();
            publish(&source, held).await.unwrap();
            let content = site.content_now(&used());
            for run in used().runs() {
                write_grain(&source, 0, run.first, 1).await.unwrap();
            }
            source.flush().await.unwrap();
            (site.clone(), held, content)
        });
        site.machine.crash_seeded(Crash::PowerCut, seed);
        let before = site.machine.snapshot();
        for after in 0.. {
            let machine = SimMachine::new(1000 + after);
            machine.restore(&before);
            let twin = Site { machine: machine.clone(), ..site.clone() };
            let started = run(async {
                let at = machine.operations() + after;
                let hooked = machine.clone();
                machine.set_fault_hook(move |op| {
                    if op.number == at {
                        hooked.crash_seeded(Crash::PowerCut, after + seed);
                    }
                    Fault::None
                });
                twin.start().await.is_ok()
            });
            machine.clear_fault_hook();
            run(async {
                machine.crash_seeded(Crash::PowerCut, after);
                let source = twin.start().await.unwrap();
                let differ = differing(&content, &twin.content(&used()).await);
                assert!(differ.is_subset(&written_since(&source, held).await.unwrap()));
            });
            if started {
                break;
            }
        }
    }
}

fn used() -> GrainSet {
    let mut set = GrainSet::new();
    for index in [0, 700, 1500, 2500, 6000] {
        set.insert(VolumeId(0), index);
    }
    set
}

/// A cut whose bits are still being synced, and whose record an application's flush and somebody else's save
/// have put on the disk, is killed; the start after that empties the region map, and then the power fails.
#[test]
fn a_closed_layer_of_a_killed_process_is_synced_by_the_next() {
    for seed in 0..30 {
        run(async {
            let site = Site::new(seed).await;
            let source = site.start().await.unwrap();
            let held = cut(&source).await.unwrap();
            publish(&source, held).await.unwrap();
            for index in [9, 700, 1500] {
                write_grain(&source, 0, index, 1).await.unwrap();
            }
            site.machine.set_fault_hook(|op| match op.kind {
                OpKind::Sync if op.path.extension().is_some_and(|ending| ending == "ghm") => {
                    Fault::Slow(Duration::from_secs(9))
                }
                _ => Fault::None,
            });
            let cutting = tokio::task::spawn_local({
                let source = source.clone();
                async move { drop(cut(&source).await) }
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(!cutting.is_finished() && source.head() != Some(held), "not in the middle");
            source.flush().await.unwrap();
            source.store().save().await.unwrap();
            cutting.abort();
            drop(source);
            site.machine.clear_fault_hook();
            site.machine.crash_seeded(Crash::Kill, seed);
            drop(site.start().await.unwrap());
            site.machine.crash_seeded(Crash::PowerCut, seed);
            let source = site.start().await.unwrap();
            let known = written_since(&source, held).await.unwrap();
            for index in [9, 700, 1500] {
                assert!(known.contains(VolumeId(0), index), "{index}");
            }
        });
    }
}

#[test]
fn a_state_that_is_indented_is_read_and_one_that_was_touched_is_not() {
    run(async {
        let site = Site::new(31).await;
        let bytes = site.machine.content(dir().join("state.json")).unwrap().to_vec();
        let state = decode(&bytes).unwrap();
        assert_eq!(encode(&state).unwrap(), bytes);
        let indented = serde_json::to_string_pretty(&state).unwrap();
        let checksum = blake3::hash(indented.as_bytes()).to_hex();
        let file = format!("{{\"checksum\":\"{checksum}\",\"state\":{indented}}}\n");
        assert_eq!(decode(file.as_bytes()), Ok(state));
        for at in 0..bytes.len() {
            let mut touched = bytes.clone();
            touched[at] ^= 1;
            assert!(decode(&touched).is_err(), "byte {at}");
            assert!(decode(&bytes[..at]).is_err(), "cut off at {at}");
        }
    });
}
