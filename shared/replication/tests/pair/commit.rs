//! The commit of a catch-up, split in every way: between the syncs of its journal, between the journal's
//! record and the state's, by a session that is dropped in the middle of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};
use replication::replica::Replica;
use replication::source::Source;

use crate::rig::{GRAIN, Pair, fill, run};

const SIZES: [u64; 2] = [32 * GRAIN, 8 * GRAIN + 9];

/// A replica at a cut, and a source with some grains written since.
async fn behind(seed: u64) -> (Pair, Rc<Source>, Rc<Replica>) {
    let mut pair = Pair::new(seed, &SIZES).await;
    pair.follow.samples = 0;
    let source = pair.start_source().await.unwrap();
    fill(&source, 0, 2, 0x11).await;
    pair.seed(&source).await;
    for grain in 0..6 {
        fill(&source, 0, grain * 3, 0x20 + grain as u8).await;
    }
    let replica = pair.start_replica().await.unwrap();
    (pair, source, replica)
}

/// What a crash leaves now is a consistent replica, at the cut that it names.
async fn stands(pair: &Pair, kind: Crash, seed: u64, words: &str) {
    let left = pair.replica_machine.snapshot();
    assert!(pair.assert_recovers(&left, kind, seed).await.is_some(), "{words}");
}

/// The power is cut as the n-th sync of the journal begins. Of what was not synced the disk may keep any
/// part, the commit's record without what it stands for among them.
#[test]
fn a_power_cut_at_any_sync_of_the_journal() {
    let mut reached = 0;
    for sync in 0..4 {
        for seed in 0..100 {
            let seen = Rc::new(Cell::new(false));
            let cut = seen.clone();
            run(|| async move {
                let (pair, source, replica) = behind(70).await;
                let (machine, left, done) =
                    (pair.replica_machine.clone(), Cell::new(sync), cut.clone());
                pair.replica_machine.set_fault_hook(move |op| {
                    let journal = op.path.to_string_lossy().contains("/journal/");
                    if op.kind == OpKind::Sync && journal && !done.get() {
                        done.set(left.get() == 0);
                        left.set(left.get() - i32::from(left.get() > 0));
                        if done.get() {
                            machine.crash_seeded(Crash::PowerCut, seed);
                        }
                    }
                    Fault::None
                });
                let session = pair.connect(&source, &replica);
                // A machine without power says nothing to anybody.
                while !cut.get() && !session.following.is_finished() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                session.abort_replica();
                session.ended().await;
                pair.replica_machine.clear_fault_hook();
                let words = format!("sync {sync} of the journal, seed {seed}");
                stands(&pair, Crash::Kill, seed, &words).await;
            });
            reached = reached.max(if seen.get() { sync } else { 0 });
        }
    }
    assert!(reached >= 1, "a catch-up ends with one sync");
}

/// The state cannot be saved from some place in the session on; what is committed is applied all the same,
/// and the journal lets it go only when the state knows it.
#[test]
fn a_state_that_cannot_be_saved_at_a_commit() {
    let mut failed = 0;
    for spared in 0..24 {
        let count = Rc::new(Cell::new(0));
        let faults = count.clone();
        run(|| async move {
            let (pair, source, replica) = behind(71).await;
            let seen = Cell::new(0);
            pair.replica_machine.set_fault_hook(move |op| {
                let state = op.path.to_string_lossy().contains("state.json");
                let writes = matches!(op.kind, OpKind::Write | OpKind::Rename | OpKind::Open);
                if !state || !writes {
                    return Fault::None;
                }
                seen.set(seen.get() + 1);
                if seen.get() <= spared {
                    return Fault::None;
                }
                faults.set(faults.get() + 1);
                Fault::Io
            });
            pair.attach(&source, &replica).await;
            // As the next session does before anything else, on a disk that works again or does not.
            if spared % 2 == 0 {
                pair.replica_machine.clear_fault_hook();
            }
            drop(replica.apply().await);
            stands(&pair, Crash::Kill, 1, &format!("{spared} were spared")).await;
        });
        failed += count.get();
    }
    assert!(failed >= 12, "the state is hardly ever saved: {failed}");
}

/// The task that holds the session is dropped at every operation of the replica's disk in turn, as a load
/// that is asked for does it; what was committed is applied then.
#[test]
fn a_session_that_is_dropped_while_it_commits() {
    let total = Rc::new(Cell::new(0));
    for number in 0..400 {
        let seen = total.clone();
        run(|| async move {
            let (pair, source, replica) = behind(72).await;
            let most = Duration::from_millis(2);
            pair.replica_machine.set_latency(Duration::from_millis(1)..most);
            let session = pair.connect(&source, &replica);
            let (count, holder) = (Rc::new(Cell::new(0)), session.following.abort_handle());
            let counted = count.clone();
            pair.replica_machine.set_fault_hook(move |_| {
                if count.replace(count.get() + 1) == number {
                    holder.abort();
                }
                Fault::None
            });
            session.ended().await;
            // What runs in tasks of its own comes to its end, whoever has left.
            tokio::time::sleep(Duration::from_secs(1)).await;
            replica.apply().await.unwrap();
            pair.replica_machine.clear_fault_hook();
            stands(&pair, Crash::Kill, 1, &format!("dropped at operation {number}")).await;
            seen.set(seen.get().max(counted.get()));
        });
        if number > total.get() {
            break;
        }
    }
    assert!(total.get() > 40, "{} operations", total.get());
}
