//! A source that was promoted serves what waits in its journal at once: reads show it, writes come over it and
//! stay, whatever crashes while it is brought into the volumes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use disk::simulated::{Crash, Fault, FileContent, Op, OpKind, SimMachine};
use grain::VolumeId;
use replication::source::{Change, Source};

use super::promotion::{Checked, Drawn, no};
use crate::oracle::difference;
use crate::plan::Site;
use crate::shape::GRAIN;
use crate::world::World;

/// What the volumes of a source show to an application.
pub async fn seen(world: &World, source: &Source) -> Checked<Vec<FileContent>> {
    Ok(contents(&shown(world, source).await?))
}

fn contents(volumes: &[Vec<u8>]) -> Vec<FileContent> {
    volumes.iter().map(|volume| FileContent::from(&volume[..])).collect()
}

async fn shown(world: &World, source: &Source) -> Checked<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (number, volume) in world.geometry.volumes.iter().enumerate() {
        let read = source.read(VolumeId(number as u16), 0, volume.bytes as usize).await;
        all.push(read.map_err(no("a source that was just promoted cannot be read"))?.to_vec());
    }
    Ok(all)
}

/// What must be there: after a power cut each sector as it was flushed, or as something wrote it since.
struct Expected {
    now: Vec<Vec<u8>>,
    flushed: Vec<Vec<u8>>,
    /// Writes since the flush; the last one may not have been answered.
    since: Vec<Write>,
}

struct Write {
    volume: usize,
    from: usize,
    /// Of every sector of it.
    sector: [u8; SECTOR],
    len: usize,
    durable: bool,
}

const SECTOR: usize = 512;

impl Expected {
    fn of(now: Vec<Vec<u8>>) -> Expected {
        Expected { flushed: now.clone(), now, since: Vec::new() }
    }

    fn lay(&mut self, write: Write) {
        for sector in self.now[write.volume][write.from..write.from + write.len].chunks_mut(SECTOR)
        {
            sector.copy_from_slice(&write.sector[..sector.len()]);
        }
        self.since.push(write);
    }

    fn flush(&mut self) {
        self.flushed.clone_from(&self.now);
        self.since.clear();
    }

    /// Whether this is a state that a crash may leave; it counts from here on.
    fn crashed(&mut self, kind: Crash, answered: bool, now: Vec<Vec<u8>>) -> Checked {
        // A killed process loses nothing that was answered, a power cut nothing that was said to be durable.
        let killed = !matches!(kind, Crash::PowerCut);
        let sure = |at: usize, write: &Write| match at + 1 == self.since.len() {
            true => answered && (killed || write.durable),
            false => killed || write.durable,
        };
        for (volume, bytes) in now.iter().enumerate() {
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                let from = at * SECTOR;
                let mut may: Vec<&[u8]> = vec![&self.flushed[volume][from..from + sector.len()]];
                for (number, write) in self.since.iter().enumerate() {
                    let range = write.from..write.from + write.len;
                    if write.volume != volume || !range.contains(&from) {
                        continue;
                    }
                    if sure(number, write) {
                        may.clear();
                    }
                    may.push(&write.sector[..sector.len()]);
                }
                if !may.contains(&sector) {
                    let words = format!("sector {at} of volume {volume} holds {:?}", sector[0]);
                    return Err(format!("served from the journal, after a {kind:?}: {words}"));
                }
            }
        }
        *self = Expected::of(now);
        Ok(())
    }
}

fn slow_sync(op: &Op, slow: Duration) -> Fault {
    match op.kind {
        OpKind::Sync if op.path.starts_with("/volumes") => Fault::Slow(slow),
        _ => Fault::None,
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
        let machine = self.twin.machine(Site::Replica).clone();
        machine.set_latency(Duration::ZERO..Duration::from_millis(2));
        let mut expected = Expected::of(shown(world, &source).await?);
        for _ in 0..self.random.below(5) {
            let kind = if self.random.below(2) == 0 { Crash::Kill } else { Crash::PowerCut };
            let crashed = self.arm(&machine, kind);
            let mut answered = true;
            for _ in 0..1 + self.random.below(5) {
                answered = self.change(&source, &mut expected).await;
                if crashed.get() {
                    break;
                }
                if !answered {
                    return Err("a source that was just promoted takes no write".into());
                }
            }
            if !crashed.get() {
                let now = shown(world, &source).await;
                if !crashed.get() && now? != expected.now {
                    return Err(
                        "served from the journal, an application sees something else".into()
                    );
                }
            }
            self.slow_to_sync();
            if !crashed.get() {
                continue;
            }
            world.trace.count("promotion: crashed while it served from the journal");
            drop(source);
            source = self.source(world, Site::Replica).await?;
            expected.crashed(kind, answered, shown(world, &source).await?)?;
        }
        machine.set_latency(Duration::ZERO..Duration::ZERO);
        machine.clear_fault_hook();
        source.in_the_volumes().await.map_err(no("what waits does not get into the volumes"))?;
        let volumes = world.volumes_of(&machine);
        if shown(world, &source).await? != expected.now {
            return Err("all is in the volumes, and an application sees something else".into());
        }
        match difference(&contents(&expected.now), &volumes, GRAIN) {
            Some(words) => Err(format!("what waited is not in the volumes: {words}")),
            None => Ok(source),
        }
    }

    /// The volumes are slow to sync, so that what waits does so for long.
    pub(super) fn slow_to_sync(&mut self) {
        let slow = Duration::from_millis(self.random.below(5_000));
        self.twin.machine(Site::Replica).set_fault_hook(move |op| slow_sync(op, slow));
    }

    /// The same, and the machine crashes at one of its next operations.
    fn arm(&mut self, machine: &SimMachine, kind: Crash) -> Rc<Cell<bool>> {
        let (at, seed) = (machine.operations() + self.random.below(40), self.random.next_u64());
        let slow = Duration::from_millis(self.random.below(5_000));
        let crashed = Rc::new(Cell::new(false));
        let (crashing, told) = (machine.clone(), crashed.clone());
        machine.set_fault_hook(move |op| {
            if op.number == at {
                told.set(true);
                crashing.crash_seeded(kind, seed);
            }
            slow_sync(op, slow)
        });
        crashed
    }

    /// A write, or a flush, of its application; whether it was answered.
    async fn change(&mut self, source: &Rc<Source>, expected: &mut Expected) -> bool {
        if self.random.below(5) == 0 {
            let flushed = source.flush().await.is_ok();
            if flushed {
                expected.flush();
            }
            return flushed || expected.since.is_empty();
        }
        let volume = self.random.below(expected.now.len() as u64) as usize;
        let bytes = expected.now[volume].len();
        let from = self.random.below((bytes / SECTOR) as u64) as usize * SECTOR;
        let len = (SECTOR * (1 + self.random.below(20)) as usize).min(bytes - from);
        let (change, byte) = match self.random.below(4) {
            0 => (Change::Zero { len: len as u64, punch: true, fast: false }, 0),
            _ => {
                let byte = self.random.next_u64() as u8;
                (Change::Data(vec![byte; len].into()), byte)
            }
        };
        let durable = self.random.below(4) == 0;
        expected.lay(Write { volume, from, sector: [byte; SECTOR], len, durable });
        let id = VolumeId(volume as u16);
        source.clone().write(id, from as u64, change, durable).await.is_ok()
    }
}
