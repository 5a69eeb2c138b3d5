//! Positions inside an epoch, where sites do not agree any more: a machine put back to an older image, a
//! promotion in the middle of an epoch, a failed source that comes back with more than the other site has.

use disk::simulated::{Crash, Fault, OpKind, SimMachine};
use grain::attach::Rule;
use replication::Error;
use replication::state::Mode;

use crate::oracle::{assert_same, read_volumes};
use crate::rig::{GRAIN, run};
use crate::roles::{back, meet};
use crate::stream::{Life, SYNC};

/// The replica refuses by this rule, and nothing moves.
async fn refused_by(life: &Life, rule: Rule) {
    life.replica.apply().await.unwrap();
    let before = life.pair.replica_content().await;
    let ended = life.pair.connect(&life.source, &life.replica).ended().await;
    let refusal = ended.replica.unwrap().unwrap_err();
    assert!(matches!(&refusal, Error::Refused { rule: by, .. } if by == rule.name()), "{refusal}");
    assert_same(&life.pair.replica_content().await, &before, GRAIN as usize, "refused");
}

#[test]
fn a_replica_put_back_within_an_epoch_is_brought_up_by_itself() {
    run(|| async {
        let mut life = Life::new(41, SYNC, |pair| {
            pair.serve.stream.epoch = std::time::Duration::from_secs(3600);
        })
        .await;
        life.mirroring().await;
        life.some_writes(30).await;
        life.source.flush().await.unwrap();
        let image = life.pair.replica_machine.snapshot();
        life.some_writes(30).await;
        life.restart_replica(Crash::Kill, 1).await;
        drop(std::mem::replace(&mut life.replica, {
            life.pair.replica_machine.restore(&image);
            life.pair.replica_machine.crash_seeded(Crash::PowerCut, 2);
            life.pair.start_replica().await.unwrap()
        }));
        assert!(life.replica.position().unwrap().sequence >= 30);
        life.connect().await;
        life.mirroring().await;
        life.equal().await;
    });
}

#[test]
fn a_source_put_back_within_an_epoch_is_not_followed_without_a_word() {
    run(|| async {
        let mut life = Life::new(42, SYNC, |pair| {
            pair.serve.stream.epoch = std::time::Duration::from_secs(3600);
            // Where whole regions count as written after a power cut, nobody can tell the one from the other.
            pair.source_settings.crash_excess_exact = true;
        })
        .await;
        life.mirroring().await;
        life.some_writes(5).await;
        life.source.flush().await.unwrap();
        let image = life.pair.source_machine.snapshot();
        let (image_then, written) = (life.image.clone(), life.writes.len());
        // All over the volumes: grains that the source will not know of.
        life.some_writes(150).await;
        life.cut_link().await;
        life.pair.source_machine.restore(&image);
        life.restart_source(Crash::PowerCut, 3).await;
        (life.image, life.writes) = (image_then, life.writes[..written].to_vec());
        refused_by(&life, Rule::Ahead).await;
        // The operator says that the source is right.
        life.pair.follow.compare = true;
        life.pair.follow.once = true;
        life.pair.connect(&life.source, &life.replica).ended().await.in_step();
        life.pair.assert_equal().await;
    });
}

#[test]
fn a_source_put_back_before_the_last_cut_is_not_followed_without_a_word() {
    run(|| async {
        let mut life = Life::new(43, Mode::Async, |_| {}).await;
        life.some_writes(20).await;
        let image = life.pair.source_machine.snapshot();
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        life.some_writes(20).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        life.cut_link().await;
        life.pair.source_machine.restore(&image);
        life.restart_source(Crash::PowerCut, 3).await;
        refused_by(&life, Rule::Ahead).await;
    });
}

#[test]
fn a_promotion_inside_an_epoch_keeps_a_prefix_and_the_old_source_comes_back_by_the_union() {
    for seed in 44..50 {
        run(|| async {
            let mut life = Life::new(seed, Mode::Async, |_| {}).await;
            life.some_writes(60).await;
            // The link is slow from here on: what is written does not all arrive.
            life.delay.set(std::time::Duration::from_millis(300));
            life.some_writes(40).await;
            life.cut_link().await;
            let common = life.replica.head().unwrap();
            life.replica.promote(false).await.unwrap();
            life.pair.replica_machine.crash_seeded(Crash::Kill, seed);
            let promoted = life.pair.start_source_on(&life.pair.replica_machine).await.unwrap();
            let content = life.pair.replica_content().await;
            let holds = life.prefix_of(&content).expect("a state that the source was in");
            assert!(holds < life.writes.len(), "something was on its way");
            // The old source has acknowledged what the other never had, and does not give it up by itself.
            let rule = meet(&life.pair, &life.source, &promoted).await;
            assert_eq!(rule, Rule::Promoted);
            let winner = life.pair.replica_id.to_string();
            let journal = std::path::Path::new("/site/journal");
            life.source.give_way(&winner, common, journal).await.unwrap();
            life.pair.source_machine.crash_seeded(Crash::Kill, seed);
            let former = life.pair.start_replica_on(&life.pair.source_machine).await.unwrap();
            life.pair.follow.once = true;
            back(&life.pair, &promoted, &former).ended().await.in_step();
            let (there, here) =
                (life.pair.replica_content().await, life.pair.source_content().await);
            assert_same(&here, &there, GRAIN as usize, "the old source");
            let volumes = read_volumes(&life.pair.source_machine.context(), 2).await;
            assert_eq!(life.prefix_of(&volumes), Some(holds));
        });
    }
}

/// The machine goes down once, before its operation of this number from now.
fn dies_at(machine: &SimMachine, after: u64, kind: Crash) {
    let (crashing, at) = (machine.clone(), machine.operations() + after);
    let done = std::cell::Cell::new(false);
    machine.set_fault_hook(move |op| {
        if op.number >= at && !done.replace(true) {
            crashing.crash_seeded(kind, after);
        }
        Fault::None
    });
}

/// No map file is two things at once, or free while it counts.
fn assert_files_are_apart(life: &Life) {
    let files = life.replica.store().with(|s| {
        let closed = s.layers.closed.iter().map(|layer| layer.at);
        let replica = s.replica.as_ref().unwrap();
        let streamed = replica.streamed.iter().map(|streamed| streamed.layer);
        let free = s.layers.free.iter().copied();
        closed.chain(streamed).chain(free).map(|at| at.file).collect::<Vec<_>>()
    });
    let apart: std::collections::BTreeSet<u32> = files.iter().copied().collect();
    assert_eq!(apart.len(), files.len(), "{files:?}");
}

#[test]
fn a_replica_that_dies_anywhere_around_a_cut_of_the_stream_goes_on_from_there() {
    for after in (0..150).step_by(2) {
        run(|| async {
            let mut life = Life::new(50 + after, SYNC, |_| {}).await;
            // Some epochs, so that map files are used again.
            for _ in 0..3 {
                life.some_writes(4).await;
                tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            }
            life.some_writes(4).await;
            let kind = if after % 4 == 0 { Crash::Kill } else { Crash::PowerCut };
            dies_at(&life.pair.replica_machine, after, kind);
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            life.pair.replica_machine.clear_fault_hook();
            life.restart_replica(Crash::Kill, after).await;
            assert_files_are_apart(&life);
            life.connect().await;
            for _ in 0..3 {
                life.some_writes(4).await;
                tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
            }
            life.equal().await;
            assert_files_are_apart(&life);
        });
    }
}

/// A cut of the stream is published without a sync of the source's volumes. Where these lose what the replica
/// has, the next start knows (rule 6).
#[test]
fn a_source_that_loses_what_its_replica_has_is_mended_by_itself() {
    for seed in 0..16 {
        run(|| async {
            let mut life = Life::new(70 + seed, SYNC, |_| {}).await;
            life.mirroring().await;
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            for _ in 0..12 {
                life.write().await.unwrap();
            }
            // The volumes are synced after the cut, and that is when the power goes.
            let machine = life.pair.source_machine.clone();
            let gone = std::rc::Rc::new(std::cell::Cell::new(false));
            let done = gone.clone();
            life.pair.oracle.fault(move |op| {
                let of_volume = op.kind == OpKind::Sync && op.path.starts_with("/volumes");
                if of_volume && !done.replace(true) {
                    machine.crash_seeded(Crash::PowerCut, seed);
                }
                Fault::None
            });
            tokio::time::sleep(std::time::Duration::from_secs(4)).await;
            assert!(gone.get(), "the volumes are synced after a cut");
            life.pair.oracle.calm();
            life.restart_source(Crash::Kill, seed).await;
            life.connect().await;
            life.mirroring().await;
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            life.pair.assert_equal().await;
        });
    }
}
