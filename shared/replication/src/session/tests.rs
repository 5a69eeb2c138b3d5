//! Tests of copy sessions: the set arrives as it was at the cut, each grain once, under concurrent
//! writes, with tiny buffers, errors and every outcome of an overflow; nobody waits for ever.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::simulated::{Fault, OpKind, SimMachine, SplitMix64};
use disk::{Context, OpenMode};
use grain::{Content, CutId, Geometry, GrainData, GrainSet, GrainSize, Run, VolumeId, VolumeShape};

use super::*;
use crate::volumes::Volumes;

const GRAIN: u64 = 4096;
const GRAINS: u64 = 600;

fn grain(index: u64) -> Run {
    Run { volume: VolumeId(0), first: index, count: 1 }
}

async fn volumes(machine: &SimMachine) -> (Context, Rc<Volumes>) {
    let ctx = machine.context();
    let bytes = (GRAINS - 1) * GRAIN + 77;
    let shape = VolumeShape { alias: "v".into(), bytes };
    let geometry = Geometry { grain: GrainSize::MIN, volumes: vec![shape] };
    let file = ctx.storage.open("/v".as_ref(), OpenMode::CreateNew).await.unwrap();
    file.set_len(bytes).await.unwrap();
    for index in (0..GRAINS).filter(|i| i % 7 != 3 && !(200..330).contains(i)) {
        let range = geometry.byte_range(VolumeId(0), index, 1);
        let data = vec![index as u8 | 1; (range.end - range.start) as usize];
        file.write_at(range.start, data.into()).await.unwrap();
    }
    drop(file);
    let volumes = Volumes::open(&ctx, &geometry, &[PathBuf::from("/v")]).await.unwrap();
    (ctx, Rc::new(volumes))
}

fn options(buffer_bytes: u64, overflow: Overflow) -> Options {
    let wait = Duration::from_secs(2);
    let on_write = OnWrite::Preserve;
    Options { on_write, buffer_bytes, side: None, wait, overflow, fuzzy: false }
}

fn session(volumes: &Rc<Volumes>, set: GrainSet, options: Options) -> Rc<CopySession> {
    CopySession::new(CutId::from_bytes([1; 16]), set, volumes.clone(), options)
}

/// Content by grain; panics when one comes twice.
#[derive(Default)]
struct Sink(BTreeMap<u64, Vec<u8>>);

impl Sink {
    fn take(&mut self, volumes: &Volumes, data: GrainData) {
        for i in 0..data.run.count {
            let index = data.run.first + i;
            let range = volumes.geometry().byte_range(VolumeId(0), index, 1);
            let len = (range.end - range.start) as usize;
            let bytes = match &data.content {
                Content::Zero => vec![0; len],
                Content::Data(bytes) => bytes[(i * GRAIN) as usize..][..len].to_vec(),
            };
            assert!(self.0.insert(index, bytes).is_none(), "grain {index} came twice");
        }
    }
}

async fn whole(volumes: &Volumes) -> Sink {
    let mut sink = Sink::default();
    let run = Run { volume: VolumeId(0), first: 0, count: GRAINS };
    let bytes = volumes.read(run).await.unwrap();
    for data in crate::volumes::split_zeros(volumes.geometry(), run, bytes) {
        sink.take(volumes, data);
    }
    sink
}

/// As the source does: protect, then write.
async fn overwrite(session: &Rc<CopySession>, volumes: &Volumes, run: Run, byte: u8) {
    while session.conflicts(run) {
        session.protect(run).await;
    }
    let range = volumes.geometry().byte_range(run.volume, run.first, run.count);
    let data = Bytes::from(vec![byte; (range.end - range.start) as usize]);
    volumes.write(&GrainData { run, content: Content::Data(data) }).await.unwrap();
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let limit = Duration::from_secs(3600);
    let outcome = tokio::task::LocalSet::new()
        .block_on(&runtime.unwrap(), async { tokio::time::timeout(limit, future).await });
    outcome.unwrap()
}

/// One session under random writes; the session and what arrived.
async fn play(seed: u64, overflow: Overflow, on_write: OnWrite) -> (Rc<CopySession>, Sink, Sink) {
    let mut random = SplitMix64::new(seed);
    let machine = SimMachine::new(seed);
    let (ctx, volumes) = volumes(&machine).await;
    machine.set_latency(Duration::ZERO..Duration::from_micros(1 + random.below(2000)));
    let at_cut = whole(&volumes).await;
    let mut set = GrainSet::full(volumes.geometry());
    for _ in 0..random.below(5) {
        set.remove_run(Run { volume: VolumeId(0), first: random.below(GRAINS), count: 40 });
    }
    let buffer = [0, GRAIN, 3 * GRAIN, 64 * GRAIN][random.below(4) as usize];
    let mut bounds = Options { on_write, ..options(buffer, overflow) };
    if random.below(2) == 0 {
        let bytes = GRAIN * (1 + random.below(40));
        bounds.side = Some(SideFile::create(&ctx, "/side".into(), bytes).await.unwrap());
    }
    let copy = session(&volumes, set.clone(), bounds);
    let mut writers = Vec::new();
    for i in 0..40 {
        let (copy, volumes, mut random) = (copy.clone(), volumes.clone(), random.split());
        writers.push(tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(random.below(30))).await;
            // Apart from each other: the range locks of the source see to that.
            let (first, count) = (i * 15 + random.below(8), 1 + random.below(7));
            overwrite(&copy, &volumes, Run { first, count, ..grain(0) }, 255).await;
        }));
    }
    let mut sink = Sink::default();
    let slow = random.below(2) == 0;
    loop {
        if slow {
            tokio::time::sleep(Duration::from_millis(random.below(4))).await;
        }
        // A sink may lose interest in the middle of a wait.
        let patience = Duration::from_micros(200 + random.below(3000));
        let taken = match random.below(3) {
            0 => {
                let run = Run { first: random.below(GRAINS - 40), count: 40, ..grain(0) };
                copy.take(run).await.map(Some)
            }
            _ => match tokio::time::timeout(patience, copy.next()).await {
                Ok(taken) => taken,
                Err(_) => continue,
            },
        };
        match taken {
            Ok(Some(data)) => data.into_iter().for_each(|data| sink.take(&volumes, data)),
            Ok(None) | Err(_) => break,
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    if copy.ended().is_none() && on_write == OnWrite::Preserve {
        let arrived: GrainSet = sink.0.keys().map(|i| grain(*i)).collect();
        assert_eq!(arrived, set, "seed {seed}");
    }
    assert!(copy.counters().memory_peak_bytes <= buffer.max(GRAIN), "seed {seed}");
    (copy, sink, at_cut)
}

#[test]
fn the_set_arrives_as_it_was_at_the_cut() {
    for seed in 0..60 {
        let (copy, sink, at_cut) = run(play(seed, Overflow::Throttle, OnWrite::Preserve));
        assert!(copy.ended().is_none() && !copy.is_fuzzy());
        for (index, bytes) in &sink.0 {
            assert!(
                bytes == &at_cut.0[index],
                "grain {index} of seed {seed} is not that of the cut"
            );
        }
    }
}

#[test]
fn what_arrived_of_a_session_that_broke_off_is_right() {
    let mut ended = 0;
    for seed in 100..140 {
        for overflow in [Overflow::Partial, Overflow::Abort] {
            let (copy, sink, at_cut) = run(play(seed, overflow, OnWrite::Preserve));
            ended += u64::from(copy.ended().is_some());
            for (index, bytes) in &sink.0 {
                assert!(bytes == &at_cut.0[index], "grain {index} of seed {seed}");
            }
        }
    }
    // With a sink that keeps up nobody waits for two seconds; the next test has one that does not.
    assert!(ended < 80);
}

#[test]
fn a_full_buffer_ends_as_asked() {
    for overflow in [Overflow::Fuzzy, Overflow::Abort, Overflow::Partial] {
        run(async {
            let machine = SimMachine::new(5);
            let (_, volumes) = volumes(&machine).await;
            let copy =
                session(&volumes, GrainSet::full(volumes.geometry()), options(GRAIN, overflow));
            let begun = tokio::time::Instant::now();
            overwrite(&copy, &volumes, Run { first: 0, count: 3, ..grain(0) }, 9).await;
            assert!(begun.elapsed() <= Duration::from_secs(3), "longer than stated");
            assert_eq!(copy.is_fuzzy(), overflow == Overflow::Fuzzy);
            assert_eq!(copy.ended().is_some(), overflow != Overflow::Fuzzy);
            assert!(copy.counters().memory_peak_bytes <= GRAIN);
            assert!(!copy.conflicts(grain(50)), "writers go on");
            if overflow == Overflow::Fuzzy {
                let mut sink = Sink::default();
                while let Some(data) = copy.next().await.unwrap() {
                    data.into_iter().for_each(|data| sink.take(&volumes, data));
                }
                assert_eq!(sink.0.len() as u64, GRAINS, "a fuzzy copy has every grain");
            }
        });
    }
}

#[test]
fn a_skipping_session_gives_nothing_that_was_written_since() {
    for seed in 200..260 {
        let (copy, sink, at_cut) = run(play(seed, Overflow::Abort, OnWrite::Skip));
        let skipped = copy.skipped();
        for (index, bytes) in &sink.0 {
            assert!(bytes == &at_cut.0[index], "grain {index} of seed {seed} was written since");
            assert!(
                !skipped.contains(VolumeId(0), *index),
                "grain {index} both came and was skipped"
            );
        }
    }
}

/// Takes everything in the middle of faults, calms the disk after an error, and goes on.
async fn take_all(copy: &Rc<CopySession>, volumes: &Volumes, calm: impl Fn()) -> (Sink, u32) {
    let (mut sink, mut errors) = (Sink::default(), 0);
    loop {
        match copy.next().await {
            Ok(Some(data)) => data.into_iter().for_each(|data| sink.take(volumes, data)),
            Ok(None) => return (sink, errors),
            Err(_) => {
                errors += 1;
                calm();
            }
        }
    }
}

#[test]
fn a_disk_that_gives_nothing_ends_in_an_error_and_nothing_comes_twice_or_new() {
    run(async {
        let machine = SimMachine::new(6);
        let (_, volumes) = volumes(&machine).await;
        let at_cut = whole(&volumes).await;
        let fails = Rc::new(Cell::new(true));
        let flag = fails.clone();
        machine.set_latency(Duration::from_millis(1)..Duration::from_millis(2));
        machine.set_fault_hook(move |op| {
            // Not the read of the writer.
            let of_sink = op.kind == OpKind::Read && op.offset < 400 * GRAIN;
            if flag.get() && of_sink { Fault::Io } else { Fault::None }
        });
        let full = GrainSet::full(volumes.geometry());
        let copy = session(&volumes, full, options(100 * GRAIN, Overflow::Abort));
        let reading = tokio::task::spawn_local({
            let (copy, volumes) = (copy.clone(), volumes.clone());
            async move { take_all(&copy, &volumes, || fails.set(false)).await }
        });
        // Beyond the first MiB: given back as soon as the reader knows that there is no hole.
        tokio::time::sleep(Duration::from_micros(2100)).await;
        overwrite(&copy, &volumes, grain(500), 9).await;
        let (sink, errors) = reading.await.unwrap();
        assert_eq!(errors, 1);
        assert!(sink.0 == at_cut.0);
        assert!(copy.unreadable().is_empty(), "a broken disk has no bad places");
    });
}

#[test]
fn bad_places_are_left_out_by_name_and_cost_nothing_else() {
    for written in [None, Some(40), Some(41)] {
        run(async move {
            let machine = SimMachine::new(8);
            let (_, volumes) = volumes(&machine).await;
            let mut at_cut = whole(&volumes).await;
            machine.set_latency(Duration::from_millis(1)..Duration::from_millis(2));
            let bad = [40_u64, 100];
            machine.set_fault_hook(move |op| {
                let hit = |g: u64| op.offset < (g + 1) * GRAIN && op.offset + op.len > g * GRAIN;
                let reads = op.kind == OpKind::Read && bad.into_iter().any(hit);
                if reads { Fault::Io } else { Fault::None }
            });
            let full = GrainSet::full(volumes.geometry());
            let copy = session(&volumes, full, options(100 * GRAIN, Overflow::Throttle));
            if let Some(index) = written {
                // The one who preserves meets the bad place first.
                overwrite(&copy, &volumes, grain(index), 9).await;
            }
            let (sink, errors) = take_all(&copy, &volumes, || ()).await;
            assert_eq!(errors, 0);
            let named: GrainSet = bad.into_iter().map(grain).collect();
            assert_eq!(copy.unreadable(), named);
            let mut told = GrainSet::new();
            while let Some(run) = copy.next_unreadable() {
                assert_eq!(told.insert_run(run), run.count, "told twice");
            }
            assert_eq!(told, named);
            bad.iter().for_each(|index| drop(at_cut.0.remove(index)));
            assert!(sink.0 == at_cut.0);
        });
    }
}

#[test]
fn a_read_that_fails_once_is_tried_again() {
    run(async {
        let machine = SimMachine::new(9);
        let (_, volumes) = volumes(&machine).await;
        let at_cut = whole(&volumes).await;
        let left = Cell::new(1_i64);
        machine.set_fault_hook(move |op| {
            let fail = op.kind == OpKind::Read && left.replace(left.get() - 1) == 1;
            if fail { Fault::Io } else { Fault::None }
        });
        let full = GrainSet::full(volumes.geometry());
        let copy = session(&volumes, full, options(100 * GRAIN, Overflow::Throttle));
        let (sink, errors) = take_all(&copy, &volumes, || ()).await;
        assert_eq!((errors, copy.unreadable().len()), (0, 0));
        assert!(sink.0 == at_cut.0);
    });
}

#[test]
fn a_side_file_that_cannot_be_read_ends_the_session() {
    run(async {
        let machine = SimMachine::new(7);
        let (ctx, volumes) = volumes(&machine).await;
        let mut bounds = options(GRAIN, Overflow::Abort);
        bounds.side = Some(SideFile::create(&ctx, "/side".into(), 64 * GRAIN).await.unwrap());
        let set = (0..8).map(grain).collect();
        let copy = session(&volumes, set, bounds);
        overwrite(&copy, &volumes, Run { count: 8, ..grain(0) }, 9).await;
        machine.set_fault_hook(|op| match op.path.ends_with("side") {
            true => Fault::Io,
            false => Fault::None,
        });
        let outcome = loop {
            match copy.next().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        };
        assert!(outcome.is_err(), "what was lost passes for delivered");
        assert!(copy.next().await.is_err());
    });
}
