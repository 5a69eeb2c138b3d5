//! The rules one by one.

use std::cell::Cell;
use std::rc::Rc;

use disk::simulated::{Crash, Fault, OpKind};
use grain::{Content, CutId, Span, SpanData, VolumeId};
use journal::history::{Config, Error, History, MAX_LABEL_BYTES, Moment, Point};

use crate::world::{World, bytes_in, run, segments};

fn span(start: u64, bytes: u64) -> Span {
    Span { volume: VolumeId(0), start, bytes }
}

fn data(start: u64, bytes: u64, byte: u8) -> SpanData {
    let content = Content::Data(vec![byte; bytes as usize].into());
    SpanData { span: span(start, bytes), content }
}

fn at(commit: u64, split: u32) -> Moment {
    Moment { commit, split }
}

fn point(commit: u64, cut: u8, label: Option<&str>) -> Point {
    let label = label.map(str::to_owned);
    Point { commit, cut: CutId::from_bytes([cut; 16]), unix_ms: 5, label }
}

/// The first byte of each piece.
async fn found(history: &Rc<History>, moment: Moment, span: Span) -> Vec<(u64, u64, u8)> {
    let mut found = Vec::new();
    for saved in history.lookup(moment, span).await.unwrap() {
        let bytes = bytes_in(&saved.read().await.unwrap());
        assert_eq!(saved.is_zero(), bytes[0] == 0);
        found.push((saved.span().start, saved.span().bytes, bytes[0]));
    }
    found
}

#[test]
fn the_first_capture_of_an_epoch_wins_also_after_a_crash() {
    run(async {
        let mut world = World::new(1).await;
        let history = world.history();
        history.capture(at(4, 0), vec![data(100, 100, 1)]).await.unwrap();
        history.capture(at(4, 1), vec![data(150, 100, 2)]).await.unwrap();
        history.capture(at(4, 2), vec![data(0, 400, 3)]).await.unwrap();
        let all = span(0, 400);
        assert_eq!(
            found(&history, at(4, 0), all).await,
            [(0, 100, 3), (100, 100, 1), (200, 50, 2), (250, 150, 3)]
        );
        assert_eq!(found(&history, at(4, 2), all).await, [(0, 400, 3)]);
        assert_eq!(history.uncaptured(at(4, 1), all), [span(0, 150), span(250, 150)]);
        assert_eq!(history.uncaptured(at(4, 3), all), [all]);
        drop(history);
        for round in 0..3u8 {
            let kind = [Crash::Kill, Crash::PowerCut][usize::from(round) % 2];
            world.machine.crash_seeded(kind, 1);
            world.open().await.unwrap();
            let history = world.history();
            // A new life: its looks are new, and what is captured again has no say.
            assert_eq!(history.uncaptured(at(4, 0), span(0, 500)), [span(400, 100)]);
            history.capture(at(4, 0), vec![data(0, 400, 8)]).await.unwrap();
            history.capture(at(4, 1), vec![data(0, 300, 9)]).await.unwrap();
            assert_eq!(found(&history, at(4, 1), all).await, [(0, 300, 9)]);
            let first = found(&history, at(4, 0), all).await;
            assert_eq!(first, [(0, 100, 3), (100, 100, 1), (200, 50, 2), (250, 150, 3)]);
        }
    });
}

#[test]
fn what_is_not_durable_does_not_show() {
    run(async {
        let world = World::new(1).await;
        let history = world.history();
        let (seen, seer) = (Rc::new(Cell::new(0)), Rc::downgrade(&history));
        let count = seen.clone();
        world.machine.set_fault_hook(move |op| {
            if op.kind == OpKind::Sync
                && let Some(history) = seer.upgrade()
            {
                count.set(count.get() + history.uncaptured(at(1, 0), span(0, 10)).len());
            }
            Fault::None
        });
        history.capture(at(1, 0), vec![data(0, 10, 1)]).await.unwrap();
        assert_eq!((seen.get(), history.uncaptured(at(1, 0), span(0, 10)).len()), (1, 0));
    });
}

#[test]
fn a_capture_that_nobody_waits_for_runs_to_its_end() {
    run(async {
        let world = World::new(1).await;
        let history = world.history();
        let capture = history.capture(at(1, 0), vec![data(0, 10, 1)]);
        assert!(tokio::time::timeout(std::time::Duration::ZERO, capture).await.is_err());
        history.sync().await.unwrap();
        assert_eq!(found(&history, at(1, 0), span(0, 20)).await, [(0, 10, 1)]);
    });
}

#[test]
fn points_are_noted_labelled_and_withdrawn() {
    run(async {
        let mut world = World::new(1).await;
        let history = world.history();
        history.note_point(point(1, 1, None)).await.unwrap();
        history.note_point(point(3, 3, Some("three"))).await.unwrap();
        history.note_point(point(3, 3, None)).await.unwrap();
        history.note_point(point(1, 1, Some("one"))).await.unwrap();
        history.note_point(point(3, 4, None)).await.unwrap();
        let late = history.note_point(point(2, 2, None)).await;
        assert!(matches!(late, Err(Error::BadPoint { commit: 2, .. })));
        let long = "x".repeat(MAX_LABEL_BYTES + 1);
        assert!(history.note_point(point(3, 5, Some(&long))).await.is_err());
        history.note_point(point(3, 5, Some(&long[1..]))).await.unwrap();
        history.sync().await.unwrap();
        let expected = [
            point(1, 1, Some("one")),
            point(3, 3, Some("three")),
            point(3, 4, None),
            point(3, 5, Some(&long[1..])),
        ];
        assert_eq!(history.points(), expected);
        world.machine.crash_seeded(Crash::PowerCut, 1);
        world.open().await.unwrap();
        let history = world.history();
        assert_eq!(history.points(), expected);
        history.withdraw_from(3).await.unwrap();
        history.note_point(point(2, 2, None)).await.unwrap();
        history.withdraw_below(2).await.unwrap();
        history.note_point(point(1, 9, None)).await.unwrap();
        assert_eq!(history.points(), [point(2, 2, None)]);
        let gone = history.lookup(at(1, 0), span(0, 1)).await;
        assert!(matches!(gone, Err(Error::Withdrawn { oldest: 2, .. })));
        assert!(history.changed_since(at(1, 0)).await.is_err());
        assert_eq!(history.uncaptured(at(1, 0), span(0, 1)), []);
    });
}

/// A point outlives the segment in which it was noted; what was read of a segment outlives it, too.
#[test]
fn segments_go_and_points_stay() {
    run(async {
        let mut world = World::new(1).await;
        let history = world.history();
        history.note_point(point(7, 7, Some("seven"))).await.unwrap();
        history.capture(at(1, 0), vec![data(0, 10, 1)]).await.unwrap();
        assert_eq!(history.next_release(), None);
        history.seal().await.unwrap();
        history.seal().await.unwrap();
        assert_eq!(history.stats().segments, 2);
        history.capture(at(7, 0), vec![data(0, 10, 7)]).await.unwrap();
        let saved = history.lookup(at(1, 0), span(0, 10)).await.unwrap();
        assert_eq!(history.next_release(), Some(2));
        history.withdraw_below(2).await.unwrap();
        assert_eq!((history.next_release(), history.stats().segments), (None, 1));
        assert_eq!(segments(&world).len(), 1);
        assert_eq!(bytes_in(&saved[0].read().await.unwrap()), [1; 10]);
        drop(saved);
        world.machine.crash_seeded(Crash::PowerCut, 3);
        world.open().await.unwrap();
        assert_eq!(world.history().points(), [point(7, 7, Some("seven"))]);
        assert_eq!(segments(&world).len(), 1);
    });
}

#[test]
fn what_is_not_ours_is_removed_or_refused() {
    run(async {
        let mut world = World::new(1).await;
        world.apply(false).await.unwrap();
        world.history().seal().await.unwrap();
        world.sync().await.unwrap();
        world.id = [8; 16];
        let opened = world.open().await.unwrap();
        assert_eq!((opened.began, opened.foreign.len(), opened.damage.len()), (true, 2, 0));
        assert_eq!((world.history().points().len(), world.history().oldest()), (0, 0));
        assert_eq!(segments(&world).len(), 1);
        world.geometry.volumes[0].bytes += 512;
        assert!(matches!(world.open().await, Err(Error::OtherGeometry { .. })));
        world.config = Config { segment_bytes: 4096, ..Config::new("/history") };
        assert!(matches!(world.open().await, Err(Error::Config(_))));
    });
}

#[test]
fn bytes_outside_the_volumes_are_refused() {
    run(async {
        let world = World::new(1).await;
        let history = world.history();
        let size = world.geometry.volumes[0].bytes;
        let outside = history.capture(at(1, 0), vec![data(size - 1, 2, 1)]).await;
        assert!(matches!(outside, Err(Error::BadSpan { .. })));
        let content = Content::Data(vec![1; 3].into());
        let other = history.capture(at(1, 0), vec![SpanData { span: span(0, 2), content }]).await;
        assert!(matches!(other, Err(Error::BadSpan { .. })));
        assert!(history.capture(at(u64::MAX, 0), vec![data(0, 1, 1)]).await.is_err());
        assert_eq!(history.stats().records, 0);
    });
}

/// Zeros take no payload, in whatever form they come.
#[test]
fn zeros_are_cheap() {
    run(async {
        let world = World::new(1).await;
        let history = world.history();
        let zero = SpanData { span: span(0, 4096), content: Content::Zero };
        history.capture(at(1, 0), vec![zero, data(4096, 30_000, 0)]).await.unwrap();
        let found = history.lookup(at(1, 0), span(0, 40_000)).await.unwrap();
        assert!(found.len() == 2 && found.iter().all(|saved| saved.is_zero()));
        history.capture(at(1, 0), vec![data(40_000, 512, 5)]).await.unwrap();
        let bytes = segments(&world)[0].1.clone();
        let last = bytes.iter().rposition(|byte| *byte == 5).unwrap();
        assert!(last < 16_384 + 3 * 128 + 512, "{last}");
    });
}
