//! Going back for good: a promotion at an earlier point, whatever crashes, and what the others get of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};
use grain::attach::Rule;
use replication::replica::{At, PastPoint, Retain};
use replication::state::{Mode, Role};

use crate::oracle::assert_same;
use crate::rig::{GRAIN, fill, run};
use crate::roles::{back, give_way, meet, starts};
use crate::stream::Life;

const LONG: Retain = Retain::Up { bytes: 64 << 20, age: Duration::from_secs(86_400) };

/// A pair that streamed for a while; the source is gone. Gives the points.
async fn abandoned(seed: u64) -> (Life, Vec<PastPoint>) {
    let retained = |pair: &mut crate::rig::Pair| pair.replica_settings.history.retain = LONG;
    let mut life = Life::new(seed, Mode::Async, retained).await;
    for _ in 0..8 {
        life.some_writes(25).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    let session = life.session.take().unwrap();
    session.abort_source();
    session.cable.cut();
    drop(session.ended().await);
    let points = life.replica.points();
    assert!(points.len() > 5);
    (life, points)
}

#[test]
fn a_replica_is_promoted_at_a_point_and_the_others_follow_there() {
    for nth in [0, 3, 6] {
        run(|| async {
            let (life, points) = abandoned(80 + nth as u64).await;
            let (mut pair, replica) = (life.pair, life.replica);
            pair.follow.once = true;
            let point = points[nth.min(points.len() - 1)].clone();
            let common = replica.head().unwrap();
            let expected = pair.oracle.at(point.cut, 2).await;
            let (told, changed) = replica.way_back(&At::Cut(point.cut)).await.unwrap();
            assert_eq!(told, point);
            replica.promote_at(Some(&At::Cut(point.cut)), false).await.unwrap();
            drop(replica);
            assert_same(&pair.replica_content().await, &expected, GRAIN as usize, "gone back");
            let promoted = pair.start_source_on(&pair.replica_machine).await.unwrap();
            fill(&promoted, 0, 1, 0x77).await;

            // The old source comes back with everything that it had.
            pair.source_machine.crash_seeded(Crash::Kill, 1);
            drop(life.source);
            let old = pair.start_source().await.unwrap();
            let rule = meet(&pair, &old, &promoted).await;
            assert!(matches!(rule, Rule::Promoted | Rule::SplitBrain), "{rule}");
            let rejoined = give_way(&pair, old, common).await;
            let ended = back(&pair, &promoted, &rejoined).ended().await;
            ended.in_step();
            pair.assert_equal().await;
            let content = pair.source_content().await;
            let mut now = expected;
            now[0][GRAIN as usize..2 * GRAIN as usize].fill(0x77);
            assert_same(&content, &now, GRAIN as usize, "rejoined");
            assert!(changed.len() < 70);
        });
    }
}

/// Whenever it goes down: either it is a source at the point, or still a replica, which goes back once more or
/// gets what it lacks from the source.
#[test]
fn going_back_is_done_or_not_whatever_crashes() {
    let (mut sources, mut replicas) = (0, 0);
    for nth in 1..160 {
        run(|| async {
            let (life, points) = abandoned(90).await;
            let (pair, replica, point) = (life.pair, life.replica, points[2].clone());
            let (machine, left) = (pair.replica_machine.clone(), Rc::new(Cell::new(nth)));
            let count = left.clone();
            let kind = if nth % 3 == 0 { Crash::Kill } else { Crash::PowerCut };
            pair.replica_machine.set_fault_hook(move |op| {
                if matches!(op.kind, OpKind::Write | OpKind::Sync | OpKind::Rename)
                    && count.get() > 0
                {
                    count.set(count.get() - 1);
                    if count.get() == 0 {
                        machine.crash_seeded(kind, nth);
                    }
                }
                Fault::None
            });
            let promoted = replica.promote_at(Some(&At::Cut(point.cut)), false).await;
            pair.replica_machine.clear_fault_hook();
            drop(replica);
            if left.get() > 0 {
                assert!(promoted.is_ok());
                return;
            }
            let expected = pair.oracle.at(point.cut, 2).await;
            if starts(&pair, &pair.replica_machine).await == Role::Source {
                sources += 1;
                let content = pair.replica_content().await;
                return assert_same(&content, &expected, GRAIN as usize, "gone back");
            }
            replicas += 1;
            let replica = pair.start_replica().await.unwrap();
            if nth % 2 == 0 {
                replica.promote_at(Some(&At::Cut(point.cut)), false).await.unwrap();
                drop(replica);
                let content = pair.replica_content().await;
                return assert_same(&content, &expected, GRAIN as usize, "gone back again");
            }
            // The source was only away.
            drop(life.source);
            pair.source_machine.crash_seeded(Crash::Kill, 1);
            let source = pair.start_source().await.unwrap();
            let session = pair.connect(&source, &replica);
            tokio::time::sleep(Duration::from_secs(20)).await;
            session.cable.cut();
            drop(session.ended().await);
            pair.assert_equal().await;
            for left in replica.points() {
                let view = replica.view(&At::Cut(left.cut)).await.unwrap();
                crate::past::assert_shows(&pair, &view, left.cut).await;
            }
        });
    }
    assert!(sources > 0 && replicas > 10, "{sources} {replicas}");
}
