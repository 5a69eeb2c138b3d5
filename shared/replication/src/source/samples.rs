//! Samples for the check at attach: random grains that are clean and not zero, with their SHA-1.

use std::rc::Rc;

use grain::{CutId, GrainSet, Run, VolumeId, is_zero};
use sha1::{Digest, Sha1};

use super::Source;
use crate::Result;
use crate::protocol::Sample;

/// Draws tried for each sample wanted, before a sparse volume is given up on.
const DRAWS_A_SAMPLE: u32 = 8;
/// How far from a draw that hit a hole the next data is looked for, in grains.
const REACH_GRAINS: u64 = 4096;

/// Picks up to `wanted` samples for a replica that stands at `common`. What was written since then is
/// left out, wherever other replicas stand; so is what is written while samples are read.
pub(super) async fn pick(
    source: &Rc<Source>,
    wanted: u32,
    common: Option<CutId>,
) -> Result<Vec<Sample>> {
    let Some(common) = common else { return Ok(Vec::new()) };
    let written = source.written_since(common).await?;
    let geometry = source.volumes().geometry().clone();
    let total = geometry.total_grains();
    let mut seen = GrainSet::new();
    let mut out = Vec::new();
    for _ in 0..wanted.saturating_mul(DRAWS_A_SAMPLE) {
        if out.len() as u32 >= wanted || seen.len() >= total {
            break;
        }
        let draw = u64::from_le_bytes(source.context().random()) % total;
        let Some((volume, grain)) = place(&geometry, draw) else { continue };
        let Some(grain) = next_data(source, volume, grain).await? else { continue };
        if written.contains(volume, grain) || !seen.insert(volume, grain) {
            continue;
        }
        let run = Run { volume, first: grain, count: 1 };
        let bytes = match source.volumes().read(run).await {
            Ok(bytes) => bytes,
            Err(error) => {
                // A bad place of the disk proves nothing about the replica.
                tracing::warn!(%error, place = source.volumes().place(run), "no sample");
                continue;
            }
        };
        if is_zero(&bytes) {
            continue;
        }
        let sha1 = source.context().offload(move || Sha1::digest(&bytes)).await.into();
        out.push(Sample { volume: volume.0, grain, sha1 });
    }
    // Bits are set before bytes are written: whatever was read too new shows by now.
    let written = source.written_since(common).await?;
    out.retain(|sample| !written.contains(VolumeId(sample.volume), sample.grain));
    Ok(out)
}

fn place(geometry: &grain::Geometry, mut draw: u64) -> Option<(VolumeId, u64)> {
    for (volume, _) in geometry.iter() {
        let grains = geometry.grains(volume);
        if draw < grains {
            return Some((volume, draw));
        }
        draw -= grains;
    }
    None
}

/// The grain at `grain`, or the first after the hole that it lies in, if that is not far.
async fn next_data(source: &Source, volume: VolumeId, grain: u64) -> Result<Option<u64>> {
    let end = source.volumes().geometry().grains(volume);
    let count = REACH_GRAINS.min(end - grain);
    let hole = source.volumes().hole_at(Run { volume, first: grain, count }).await?;
    Ok((hole < count).then_some(grain + hole))
}
