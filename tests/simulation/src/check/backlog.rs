//! A source that was promoted serves what waits in its journal at once: reads show it, writes come over it and
//! stay, whatever crashes while it is brought into the volumes.

use std::rc::Rc;

use disk::simulated::{Crash, FileContent};
use grain::VolumeId;
use replication::source::{Change, Source};

use super::promotion::{Checked, Drawn, no};
use crate::oracle::difference;
use crate::plan::Site;
use crate::shape::GRAIN;
use crate::world::World;

/// What the volumes of a source show to an application.
pub async fn seen(world: &World, source: &Source) -> Checked<Vec<FileContent>> {
    let bytes = shown(world, source).await?;
    Ok(bytes.iter().map(|volume| FileContent::from(&volume[..])).collect())
}

async fn shown(world: &World, source: &Source) -> Checked<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (number, volume) in world.geometry.volumes.iter().enumerate() {
        let read = source.read(VolumeId(number as u16), 0, volume.bytes as usize).await;
        all.push(read.map_err(no("a source that was just promoted cannot be read"))?.to_vec());
    }
    Ok(all)
}

fn same(expected: &[Vec<u8>], now: &[FileContent], when: &str) -> Checked {
    let expected: Vec<_> = expected.iter().map(|volume| FileContent::from(&volume[..])).collect();
    match difference(&expected, now, GRAIN) {
        Some(words) => Err(format!("served from the journal, {when}: {words}")),
        None => Ok(()),
    }
}

impl Drawn {
    /// Writes while what waits is brought into the volumes, with crashes in between; gives the source that
    /// runs in the end.
    pub(super) async fn work_off(
        &mut self,
        world: &World,
        mut source: Rc<Source>,
    ) -> Checked<Rc<Source>> {
        world.trace.count("promotion: served from the journal");
        let mut expected = shown(world, &source).await?;
        for _ in 0..self.random.below(4) {
            for _ in 0..self.random.below(4) {
                self.overwrite(&source, &mut expected).await?;
            }
            same(&expected, &seen(world, &source).await?, "an application sees something else")?;
            if self.random.below(2) == 0 {
                continue;
            }
            world.trace.count("promotion: crashed while it served from the journal");
            let mut kind = Crash::Kill;
            if self.random.below(2) == 0 {
                source.flush().await.map_err(no("a source that was just promoted cannot flush"))?;
                kind = Crash::PowerCut;
            }
            drop(source);
            self.twin.machine(Site::Replica).crash_seeded(kind, self.random.next_u64());
            source = self.source(world, Site::Replica).await?;
            same(&expected, &seen(world, &source).await?, "after a crash it is something else")?;
        }
        source.in_the_volumes().await.map_err(no("what waits does not get into the volumes"))?;
        let volumes = world.volumes_of(self.twin.machine(Site::Replica));
        same(&expected, &volumes, "the volumes hold something else in the end")?;
        Ok(source)
    }

    async fn overwrite(&mut self, source: &Rc<Source>, expected: &mut [Vec<u8>]) -> Checked {
        let number = self.random.below(expected.len() as u64) as usize;
        let Some(image) = expected.get_mut(number) else { return Ok(()) };
        let from = self.random.below(image.len() as u64 / 512) as usize * 512;
        let len = (512 * (1 + self.random.below(20)) as usize).min(image.len() - from);
        let change = match self.random.below(4) {
            0 => Change::Zero { len: len as u64, punch: true, fast: false },
            _ => Change::Data(vec![self.random.next_u64() as u8; len].into()),
        };
        match &change {
            Change::Data(bytes) => image[from..from + len].copy_from_slice(bytes),
            Change::Zero { .. } => image[from..from + len].fill(0),
        }
        let durable = self.random.below(4) == 0;
        let written = source.clone().write(VolumeId(number as u16), from as u64, change, durable);
        written.await.map_err(no("a source that was just promoted takes no write"))
    }
}
