//! The gate: a cut has all of a write or nothing of it, and all that was answered before it; a client
//! that leaves does not let its write out; a stop answers those who wait.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Fault, OpKind, SplitMix64};

use super::*;

fn pairs() -> GrainSet {
    (0..8).map(|i| grain::Run { volume: VolumeId(0), first: i * 700, count: 2 }).collect()
}

#[test]
fn a_cut_has_whole_writes_and_all_that_was_answered() {
    for seed in 0..30 {
        run(async {
            let site = Site::new(seed).await;
            let source = site.start().await.unwrap();
            let mut random = SplitMix64::new(seed);
            site.machine.set_latency(Duration::ZERO..Duration::from_millis(2));
            // By pair: the newest version asked for, and the newest answered.
            let versions: Rc<RefCell<BTreeMap<u64, (u8, u8)>>> = Rc::default();
            for i in 0..8 {
                let (source, versions, mut random) =
                    (source.clone(), versions.clone(), random.split());
                drop(tokio::task::spawn_local(async move {
                    for version in 1..=100 {
                        let wait = Duration::from_micros(random.below(3000));
                        tokio::time::sleep(wait).await;
                        versions.borrow_mut().entry(i).or_default().0 = version;
                        let data = vec![version; 2 * GRAIN as usize];
                        let asked = write(&source, 0, i * 700 * GRAIN, data);
                        if random.below(4) == 0 {
                            // The client goes away; its next write comes behind this one.
                            let patience = Duration::from_micros(random.below(1500));
                            if !matches!(tokio::time::timeout(patience, asked).await, Ok(Ok(()))) {
                                continue;
                            }
                        } else {
                            asked.await.unwrap();
                        }
                        versions.borrow_mut().entry(i).or_default().1 = version;
                    }
                }));
            }
            for _ in 0..15 {
                tokio::time::sleep(Duration::from_millis(random.below(15))).await;
                let look = |_| {
                    let content = site.content_now(&pairs());
                    for i in 0..8 {
                        let (first, second) =
                            (&content[&(0, i * 700)], &content[&(0, i * 700 + 1)]);
                        let (asked, answered) =
                            versions.borrow().get(&i).copied().unwrap_or_default();
                        assert!(first.iter().chain(second).all(|b| *b == first[0]), "half a write");
                        assert!((answered..=asked).contains(&first[0]), "not what was answered");
                    }
                    Vec::new()
                };
                source.cut(CutReason::Cycle, look).await.unwrap();
            }
        });
    }
}

#[test]
fn a_write_that_hangs_holds_the_cut_whoever_waits_for_it() {
    run(async {
        let site = Site::new(1).await;
        let source = site.start().await.unwrap();
        write_grain(&source, 0, 0, 1).await.unwrap();
        site.machine.set_fault_hook(|op| match op.kind {
            OpKind::Write if op.path.starts_with("/volumes") => {
                Fault::Slow(Duration::from_secs(25))
            }
            OpKind::WriteNow => Fault::NotNow,
            _ => Fault::None,
        });
        let asked = write_grain(&source, 0, 0, 2);
        assert!(tokio::time::timeout(Duration::from_secs(1), asked).await.is_err());
        let begun = tokio::time::Instant::now();
        assert!(matches!(cut(&source).await, Err(Error::CutTimeout(_))));
        assert!(begun.elapsed() <= Duration::from_secs(11));
        tokio::time::sleep(Duration::from_secs(20)).await;
        cut(&source).await.unwrap();
    });
}

#[test]
fn a_stop_answers_those_who_wait_outside() {
    run(async {
        let site = Site::new(2).await;
        let source = site.start().await.unwrap();
        write_grain(&source, 0, 0, 1).await.unwrap();
        site.machine.set_latency(Duration::from_millis(5)..Duration::from_millis(9));
        let stopping = tokio::task::spawn_local({
            let source = source.clone();
            async move { source.stop().await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let late =
            tokio::time::timeout(Duration::from_secs(60), write_grain(&source, 0, 1, 1)).await;
        assert!(late.unwrap().is_err());
        stopping.await.unwrap().unwrap();
        assert!(cut(&source).await.is_err());
    });
}

#[test]
fn a_cut_that_fails_ends_its_sessions() {
    run(async {
        let site = Site::new(3).await;
        let source = site.start().await.unwrap();
        write_grain(&source, 0, 0, 1).await.unwrap();
        site.machine.set_fault_hook(|op| match op.kind {
            OpKind::Sync if op.path.starts_with("/volumes") => Fault::Io,
            _ => Fault::None,
        });
        let made: RefCell<Option<Rc<crate::session::CopySession>>> = RefCell::default();
        let install = |cut| {
            let options = crate::session::Options {
                on_write: crate::session::OnWrite::Preserve,
                buffer_bytes: GRAIN,
                side: None,
                wait: Duration::from_secs(2),
                overflow: crate::session::Overflow::Throttle,
                fuzzy: false,
            };
            let volumes = source.volumes().clone();
            let all = GrainSet::full(volumes.geometry());
            let session = crate::session::CopySession::new(cut, all, volumes, options);
            *made.borrow_mut() = Some(session.clone());
            vec![session]
        };
        assert!(source.cut(CutReason::Cycle, install).await.is_err());
        assert!(made.borrow().as_ref().unwrap().ended().is_some());
        for index in 0..5 {
            let asked = write_grain(&source, 0, index, 2);
            tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap().unwrap();
        }
    });
}

#[test]
fn a_session_sees_the_cut_whatever_is_written_through_the_source() {
    for seed in 0..20 {
        run(async {
            let site = Site::new(seed).await;
            let source = site.start().await.unwrap();
            for run in pairs().runs() {
                write_grain(&source, 0, run.first, 1).await.unwrap();
            }
            site.machine.set_latency(Duration::ZERO..Duration::from_millis(1));
            let made: RefCell<Option<Rc<crate::session::CopySession>>> = RefCell::default();
            let volumes = source.volumes().clone();
            let install = |cut| {
                let options = crate::session::Options {
                    on_write: crate::session::OnWrite::Preserve,
                    buffer_bytes: 64 * GRAIN,
                    side: None,
                    wait: Duration::from_secs(2),
                    overflow: crate::session::Overflow::Throttle,
                    fuzzy: false,
                };
                let session = crate::session::CopySession::new(cut, pairs(), volumes, options);
                *made.borrow_mut() = Some(session.clone());
                vec![session]
            };
            let at_cut = site.content_now(&pairs());
            source.cut(CutReason::Cycle, install).await.unwrap();
            let session = made.take().unwrap();
            for i in 0..8 {
                let source = source.clone();
                drop(tokio::task::spawn_local(async move {
                    write_grain(&source, 0, i * 700, 2).await.unwrap();
                    write_grain(&source, 0, i * 700 + 1, 2).await.unwrap();
                }));
            }
            let mut arrived = 0;
            while let Some(data) = session.next().await.unwrap() {
                for data in data {
                    for index in data.run.first..data.run.end() {
                        let from = ((index - data.run.first) * GRAIN) as usize;
                        let bytes = match &data.content {
                            grain::Content::Zero => vec![0; GRAIN as usize],
                            grain::Content::Data(bytes) => bytes[from..][..GRAIN as usize].to_vec(),
                        };
                        assert!(bytes == at_cut[&(0, index)], "grain {index}");
                        arrived += 1;
                    }
                }
            }
            assert_eq!(arrived, pairs().len());
        });
    }
}

/// A write that was tried without waiting may have reached the disk in part: no cut comes between that part and
/// the rest.
#[test]
fn a_write_that_was_tried_is_inside_until_it_is_done() {
    run(async {
        let site = Site::new(9).await;
        let source = site.start().await.unwrap();
        // Grain and mark are ready: a second write needs to wait for nothing but the disk.
        write_grain(&source, 0, 3, 1).await.unwrap();
        source.flush().await.unwrap();
        site.machine.set_now_chance(0);
        let data = vec![2; GRAIN as usize];
        let volume = VolumeId(0);
        let mut tried = None;
        for _ in 0..50 {
            match source.write_now(volume, 3 * GRAIN, &data).unwrap() {
                Written::NotNow(left) => tried = Some(left),
                _ => panic!("the disk answers nothing at once"),
            }
            if source.gate.inside() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let tried = tried.filter(|_| source.gate.inside() == 1).expect("the disk was tried");
        let cutting = {
            let source = source.clone();
            tokio::task::spawn_local(async move {
                source.cut(CutReason::Cycle, |_| Vec::new()).await.map(|made| made.cut.id)
            })
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!cutting.is_finished(), "a cut does not pass it by");
        let change = Change::Data(Bytes::from(data));
        source.clone().write_on(tried, volume, 3 * GRAIN, change, false).await.unwrap();
        cutting.await.unwrap().unwrap();
    });
}
