//! Links in memory on a paused clock: delays, corruption, cuts, crashes, silence, and that the same
//! weather gives the same history.

use std::cell::Cell;

use bytes::Bytes;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::link::{Closing, LinkReceiver, LinkSender};
use crate::{Error, Frame, SiteKeys};

struct Running {
    near: (LinkSender, LinkReceiver),
    far: (LinkSender, LinkReceiver),
    near_task: JoinHandle<()>,
    cable: Cable,
}

fn start(weather: impl Weather + 'static) -> Running {
    start_with(&LinkConfig::default(), weather)
}

fn start_with(config: &LinkConfig, weather: impl Weather + 'static) -> Running {
    let site = || SiteKeys::generate().unwrap().identity();
    let pair = memory_pair(site(), site(), 1, config, weather);
    let near_task = spawn_local(pair.near_session);
    drop(spawn_local(pair.far_session));
    Running { near: pair.near.split(), far: pair.far.split(), near_task, cable: pair.cable }
}

/// Runs `body` on a paused clock.
fn simulate<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, body)
}

fn frame(n: u8, payload_bytes: usize) -> Frame {
    let control = Bytes::copy_from_slice(&[n]);
    Frame { kind: 20, flags: 0, control, payload: vec![n; payload_bytes].into() }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn frames_arrive_in_order_after_their_delay() {
    simulate(async {
        let mut link = start(|_, _| Fate::Deliver { after: ms(40) });
        let begin = Instant::now();
        for n in 0..50 {
            link.near.0.send(frame(n, 100_000)).await.unwrap();
        }
        for n in 0..50 {
            assert_eq!(link.far.1.recv().await.unwrap(), frame(n, 100_000));
        }
        // 5 MB through a pipe of 256 KiB that is 40 ms long.
        assert!(begin.elapsed() >= ms(40 * 19), "{:?}", begin.elapsed());
        assert_eq!(link.cable.bytes_under_way(Direction::NearToFar), 0);
    });
}

/// What both sides saw, and when.
fn history(seed: u8) -> Vec<(u128, String)> {
    simulate(async {
        let state = Cell::new(u64::from(seed) + 1);
        let mut link = start(move |_, bytes: usize| {
            // Any fixed rule will do; this one is a linear congruential generator (Knuth, TAOCP 2).
            let next =
                state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(bytes as u64);
            state.set(next);
            match next >> 57 {
                0 => Fate::Corrupt { after: ms(3) },
                1 => Fate::Cut { delivered_bytes: 10 },
                n => Fate::Deliver { after: ms(n) },
            }
        });
        let begin = Instant::now();
        let mut seen = Vec::new();
        for n in 0..40 {
            if let Err(e) = link.near.0.send(frame(n, 3000)).await {
                seen.push((begin.elapsed().as_micros(), e.to_string()));
            }
            drop(link.far.0.send(frame(n, 10)).await);
            sleep(ms(u64::from(n))).await;
        }
        link.near.0.close(Closing::Done);
        for receiver in [&mut link.near.1, &mut link.far.1] {
            loop {
                let got = receiver.recv().await;
                let text = format!("{:?}", got.as_ref().map(|f| f.control.clone()));
                seen.push((begin.elapsed().as_micros(), text));
                if got.is_err() {
                    break;
                }
            }
        }
        seen
    })
}

#[test]
fn the_same_weather_gives_the_same_history() {
    let mut broken = 0;
    for seed in 0..20 {
        let first = history(seed);
        assert_eq!(first, history(seed), "seed {seed}");
        broken += u32::from(first.iter().any(|(_, what)| what.contains("Cut")));
    }
    assert!(broken > 3, "some of them broke: {broken}");
    assert_ne!(history(1), history(2));
}

#[test]
fn corruption_ends_the_link_and_delivers_nothing_wrong() {
    simulate(async {
        let count = Cell::new(0);
        let mut link = start(move |direction, _: usize| {
            count.set(count.get() + u32::from(direction == Direction::NearToFar));
            let corrupt = count.get() == 3 && direction == Direction::NearToFar;
            if corrupt { Fate::Corrupt { after: ms(1) } } else { Fate::Deliver { after: ms(1) } }
        });
        for n in 0..5 {
            // From the third on the link may have ended already.
            drop(link.near.0.send(frame(n, 10)).await);
            sleep(ms(10)).await;
        }
        for n in 0..2 {
            assert_eq!(link.far.1.recv().await.unwrap(), frame(n, 10));
        }
        let error = link.far.1.recv().await.unwrap_err();
        assert!(matches!(&error, Error::Cut(why) if why.contains("authenticate")), "{error}");
        assert!(matches!(link.near.1.recv().await, Err(Error::Cut(_))));
        assert!(link.near.0.send(frame(9, 1)).await.is_err());
    });
}

#[test]
fn a_cut_inside_a_frame_is_a_cut_on_both_sides() {
    simulate(async {
        let mut link = start(|direction, bytes: usize| match direction {
            Direction::NearToFar if bytes > 1000 => Fate::Cut { delivered_bytes: 500 },
            _ => Fate::Deliver { after: ms(5) },
        });
        link.near.0.send(frame(1, 10)).await.unwrap();
        assert_eq!(link.far.1.recv().await.unwrap(), frame(1, 10));
        link.near.0.send(frame(2, 5000)).await.unwrap();
        assert!(matches!(link.far.1.recv().await, Err(Error::Cut(_))));
        assert!(matches!(link.near.1.recv().await, Err(Error::Cut(_))));
    });
}

#[test]
fn cutting_the_cable_and_crashing_a_side_look_the_same_to_the_other() {
    simulate(async {
        let mut link = start(Calm);
        link.near.0.send(frame(1, 10)).await.unwrap();
        assert_eq!(link.far.1.recv().await.unwrap(), frame(1, 10));
        link.cable.cut();
        assert!(matches!(link.far.1.recv().await, Err(Error::Cut(_))));
        assert!(matches!(link.near.1.recv().await, Err(Error::Cut(_))));

        let mut link = start(Calm);
        link.near.0.send(frame(1, 10)).await.unwrap();
        assert_eq!(link.far.1.recv().await.unwrap(), frame(1, 10));
        link.near_task.abort();
        assert!(matches!(link.far.1.recv().await, Err(Error::Cut(_))));
        assert!(link.near.1.recv().await.is_err());
    });
}

#[test]
fn silence_is_noticed_and_a_stalled_reader_is_not_mistaken_for_it() {
    simulate(async {
        // Nothing arrives for an hour.
        let mut link = start(|_, _| Fate::Deliver { after: ms(3_600_000) });
        let begin = Instant::now();
        let error = link.far.1.recv().await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert_eq!(begin.elapsed(), Duration::from_secs(20));

        // Idle for an hour: the pings keep it alive, and measure the way.
        let mut link = start(|_, _| Fate::Deliver { after: ms(30) });
        assert!(timeout(ms(3_600_000), link.far.1.recv()).await.is_err());
        assert_eq!(link.far.0.counters().round_trip, Some(ms(60)));

        // The far side takes nothing for an hour, with everything full.
        let mut sent = 0;
        while timeout(ms(60_000), link.near.0.send(frame(7, 1 << 20))).await.is_ok() {
            sent += 1;
        }
        sleep(ms(3_600_000)).await;
        for _ in 0..sent {
            assert_eq!(link.far.1.recv().await.unwrap().payload.len(), 1 << 20);
        }
        link.far.0.send(frame(8, 1)).await.unwrap();
        assert_eq!(link.near.1.recv().await.unwrap(), frame(8, 1));
    });
}

#[test]
fn the_queues_hold_what_was_promised_and_no_more() {
    simulate(async {
        let config = LinkConfig { queue_bytes: 20 << 20, ..LinkConfig::default() };
        let mut link = start_with(&config, Calm);
        let mut sent = 0usize;
        while timeout(ms(1000), link.near.0.send(frame(1, 1 << 20))).await.is_ok() {
            sent += 1;
        }
        // 19 frames of 1 MiB and their overhead fit into 20 MiB, on either side; one is in between.
        assert!((38..=40).contains(&sent), "{sent}");
        assert!(link.near.0.try_send(frame(2, 1 << 20)).unwrap().is_some());
        let mut got = 0;
        while timeout(ms(1000), link.far.1.recv()).await.is_ok() {
            got += 1;
        }
        assert_eq!(got, sent);
        assert!(link.near.0.try_send(frame(2, 1 << 20)).unwrap().is_none());
    });
}

#[test]
fn closing_a_link_nobody_reads_does_not_hang() {
    simulate(async {
        let link = start(Calm);
        while timeout(ms(1000), link.near.0.send(frame(1, 1 << 20))).await.is_ok() {}
        let begin = Instant::now();
        link.near.0.close(Closing::Done);
        let error = link.near.0.ended().await;
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert_eq!(begin.elapsed(), LinkConfig::default().linger);
    });
}
