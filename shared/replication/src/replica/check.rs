//! Reading the replica's own base: samples at attach, digests for what is compared.

use std::rc::Rc;

use grain::{Content, GrainData, Run, VolumeId};
use sha1::{Digest, Sha1};

use super::Replica;
use crate::protocol::Sample;
use crate::source::grain_digests;
use crate::{Error, Result};

impl Replica {
    /// Compares samples of the source with the base: how many could be compared, and which differ.
    pub(super) async fn compare_samples(
        &self,
        samples: &[Sample],
    ) -> Result<(u32, Vec<(u16, u64)>)> {
        let mut skip = self.damaged.set();
        skip.union_with(&self.unloaded.set());
        skip.union_with(&self.direct_mask());
        let mut compared = 0;
        let mut different = Vec::new();
        for sample in samples {
            let volume = VolumeId(sample.volume);
            if sample.grain >= self.volumes.geometry().grains(volume) {
                return Err(Error::Peer("a sample outside the volumes".to_owned()));
            }
            if skip.contains(volume, sample.grain) {
                continue;
            }
            let run = Run { volume, first: sample.grain, count: 1 };
            let bytes = self.volumes.read(run).await?;
            let sha1: [u8; 20] = self.ctx.offload(move || Sha1::digest(&bytes)).await.into();
            compared += 1;
            if sha1 != sample.sha1 {
                different.push((sample.volume, sample.grain));
            }
        }
        Ok((compared, different))
    }

    /// The digests of the grains of a run, 32 bytes each.
    pub(super) async fn digests(self: &Rc<Self>, run: Run) -> Result<Vec<u8>> {
        let geometry = self.volumes.geometry().clone();
        let holes = self.volumes.hole_at(run).await?;
        let mut out = Vec::with_capacity(run.count as usize * 32);
        if holes > 0 {
            let hole = Run { count: holes, ..run };
            let data = GrainData { run: hole, content: Content::Zero };
            out.extend(grain_digests(&geometry, &data).concat());
        }
        let mut first = run.first + holes;
        // In pieces of a few MiB, so that memory stays bounded whatever the grain.
        let most = ((4 << 20) >> geometry.grain.shift()).max(1);
        while first < run.end() {
            let piece = Run { volume: run.volume, first, count: most.min(run.end() - first) };
            let bytes = self.volumes.read(piece).await?;
            let geometry = geometry.clone();
            let data = GrainData { run: piece, content: Content::Data(bytes) };
            let digests = self.ctx.offload(move || grain_digests(&geometry, &data)).await;
            out.extend(digests.concat());
            first = piece.end();
        }
        Ok(out)
    }
}
