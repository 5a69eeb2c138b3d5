//! Streams: single writes that count one by one. Random histories with crashes at any operation, against
//! the bytes; damage of every kind; limits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::simulated::{Crash, Fault, SplitMix64};
use grain::{Content, CutId, GrainSet, Span, SpanData, VolumeId};
use journal::{Error, Recovered, What};

use crate::damage::segments;
use crate::world::{World, bytes_in, run};

/// The model: the volumes at the newest commit, and the writes since.
struct Model {
    images: Vec<Vec<u8>>,
    writes: Vec<SpanData>,
    /// So many of them are known to be durable.
    durable: usize,
    commits: u64,
    committing: bool,
    streaming: bool,
    ending: bool,
}

impl Model {
    fn new(world: &World) -> Model {
        let images = world.geometry.iter().map(|(_, v)| vec![0; v.bytes as usize]).collect();
        let (writes, durable, commits) = (Vec::new(), 0, 0);
        Model {
            images,
            writes,
            durable,
            commits,
            committing: false,
            streaming: false,
            ending: false,
        }
    }

    fn after(&self, count: usize) -> Vec<Vec<u8>> {
        let mut images = self.images.clone();
        for write in &self.writes[..count] {
            let (from, to) = (write.span.start as usize, write.span.end() as usize);
            images[write.span.volume.index()][from..to].copy_from_slice(&bytes_in(write));
        }
        images
    }

    fn fold(&mut self, count: usize) {
        self.images = self.after(count);
        self.writes.clear();
        self.durable = 0;
    }

    fn committed(&mut self) {
        self.fold(self.writes.len());
        self.commits += 1;
        self.committing = false;
    }
}

fn random_write(world: &mut World) -> SpanData {
    let volume = VolumeId(world.below(2) as u16);
    let size = world.geometry.volumes[volume.index()].bytes;
    let bytes = 1 + match world.below(4) {
        0 => world.below(9000.min(size)),
        1 => world.below(40),
        _ => world.below(700),
    };
    let start = world.below(size - bytes + 1);
    let content = match world.below(5) {
        0 => Content::Zero,
        _ => {
            let salt = world.random.next_u64();
            Content::Data(crate::world::content(salt | 1, bytes as usize).into())
        }
    };
    SpanData { span: Span { volume, start, bytes }, content }
}

fn digest(data: &SpanData) -> [u8; 32] {
    match &data.content {
        Content::Data(bytes) => *blake3::hash(bytes).as_bytes(),
        Content::Zero => [0; 32],
    }
}

async fn begin(world: &mut World, model: &mut Model) -> Result<(), Error> {
    let cut = CutId::from_bytes(world.id());
    model.committing = true;
    world.journal().begin_stream(cut).await?;
    model.committed();
    model.streaming = true;
    Ok(())
}

async fn write(world: &mut World, model: &mut Model) -> Result<(), Error> {
    let data = random_write(world);
    model.writes.push(data.clone());
    let sequence = model.writes.len() as u64;
    let done = world.journal().append_stream(sequence, &data, digest(&data)).await;
    if let Err(Error::Full { .. }) = done {
        model.writes.pop();
        // An epoch that fills the journal has to end before anything of it can go.
        commit(world, model).await?;
        while world.apply(100_000).await? {}
        return Ok(());
    }
    done
}

async fn commit(world: &mut World, model: &mut Model) -> Result<(), Error> {
    model.committing = true;
    let cut = CutId::from_bytes(world.id());
    let done = world.journal().commit(&[], cut, Bytes::from_static(b"a cut")).await;
    match done {
        Ok(_) => model.committed(),
        Err(Error::Full { .. }) => model.committing = false,
        Err(e) => return Err(e),
    }
    Ok(())
}

async fn step(world: &mut World, model: &mut Model) -> Result<(), Error> {
    match world.below(24) {
        _ if !model.streaming => begin(world, model).await?,
        0 => {
            model.ending = true;
            world.journal().end_stream().await?;
            (model.streaming, model.ending) = (false, false);
            model.durable = model.writes.len();
        }
        1 | 2 => commit(world, model).await?,
        3..6 => {
            world.journal().sync().await?;
            model.durable = model.writes.len();
        }
        6..10 => {
            let max = world.below(30_000);
            world.apply(max).await?;
        }
        _ => write(world, model).await?,
    }
    Ok(())
}

/// What was recovered is a prefix of what was written, no shorter than what was durable; and the model
/// goes on with it, as an owner does who has recorded it.
async fn settle(world: &mut World, model: &mut Model, found: &Recovered) {
    assert_eq!(found.damage, vec![], "a crash is no damage");
    let newest = found.commits.last().map_or(0, |commit| commit.number);
    assert!(newest <= model.commits + 1);
    let begun = model.committing && !model.streaming && newest > model.commits;
    if model.committing && newest > model.commits {
        model.committed();
    }
    (model.committing, model.streaming) = (false, model.streaming || begun);
    let there = match &found.stream {
        Some(stream) => {
            // One that was ended is told again as long as it is not in the base.
            assert_eq!(stream.commit, model.commits);
            let written = model.writes.iter().take(stream.sequence as usize);
            let grains: GrainSet =
                written.map(|write| world.geometry.touched_by(write.span)).collect();
            assert_eq!(stream.grains, grains);
            stream.sequence as usize
        }
        None => {
            assert!(!model.streaming || model.ending, "an open stream is not forgotten");
            model.writes.len()
        }
    };
    assert!(there >= model.durable && there <= model.writes.len());
    let (seen, damaged) = world.visible_bytes().await;
    assert!(damaged.is_empty());
    assert!(seen == model.after(there), "what is there is a prefix");
    model.writes.truncate(there);
    model.durable = there;
    world.journal().end_stream().await.unwrap();
    (model.streaming, model.ending) = (false, false);
}

#[test]
fn a_crash_at_any_operation_leaves_a_prefix() {
    run(async {
        for seed in 0..50 {
            let mut world = World::new(seed);
            world.make_base().await;
            world.open().await.unwrap();
            let mut model = Model::new(&world);
            let mut random = SplitMix64::new(seed ^ 77);
            for _ in 0..14 {
                let kind = [Crash::Kill, Crash::PowerCut][(random.next_u64() % 2) as usize];
                let at = world.machine.operations() + random.next_u64() % 400;
                let (machine, crash_seed) = (world.machine.clone(), random.next_u64());
                let crashed = Rc::new(Cell::new(false));
                let done = crashed.clone();
                world.machine.set_fault_hook(move |op| {
                    if op.number >= at && !done.replace(true) {
                        machine.crash_seeded(kind, crash_seed);
                    }
                    Fault::None
                });
                while !crashed.get() {
                    let outcome = step(&mut world, &mut model).await;
                    assert!(outcome.is_ok() || crashed.get(), "{outcome:?}");
                }
                world.machine.clear_fault_hook();
                let found = world.open().await.unwrap();
                settle(&mut world, &mut model, &found).await;
            }
            while world.apply(50_000).await.unwrap() {}
            world.journal().settle().await.unwrap();
            let (seen, _) = world.visible_bytes().await;
            assert!(seen == model.after(model.writes.len()) && world.journal().is_applied());
            let again = world.open().await.unwrap();
            assert!(again.stream.is_none() && again.commits.is_empty(), "it is all in the base");
        }
    });
}

/// A stream whose second write is to be damaged: where its payload stands, and all writes.
async fn three_writes(world: &mut World, after: &str) -> (Vec<SpanData>, std::path::PathBuf, u64) {
    world.make_base().await;
    world.open().await.unwrap();
    world.journal().begin_stream(CutId::from_bytes([7; 16])).await.unwrap();
    let mut writes = Vec::new();
    for i in 0..3_u64 {
        let bytes = Bytes::from(crate::world::content(1000 + i, 600));
        let span = Span { volume: VolumeId(0), start: 5000 * i + 100, bytes: 600 };
        let data = SpanData { span, content: Content::Data(bytes) };
        world.journal().append_stream(i + 1, &data, digest(&data)).await.unwrap();
        writes.push(data);
    }
    world.journal().sync().await.unwrap();
    if after == "a commit" {
        let cut = CutId::from_bytes([8; 16]);
        world.journal().commit(&[], cut, Bytes::from_static(b"next")).await.unwrap();
    }
    // A mark that names all of it.
    world.journal().sync().await.unwrap();
    let needle = bytes_in(&writes[if after == "nothing" { 2 } else { 1 }]);
    for (path, bytes) in segments(&world.machine.context().storage).await {
        if let Some(at) = bytes.windows(600).position(|w| w == needle) {
            return (writes, path, at as u64);
        }
    }
    panic!("the write is not in the journal");
}

#[test]
fn a_damaged_write_is_named_with_its_grains() {
    run(async {
        let mut world = World::new(3);
        let (writes, path, at) = three_writes(&mut world, "others").await;
        world.machine.flip(&path, at + 9, 2).unwrap();
        let found = world.open().await.unwrap();
        assert_eq!(found.damage, vec![]);
        assert_eq!(found.stream.map(|s| s.sequence), Some(3));
        let (_, damaged) = world.visible_bytes().await;
        assert_eq!(damaged, [world.geometry.touched_by(writes[1].span)].into_iter().collect());
    });
}

#[test]
fn a_write_whose_header_is_damaged_is_missed() {
    for after in ["others", "nothing", "a commit"] {
        run(async {
            let mut world = World::new(4);
            let (_, path, at) = three_writes(&mut world, after).await;
            // The header stands right before the payload.
            world.machine.flip(&path, at - 60, 2).unwrap();
            let found = world.open().await.unwrap();
            let named = found.damage.iter().find(|d| matches!(d.what, What::Stream { commit: 1 }));
            let named = named.unwrap_or_else(|| panic!("{after}: {:?}", found.damage));
            assert_eq!(named.grains, None, "which grains stands nowhere");
            assert!(named.to_string().contains("lacks writes"));
        });
    }
}

#[test]
fn what_waits_for_a_sync_is_not_applied_and_covers_nothing() {
    run(async {
        let mut world = World::new(5);
        world.make_base().await;
        world.open().await.unwrap();
        world.journal().begin_stream(CutId::from_bytes([7; 16])).await.unwrap();
        let write = |sequence: u64, stamp: u64| {
            let bytes = Bytes::from(crate::world::content(stamp, 600));
            let span = Span { volume: VolumeId(1), start: 50, bytes: 600 };
            let data = SpanData { span, content: Content::Data(bytes) };
            let journal = world.journal();
            async move { journal.append_stream(sequence, &data, digest(&data)).await }
        };
        write(1, 11).await.unwrap();
        let journal = world.journal();
        assert!(journal.next_apply(1 << 20).is_none());
        assert_eq!(journal.stream().map(|s| (s.appended, s.written, s.durable)), Some((1, 1, 0)));
        journal.sync().await.unwrap();
        write(2, 22).await.unwrap();
        assert_eq!(journal.stream().map(|s| (s.appended, s.durable)), Some((2, 1)));
        let batch = journal.next_apply(1 << 20).unwrap();
        let data = batch.read(0).await.unwrap();
        assert_eq!(bytes_in(&data), crate::world::content(11, 600), "the durable one");
        let late = write(4, 44).await;
        assert!(matches!(late, Err(Error::Stream(_))), "{late:?}");
        let twice = journal.begin_stream(CutId::from_bytes([9; 16])).await;
        assert!(matches!(twice, Err(Error::Stream(_))), "{twice:?}");
    });
}

/// What is appended while a sync runs is not covered by it, and neither counts nor is applied.
#[test]
fn what_came_while_a_sync_ran_waits_for_the_next() {
    run(async {
        let mut world = World::new(6);
        world.make_base().await;
        world.open().await.unwrap();
        let journal = world.journal();
        journal.begin_stream(CutId::from_bytes([7; 16])).await.unwrap();
        world.machine.set_latency(Duration::from_millis(5)..Duration::from_millis(6));
        let write = |sequence: u64, start: u64| {
            let bytes = Bytes::from(crate::world::content(sequence, 600));
            let span = Span { volume: VolumeId(1), start, bytes: 600 };
            let data = SpanData { span, content: Content::Data(bytes) };
            let journal = journal.clone();
            async move { journal.append_stream(sequence, &data, digest(&data)).await }
        };
        write(1, 50).await.unwrap();
        // Until the first is written and its sync runs.
        let syncing = tokio::task::spawn_local({
            let journal = journal.clone();
            async move { journal.sync().await }
        });
        while journal.stream().is_some_and(|stream| stream.written < 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!syncing.is_finished());
        write(2, 5000).await.unwrap();
        syncing.await.unwrap().unwrap();
        let stream = journal.stream().unwrap();
        assert_eq!((stream.appended, stream.durable), (2, 1));
        let batch = journal.next_apply(1 << 20).unwrap();
        let spans: Vec<_> = batch.pieces().iter().map(|piece| piece.span().start).collect();
        assert_eq!(spans, [50]);
    });
}
