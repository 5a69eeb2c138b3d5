//! Fingerprints of the replica's own volumes (DESIGN.md section 11): of a set that was loaded whole,
//! and of a committed cut. They are read back from the volumes, so that they tell what stands there,
//! not what passed by. See `docs/decisions/0090-when-a-commit-is-fingerprinted.md`.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use grain::fingerprint::{Fingerprint, FingerprintPlan, FingerprintSum, SAMPLE_BYTES};
use grain::{CutId, Geometry, GrainSet, VolumeId};
use media::SetView;

use super::Replica;
use crate::state::Generation;
use crate::{Error, Result};

impl Replica {
    /// Compares what was loaded with the fingerprint that the source signed, once the set was loaded
    /// whole. A mismatch is recorded: from then on only a comparison brings the replica back.
    ///
    /// Gives nothing where there is nothing to compare: some grains still wait or were damaged, or the
    /// volumes have gone on since. The caller holds the base.
    pub(super) async fn check_seed(&self, view: &SetView) -> Result<Option<Fingerprint>> {
        let seed = self.store.with(|s| s.replica.as_ref().and_then(|r| r.seed.clone()));
        let Some(seed) = seed.filter(|seed| seed.set == view.signed().set()) else {
            return Ok(None);
        };
        let listed = view.listed();
        let lacks_some = self.unloaded.intersects(&listed) || self.damaged.intersects(&listed);
        if lacks_some || self.pull.borrow().is_some() || self.head() != Some(seed.cut) {
            return Ok(None);
        }
        let found = match seed.loaded_fingerprint {
            Some(found) => found,
            None => {
                let found = self.fingerprint_of_base(seed.cut, Some(&listed)).await?;
                self.store
                    .update(|s| {
                        if let Some(seed) = s.replica.as_mut().and_then(|r| r.seed.as_mut()) {
                            seed.loaded_fingerprint = Some(found);
                        }
                    })
                    .await?;
                found
            }
        };
        if found != seed.fingerprint {
            return Err(Error::SeedFingerprint(mismatch(seed.fingerprint, found)));
        }
        Ok(Some(found))
    }

    /// Refuses to build on a seed whose fingerprint differs.
    pub(super) fn trusted_seed(&self) -> Result<()> {
        let seed = self.store.with(|s| s.replica.as_ref().and_then(|r| r.seed.clone()));
        match seed.as_ref().and_then(|seed| Some((seed, seed.loaded_fingerprint?))) {
            Some((seed, found)) if seed.differs() => {
                Err(Error::SeedFingerprint(mismatch(seed.fingerprint, found)))
            }
            _ => Ok(()),
        }
    }

    /// Takes the fingerprint of the committed cut, unless it was taken before or the volumes are not
    /// exactly that cut. Everything committed has been applied.
    pub(super) async fn take_generation(self: &Rc<Self>) -> Result<()> {
        let _one = self.base.lock().await;
        let taken = self.store.with(|s| s.replica.as_ref().and_then(|r| r.generation));
        let Some(cut) = self.head() else { return Ok(()) };
        if !self.is_consistent() || taken.is_some_and(|taken| taken.cut == cut) {
            return Ok(());
        }
        let fingerprint = self.fingerprint_of_base(cut, None).await?;
        let unix_ms = self.ctx.unix_ms();
        self.store
            .update(|s| {
                if let Some(replica) = &mut s.replica {
                    replica.generation = Some(Generation { cut, unix_ms, fingerprint });
                }
            })
            .await
    }

    /// Reads the samples of a cut's plan, those that lie in grains of `only`.
    async fn fingerprint_of_base(
        &self,
        cut: CutId,
        only: Option<&GrainSet>,
    ) -> Result<Fingerprint> {
        let geometry = self.volumes.geometry();
        let plan = Arc::new(FingerprintPlan::of_cut(geometry, cut));
        let mut sum = FingerprintSum::new();
        for (volume, open) in self.volumes.iter() {
            for range in pieces(&plan, geometry, volume, only) {
                let len = (range.end - range.start) as usize;
                let bytes = open.file.read_at(range.start, len).await;
                let bytes = bytes.map_err(Error::io("read", &open.path))?;
                let plan = plan.clone();
                let add = move || {
                    plan.add(&mut sum, volume, range.start, &bytes);
                    sum
                };
                sum = self.ctx.offload(add).await;
            }
        }
        Ok(plan.so_far(&sum))
    }
}

/// The sampled byte ranges of a volume, neighbours together, none longer than a sample.
fn pieces(
    plan: &FingerprintPlan,
    geometry: &Geometry,
    volume: VolumeId,
    only: Option<&GrainSet>,
) -> Vec<Range<u64>> {
    let shift = geometry.grain.shift();
    let mut pieces: Vec<Range<u64>> = Vec::new();
    for chunk in plan.covers(volume, 0, u64::MAX) {
        if only.is_some_and(|only| !only.contains(volume, chunk.start >> shift)) {
            continue;
        }
        match pieces.last_mut() {
            Some(last) if last.end == chunk.start && chunk.end - last.start <= SAMPLE_BYTES => {
                last.end = chunk.end;
            }
            _ => pieces.push(chunk),
        }
    }
    pieces
}

fn mismatch(signed: Fingerprint, found: Fingerprint) -> String {
    format!(
        "every grain of the set was checked and written, yet the volumes read back as {found}, and \
         the source signed {signed}: the disk does not give back what was written, or somebody else \
         writes it"
    )
}
