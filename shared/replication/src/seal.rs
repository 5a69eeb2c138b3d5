//! The seal of a clean stop: sizes and sampled digests of the volumes, compared at the next start, so
//! that a base touched behind our back is found and named.

use grain::{Run, VolumeId};

use crate::state::{Seal, VolumeSeal};
use crate::volumes::Volumes;
use crate::{Error, Result};
use disk::Context;

/// Samples of each volume.
const SAMPLES: u64 = 16;

/// Makes the seal; the volumes are synced and nobody writes.
pub(crate) async fn make(ctx: &Context, volumes: &Volumes) -> Result<Seal> {
    let mut seal = Seal { unix_ms: ctx.unix_ms(), volumes: Vec::new() };
    for (id, volume) in volumes.iter() {
        let grains = volumes.geometry().grains(id);
        let mut one = VolumeSeal { bytes: volume.bytes, samples: Vec::new() };
        for i in 0..SAMPLES.min(grains) {
            // The first and the last grain always, for labels and tables live there.
            let at = match i {
                0 => 0,
                1 => grains - 1,
                _ => u64::from_le_bytes(ctx.random()) % grains,
            };
            match digest(volumes, id, at).await {
                Ok(digest) => one.samples.push((at, digest)),
                // A bad place must not keep the site from stopping.
                Err(error) => tracing::warn!(%error, "not sealed"),
            }
        }
        seal.volumes.push(one);
    }
    Ok(seal)
}

/// Compares the volumes with the seal; the first difference found is named.
pub(crate) async fn check(volumes: &Volumes, seal: &Seal) -> Result<()> {
    for ((id, volume), sealed) in volumes.iter().zip(&seal.volumes) {
        for (at, expected) in &sealed.samples {
            let found = match digest(volumes, id, *at).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "a sealed grain cannot be read any more");
                    continue;
                }
            };
            if found != *expected {
                let grain = volumes.geometry().grain.bytes();
                return Err(Error::Volume {
                    alias: volume.alias.clone(),
                    detail: format!(
                        "it was changed while nobody tracked it (the grain at byte {})",
                        at * grain
                    ),
                });
            }
        }
    }
    Ok(())
}

async fn digest(volumes: &Volumes, volume: VolumeId, at: u64) -> Result<String> {
    let bytes = volumes.read(Run { volume, first: at, count: 1 }).await?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
