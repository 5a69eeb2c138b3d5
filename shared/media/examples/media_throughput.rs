//! How fast a set is written and read back, against `cp --sparse=never` and a sync of the same bytes.
//!
//! `cargo run --release -p grainhaul-media --example media_throughput -- DIR [GIB] [ROUNDS]` needs three
//! times GIB free in DIR. Rounds are interleaved: copy, dump, load, copy, ...; it prints every round
//! and the medians. The machine's neighbours make noise: believe the ratios.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use grain::{
    Content, CutId, Geometry, GrainData, GrainSize, RelationshipId, Run, SetId, VolumeId,
    VolumeShape,
};
use media::{
    CutFacts, DEFAULT_QUEUE_BYTES, DEFAULT_SEGMENT_BYTES, FinishInfo, KeySource, RootSum,
    RootVerdict, SetPlan, SetView, SetWriter,
};
use wire::SiteKeys;

type Failure = Box<dyn std::error::Error>;

const MIB: u64 = 1 << 20;
const READERS: usize = 4;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("usage: throughput DIR [GIB] [ROUNDS]")?);
    let gib: u64 = args.next().map_or(Ok(2), |text| text.parse())?;
    let rounds: u32 = args.next().map_or(Ok(3), |text| text.parse())?;
    let dir = std::path::absolute(dir)?.join("throughput");
    std::fs::create_dir_all(&dir)?;
    sum_cost()?;
    let source = dir.join("source.img");
    make_source(&source, gib << 10)?;
    let (mut copies, mut dumps, mut loads) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        copies.push(copy(&source, &dir.join("copy.img"))?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (dump, load) = tokio::task::LocalSet::new()
            .block_on(&runtime, dump_and_load(&source, &dir.join("set"), gib << 30))?;
        dumps.push(dump);
        loads.push(load);
        let (copy, gib) = (copies.last().copied().unwrap_or(1.0), gib as f64);
        println!(
            "round {round}: cp {:.2}, dump {:.2}, verify {:.2} GiB/s",
            gib / copy,
            gib / dump,
            gib / load
        );
    }
    let (copy, dump, load) = (median(&mut copies), median(&mut dumps), median(&mut loads));
    println!("dump against cp and sync: {:.2} x", copy / dump);
    println!("verify against cp and sync: {:.2} x", copy / load);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Processor time of this process so far: in user mode and in the kernel, in seconds (`proc(5)`,
/// `stat`; the unit is a hundredth of a second on Linux).
fn cpu_seconds() -> Result<(f64, f64), Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let field = |n| after_name.split_whitespace().nth(n).and_then(|text| text.parse::<f64>().ok());
    Ok((field(11).unwrap_or(f64::NAN) / 100.0, field(12).unwrap_or(f64::NAN) / 100.0))
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The processor time of the root digest for one grain.
fn sum_cost() -> Result<(), Failure> {
    let mut sum = RootSum::new();
    let begun = cpu_seconds()?.0;
    let grains = 500_000u64;
    for index in 0..grains {
        sum.add_grain(VolumeId(0), index, &[index as u8; 32]);
    }
    let each = (cpu_seconds()?.0 - begun) * 1e9 / grains as f64;
    println!("root digest: {each:.0} ns a grain ({sum:?})");
    Ok(())
}

/// Incompressible content, in the page cache and on disk.
fn make_source(path: &Path, mib: u64) -> Result<(), Failure> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    let mut block = vec![0; MIB as usize];
    for i in 0..mib {
        blake3::Hasher::new().update(&i.to_le_bytes()).finalize_xof().fill(&mut block);
        file.write_all(&block)?;
    }
    Ok(file.sync_all()?)
}

fn copy(source: &Path, target: &Path) -> Result<f64, Failure> {
    let begun = Instant::now();
    let done = Command::new("cp").arg("--sparse=never").arg(source).arg(target).status()?;
    let synced = Command::new("sync").arg(target).status()?;
    if !done.success() || !synced.success() {
        return Err("cp failed".into());
    }
    let seconds = begun.elapsed().as_secs_f64();
    std::fs::remove_file(target)?;
    Command::new("sync").status()?;
    Ok(seconds)
}

fn plan(medium: &Path, bytes: u64) -> Result<SetPlan, Failure> {
    let volumes = vec![VolumeShape { alias: "disk".into(), bytes }];
    Ok(SetPlan {
        set: SetId::from_bytes([1; 16]),
        relationship: RelationshipId::from_bytes([2; 16]),
        relationship_name: "throughput".into(),
        geometry: Geometry { grain: GrainSize::DEFAULT, volumes },
        cut: CutFacts { cut: CutId::from_bytes([3; 16]), unix_ms: 0, lineage: Vec::new() },
        basis: None,
        media: vec![medium.to_owned()],
        segment_bytes: DEFAULT_SEGMENT_BYTES,
        queue_bytes: DEFAULT_QUEUE_BYTES,
        level: None,
        sealing: Some(Vec::new()),
        recipient_names: Vec::new(),
        keys: Rc::new(SiteKeys::generate()?),
        ticket: String::new(),
    })
}

/// Seconds for a dump, and for reading and verifying all of it.
async fn dump_and_load(source: &Path, medium: &Path, bytes: u64) -> Result<(f64, f64), Failure> {
    let ctx = disk::real::context();
    let plan = plan(medium, bytes)?;
    let keys = plan.keys.clone();
    let file = ctx.storage.open(source, disk::OpenMode::Read).await?;
    let cpu = cpu_seconds()?;
    let begun = Instant::now();
    let writer = SetWriter::create(&ctx, plan).await?;
    let (writer, next) = (Rc::new(writer), Rc::new(Cell::new(0)));
    // Like a copy session: a few readers side by side.
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (writer, file, next) = (writer.clone(), file.clone(), next.clone());
            tokio::task::spawn_local(async move {
                while next.get() < bytes {
                    let at = next.replace(next.get() + MIB);
                    let content = Bytes::from(file.read_at(at, MIB as usize).await?);
                    let (volume, first, count) = (VolumeId(0), at >> 16, MIB >> 16);
                    let run = Run { volume, first, count };
                    let data = GrainData { run, content: Content::Data(content) };
                    writer.push(data).await.map_err(std::io::Error::other)?;
                }
                Ok::<(), std::io::Error>(())
            })
        })
        .collect();
    for reader in readers {
        reader.await??;
    }
    let writer = Rc::into_inner(writer).ok_or("a reader did not end")?;
    writer.finish(FinishInfo::default()).await?;
    let dump = begun.elapsed().as_secs_f64();
    let (user, kernel) = cpu_seconds()?;
    println!("  dump: {:.2} s user, {:.2} s kernel", user - cpu.0, kernel - cpu.1);
    let begun = Instant::now();
    let dirs = [medium.to_owned()];
    let view = SetView::open(&ctx, &dirs, &[KeySource::Site(keys)], None).await?;
    let proof = view.verify(&|_| ()).await;
    let load = begun.elapsed().as_secs_f64();
    if proof.root != RootVerdict::Proven {
        return Err("the set does not verify".into());
    }
    std::fs::remove_dir_all(medium)?;
    Command::new("sync").status()?;
    Ok((dump, load))
}
