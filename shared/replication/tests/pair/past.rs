//! The past of a replica: every point shows the source at its cut, byte for byte, while the mirroring goes on,
//! after any crash, and is withdrawn where it would not.

use std::time::Duration;

use disk::simulated::{Crash, Fault, OpKind};
use grain::{CutId, Span};
use replication::Error;
use replication::replica::{At, PastPoint, Replica, Retain, View};
use replication::state::Mode;

use crate::oracle::assert_same;
use crate::rig::{GRAIN, Pair, fill, run};
use crate::stream::{Life, SYNC};
use crate::stream_damage;

const CYCLE: Mode = Mode::Cycle { every_ms: Some(1000) };
pub const LONG: Retain = Retain::Up { bytes: 64 << 20, age: Duration::from_secs(86_400) };

pub async fn keeping(seed: u64, mode: Mode, retain: Retain) -> Life {
    Life::new(seed, mode, |pair| pair.replica_settings.history.retain = retain).await
}

/// All that a view shows, in pieces of many sizes.
async fn shown(view: &View, step: u64) -> replication::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (volume, v) in view.replica().volumes().iter() {
        let (mut at, mut bytes) = (0, Vec::new());
        while at < v.bytes {
            let span = Span { volume, start: at, bytes: step.min(v.bytes - at) };
            bytes.extend_from_slice(&view.read(span).await?);
            at = span.end();
        }
        all.push(bytes);
    }
    Ok(all)
}

/// Compares all that a view shows with what the source held at the cut.
pub async fn assert_shows(pair: &Pair, view: &View, cut: CutId) {
    let seen = shown(view, 3 * GRAIN + 77).await.unwrap();
    let expected = pair.oracle.at(cut, seen.len()).await;
    assert_same(&seen, &expected, GRAIN as usize, "a view");
}

/// Looks at every point.
pub async fn assert_points(life: &Life) -> Vec<PastPoint> {
    let points = life.replica.points();
    for point in &points {
        let view = life.replica.view(&At::Cut(point.cut)).await.unwrap();
        assert_shows(&life.pair, &view, point.cut).await;
    }
    points
}

#[test]
fn every_point_shows_the_source_at_its_cut_while_writes_go_on() {
    for (seed, mode) in [(1, Mode::Async), (2, SYNC), (3, Mode::Async), (4, SYNC)] {
        run(|| async {
            let mut life = keeping(seed, mode, LONG).await;
            let mut views: Vec<(View, CutId)> = Vec::new();
            for round in 0..12 {
                life.some_writes(40).await;
                tokio::time::sleep(Duration::from_millis(700)).await;
                let points = life.replica.points();
                let nth = (round * 7) % points.len().max(1);
                if let Some(point) = points.get(nth) {
                    let view = life.replica.view(&At::Cut(point.cut)).await.unwrap();
                    views.push((view, point.cut));
                }
                for (view, cut) in &views {
                    assert_shows(&life.pair, view, *cut).await;
                }
            }
            let points = assert_points(&life).await;
            assert!(points.len() > 8, "{}", points.len());
            assert!(points.windows(2).all(|pair| pair[0].unix_ms <= pair[1].unix_ms));
            life.equal().await;
        });
    }
}

#[test]
fn points_outlive_every_crash() {
    for seed in 0..12 {
        run(|| async {
            let mode = if seed % 3 == 0 { SYNC } else { Mode::Async };
            let mut life = keeping(20 + seed, mode, LONG).await;
            let mut most = 0;
            for round in 0..5 {
                life.some_writes(60).await;
                let wait = Duration::from_millis(200 + (seed * 37 + round * 331) % 1500);
                tokio::time::sleep(wait).await;
                let before = life.replica.points();
                let kind = if round % 2 == 0 { Crash::PowerCut } else { Crash::Kill };
                life.restart_replica(kind, seed * 8 + round).await;
                let points = assert_points(&life).await;
                // The newest may not have been noted for good; none comes out of nowhere.
                assert!(points.len() + 3 >= before.len(), "{} of {}", points.len(), before.len());
                most = most.max(points.len());
                life.connect().await;
                assert_points(&life).await;
            }
            assert!(most > 4, "{most}");
            life.equal().await;
        });
    }
}

/// The machine goes down at every so many operations of its disk.
#[test]
fn points_outlive_a_crash_at_any_operation() {
    let mut seen = 0;
    for nth in (0..600).step_by(13) {
        run(|| async {
            let mut life = keeping(40, Mode::Async, LONG).await;
            let (machine, left) = (life.pair.replica_machine.clone(), std::cell::Cell::new(nth));
            life.pair.replica_machine.set_fault_hook(move |op| {
                let changes = matches!(op.kind, OpKind::Write | OpKind::Sync | OpKind::Rename);
                if changes && left.get() > 0 {
                    left.set(left.get() - 1);
                    if left.get() == 0 {
                        let kind = if nth % 2 == 0 { Crash::PowerCut } else { Crash::Kill };
                        machine.crash_seeded(kind, nth);
                    }
                }
                Fault::None
            });
            life.some_writes(120).await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
            life.pair.replica_machine.clear_fault_hook();
            life.restart_replica(Crash::Kill, nth).await;
            seen += assert_points(&life).await.len();
            life.connect().await;
            life.some_writes(10).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_points(&life).await;
            life.equal().await;
        });
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn catch_ups_are_points_too() {
    run(|| async {
        let mut life = keeping(60, Mode::Async, LONG).await;
        life.pair.keep(&life.source, CYCLE).await;
        for _ in 0..8 {
            life.some_writes(30).await;
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        assert!(assert_points(&life).await.len() >= 6);
        life.equal().await;
    });
}

/// Without a history there is nothing to go back to, but what is here now can be looked at, and stays as it
/// was while the mirroring goes on; what was kept for that goes with the last look.
#[test]
fn the_latest_can_be_looked_at_without_a_history() {
    run(|| async {
        let mut life = Life::new(61, Mode::Async, |_| {}).await;
        life.some_writes(50).await;
        assert!(life.replica.points().is_empty());
        let none = life.replica.view(&At::Time(life.replica.context().unix_ms())).await;
        assert!(matches!(&none, Err(Error::State(text)) if text.contains("--retain")));
        let first = life.replica.view(&At::Latest).await.unwrap();
        let before = shown(&first, GRAIN).await.unwrap();
        life.some_writes(50).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let second = life.replica.view(&At::Latest).await.unwrap();
        let later = shown(&second, 5 * GRAIN).await.unwrap();
        assert!(before != later, "it moved on");
        life.some_writes(200).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(shown(&first, 9 * GRAIN + 1).await.unwrap() == before, "the first stands still");
        assert!(shown(&second, GRAIN).await.unwrap() == later, "the second stands still");
        // What is shown is what the source held after some number of writes.
        assert!(life.prefix_of(&before).is_some() && life.prefix_of(&later).is_some());
        assert!(life.replica.history_status().kept);
        first.close().await;
        second.close().await;
        assert!(!life.replica.history_status().kept);
        life.equal().await;
    });
}

#[test]
fn a_time_is_the_point_before_it() {
    run(|| async {
        let mut life = keeping(62, Mode::Async, LONG).await;
        for _ in 0..6 {
            life.some_writes(30).await;
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
        let points = life.replica.points();
        for pair in points.windows(2) {
            let between = pair[0].unix_ms + (pair[1].unix_ms - pair[0].unix_ms) / 2;
            let view = life.replica.view(&At::Time(between)).await.unwrap();
            assert_shows(&life.pair, &view, pair[0].cut).await;
        }
        let early = life.replica.view(&At::Time(points[0].unix_ms - 1)).await;
        assert!(matches!(&early, Err(Error::State(text)) if text.contains("oldest")));
    });
}

#[test]
fn a_bookmark_is_an_instant_that_people_named() {
    for mode in [Mode::Async, SYNC, CYCLE] {
        run(|| async {
            let mut life = keeping(63, mode_of(mode), LONG).await;
            life.pair.keep(&life.source, mode).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            for name in ["before", "between", "before"] {
                life.some_writes(20).await;
                let source = life.source.clone();
                let made = source.bookmark(name.into(), Duration::from_secs(60)).await.unwrap();
                let cut = made.peers[0].1.expect("made in time");
                life.some_writes(20).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                let view = life.replica.view(&At::Label(name.into())).await.unwrap();
                assert_shows(&life.pair, &view, cut).await;
            }
            let labels: Vec<_> =
                life.replica.points().into_iter().filter_map(|point| point.label).collect();
            assert_eq!(labels, ["before", "between", "before"]);
            life.restart_replica(Crash::PowerCut, 5).await;
            let view = life.replica.view(&At::Label("between".into())).await.unwrap();
            drop(shown(&view, GRAIN).await.unwrap());
            let unknown = life.replica.view(&At::Label("after".into())).await;
            assert!(matches!(&unknown, Err(Error::State(text)) if text.contains("`after`")));
            for wrong in ["", " ", "a\nb", &"x".repeat(256)] {
                let wait = Duration::from_secs(1);
                assert!(life.source.bookmark(wrong.to_owned(), wait).await.is_err());
            }
        });
    }
}

/// A life begins with a stream.
fn mode_of(mode: Mode) -> Mode {
    if mode.streams() { mode } else { Mode::Async }
}

#[test]
fn old_points_go_for_room_and_views_hold_theirs_for_a_while() {
    run(|| async {
        let retain = Retain::Up { bytes: 9 << 20, age: Duration::from_secs(3) };
        let mut life = keeping(64, Mode::Async, retain).await;
        let replica = life.replica.clone();
        let rounds = async |life: &mut Life, count: u64| {
            for _ in 0..count {
                for grain in 0..40 {
                    fill(&life.source, 0, grain, (life.random.next_u64() >> 8) as u8).await;
                }
                tokio::time::sleep(Duration::from_millis(1100)).await;
            }
        };
        rounds(&mut life, 8).await;
        let oldest = replica.points()[0].cut;
        let held = replica.view(&At::Cut(oldest)).await.unwrap();
        let before = shown(&held, GRAIN).await.unwrap();
        let mut most = 0;
        for _ in 0..120 {
            rounds(&mut life, 1).await;
            most = most.max(replica.history_status().bytes);
            if held.ended().is_some() {
                break;
            }
            assert!(shown(&held, GRAIN).await.unwrap() == before);
        }
        assert!(held.ended().is_some_and(|why| why.contains("room")), "{most} bytes");
        // Its age alone did not end it, nor what the history may take otherwise.
        assert!(most > (9 + 5) << 20, "{most} bytes");
        assert!(matches!(shown(&held, GRAIN).await, Err(Error::State(_))));
        assert!(most <= (2 * 9 + 5) << 20, "{most} bytes");
        rounds(&mut life, 20).await;
        let points = replica.points();
        assert!(points.iter().all(|point| point.cut != oldest), "it was withdrawn");
        assert!(replica.history_status().bytes <= (9 + 5) << 20);
        assert!(points.len() > 2);
    });
}

/// What is overwritten cannot be kept: the mirroring goes on, the history ends and says why, and begins anew
/// after a while.
#[test]
fn the_mirroring_goes_before_the_history() {
    for kind in [OpKind::Write, OpKind::Sync] {
        run(|| async {
            let mut life = keeping(65, Mode::Async, LONG).await;
            life.some_writes(50).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let view = life.replica.view(&At::Latest).await.unwrap();
            life.pair.replica_machine.set_fault_hook(move |op| {
                let history = op.path.starts_with("/site/history");
                if history && op.kind == kind { Fault::Io } else { Fault::None }
            });
            life.some_writes(50).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            life.pair.replica_machine.clear_fault_hook();
            let status = life.replica.history_status();
            assert!(!status.kept && status.ended.is_some(), "{status:?}");
            assert!(view.ended().is_some() && life.replica.points().is_empty());
            life.equal().await;
            for _ in 0..70 {
                life.some_writes(5).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert!(assert_points(&life).await.len() > 2, "{:?}", life.replica.history_status());
        });
    }
}

/// A catch-up straight into the volumes leaves no history that lacks what it overwrote.
#[test]
fn what_is_written_past_the_journal_ends_the_history() {
    run(|| async {
        let mut life = keeping(66, Mode::Async, LONG).await;
        life.some_writes(50).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let points = life.replica.points();
        assert!(points.len() > 1);
        let id = |replica: &Replica| replica.store().with(|s| s.replica.as_ref()?.history.clone());
        let before = id(&life.replica);
        life.restart_replica(Crash::Kill, 1).await;
        assert_eq!(id(&life.replica), before);
        // Too small for what is written meanwhile.
        life.pair.replica_settings.journal.segment_bytes = 64 << 10;
        life.pair.replica_settings.journal.max_bytes = 4 * (64 << 10);
        life.pair.replica_settings.allow_direct = true;
        life.restart_replica(Crash::Kill, 2).await;
        for grain in 0..40 {
            fill(&life.source, 0, grain, 0x5a).await;
        }
        let session = life.pair.connect(&life.source, &life.replica);
        tokio::time::sleep(Duration::from_secs(5)).await;
        session.cable.cut();
        drop(session.ended().await);
        assert!(id(&life.replica) != before);
        assert!(life.replica.points().iter().all(|point| !points.contains(point)));
        assert_points(&life).await;
    });
}

/// An agent that keeps no history must not leave one behind that lacks what it overwrote.
#[test]
fn a_history_that_is_not_asked_for_any_more_ends() {
    run(|| async {
        let mut life = keeping(67, Mode::Async, LONG).await;
        life.some_writes(50).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        // A process that only looks keeps it.
        life.pair.replica_settings.history.retain = Retain::AsFound;
        life.restart_replica(Crash::Kill, 1).await;
        life.connect().await;
        life.some_writes(30).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(assert_points(&life).await.len() > 2);
        life.pair.replica_settings.history.retain = Retain::Nothing;
        life.restart_replica(Crash::Kill, 2).await;
        assert!(life.replica.points().is_empty());
        assert!(life.replica.store().with(|s| s.replica.as_ref().unwrap().history.is_none()));
        life.connect().await;
        life.some_writes(30).await;
        life.pair.replica_settings.history.retain = LONG;
        life.restart_replica(Crash::Kill, 3).await;
        life.connect().await;
        life.some_writes(30).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!assert_points(&life).await.is_empty());
    });
}

/// The disk of the history is not there, or another one: what it has is not this replica's past.
#[test]
fn a_history_that_vanished_is_not_taken_for_a_short_one() {
    run(|| async {
        let mut life = keeping(68, Mode::Async, LONG).await;
        life.some_writes(50).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let points = life.replica.points().len();
        assert!(points > 1);
        life.replica.stop().await.unwrap();
        let here = life.pair.replica_settings.history.dir.clone();
        life.pair.replica_settings.history.dir = "/elsewhere".into();
        life.restart_replica(Crash::Kill, 1).await;
        assert!(life.replica.points().len() <= 1, "{:?}", life.replica.points());
        life.connect().await;
        life.some_writes(30).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_points(&life).await;
        // Who only looks does not look there, either.
        life.pair.replica_settings.history.retain = Retain::AsFound;
        life.pair.replica_settings.history.dir = "/nowhere".into();
        life.restart_replica(Crash::Kill, 5).await;
        let kept = assert_points(&life).await.len();
        assert!(kept > 1, "{kept}");
        life.pair.replica_settings.history.retain = LONG;
        life.pair.replica_settings.history.dir = here;
        life.restart_replica(Crash::Kill, 2).await;
        assert!(assert_points(&life).await.len() <= 1);
    });
}

/// A record is damaged in the journal before it was applied: the points from it on lack its grain, and are
/// points no more; once it was brought again there are new ones.
#[test]
fn a_lost_record_withdraws_the_points_that_lack_it() {
    let mut brought = 0;
    for seed in 0..8 {
        run(|| async {
            let mut life = Life::new(110 + seed, SYNC, |pair| {
                pair.serve.stream.epoch = Duration::from_millis(300);
                pair.replica_settings.history.retain = LONG;
            })
            .await;
            life.mirroring().await;
            let progress = life.session.as_ref().unwrap().progress.clone();
            life.some_writes(30).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (sent, before) = (progress.sent_grains.get(), life.replica.points());
            assert!(before.len() > 1);
            tokio::time::sleep(Duration::from_millis(100 * seed)).await;
            stream_damage::fill(&mut life, stream_damage::PLACE, stream_damage::MARK).await;
            tokio::time::sleep(Duration::from_millis(250)).await;
            stream_damage::damage(&life);
            for _ in 0..6 {
                life.some_writes(5).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                for point in life.replica.points() {
                    let view = life.replica.view(&At::Cut(point.cut)).await.unwrap();
                    // Who looks first finds the damage, and is told.
                    if shown(&view, GRAIN).await.is_ok() {
                        assert_shows(&life.pair, &view, point.cut).await;
                    }
                }
            }
            tokio::time::sleep(Duration::from_secs(3)).await;
            let points = assert_points(&life).await;
            assert!(points.starts_with(&before), "those before it stay");
            assert!(points.len() > before.len(), "there are new ones");
            brought += u64::from(progress.sent_grains.get() > sent);
        });
    }
    assert!(brought > 1, "no record was damaged before it was applied");
}

/// A history that begins in the middle of an epoch: the cut before it is no point, for some of what came after it
/// was brought into the base unseen.
#[test]
fn what_was_before_a_history_is_no_point_of_it() {
    run(|| async {
        let mut life = Life::new(71, Mode::Async, |pair| {
            pair.serve.stream.epoch = Duration::from_secs(600);
        })
        .await;
        stream_damage::fill(&mut life, 7, 0x77).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        life.pair.replica_settings.history.retain = LONG;
        life.restart_replica(Crash::Kill, 3).await;
        assert!(life.replica.history_status().kept);
        assert_eq!(assert_points(&life).await, []);
        life.connect().await;
        life.some_writes(20).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!assert_points(&life).await.is_empty());
    });
}
