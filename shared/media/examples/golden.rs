//! Writes the small set that `tests/golden.rs` reads: `golden DIR` makes `DIR/medium1`, `medium2`
//! and `peer.key`. Run once for each released version of the format; what it made is never made again.

use std::path::PathBuf;
use std::rc::Rc;

use grain::{
    Content, CutId, Geometry, GrainData, GrainSize, RelationshipId, Run, SetId, VolumeId,
    VolumeShape,
};
use media::{CutFacts, FinishInfo, SetPlan, SetWriter};
use wire::{Recipient, SiteKeys};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: golden DIR")?);
    let dir = std::path::absolute(dir)?;
    std::fs::create_dir_all(&dir)?;
    let peer = SiteKeys::generate()?;
    std::fs::write(dir.join("peer.key"), peer.to_file_bytes().as_slice())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, write(&dir, &peer))
}

async fn write(dir: &std::path::Path, peer: &SiteKeys) -> Result<(), Failure> {
    let ctx = disk::real::context();
    let volume = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
    let volumes = vec![volume("data", 1 << 20), volume("log", 10_000)];
    let plan = SetPlan {
        set: SetId::from_bytes([1; 16]),
        relationship: RelationshipId::from_bytes([2; 16]),
        relationship_name: "golden".into(),
        geometry: Geometry { grain: GrainSize::MIN, volumes },
        cut: CutFacts { cut: CutId::from_bytes([3; 16]), unix_ms: 4, lineage: vec![5, 6, 7] },
        basis: None,
        media: vec![dir.join("medium1"), dir.join("medium2")],
        segment_bytes: 64 << 10,
        queue_bytes: 1 << 20,
        level: Some(1),
        sealing: Some(vec![Recipient::Site(peer.identity())]),
        recipient_names: vec!["the golden peer".into()],
        keys: Rc::new(SiteKeys::generate()?),
        ticket: "a ticket".into(),
    };
    let writer = SetWriter::create(&ctx, plan).await?;
    let run = |volume, first, count| Run { volume: VolumeId(volume), first, count };
    let text = b"golden ".iter().copied().cycle().take(8192).collect::<Vec<u8>>();
    let mut noise = vec![0; 12_288];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    for (run, content) in [
        (run(0, 0, 2), Content::Data(text.into())),
        (run(0, 2, 3), Content::Data(noise.into())),
        (run(0, 5, 251), Content::Zero),
        (run(1, 0, 3), Content::Data(vec![0x5a; 10_000].into())),
    ] {
        writer.push(GrainData { run, content }).await?;
    }
    writer.finish(FinishInfo::default()).await?;
    Ok(())
}
