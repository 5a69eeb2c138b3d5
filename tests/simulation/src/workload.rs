//! The applications: clients of the source's volumes, which write, read, trim and flush as the NBD
//! server would let them, several requests at a time, and tell the oracle what they were answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::simulated::SplitMix64;
use grain::VolumeId;
use replication::Error;
use replication::source::{Change, Source, Tried, Written};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::cells::{self, CELL};
use crate::event;
use crate::plan::Site;
use crate::world::World;

/// The longest that a request may take in a world where no operation takes longer than a second and
/// no process hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the clients in the process of the source.
pub fn begin(world: &Rc<World>, source: &Rc<Source>) {
    for _ in 0..world.shape.clients {
        let client = Client {
            world: world.clone(),
            source: source.clone(),
            random: std::cell::RefCell::new(world.split()),
        };
        tokio::task::spawn_local(async move { client.run().await });
    }
}

/// The requests that all clients together may still make.
pub struct Allowance {
    left: Cell<u64>,
    ended: Cell<bool>,
    changed: Notify,
}

impl Allowance {
    /// So many for a start.
    pub fn of(requests: u64) -> Allowance {
        Allowance { left: Cell::new(requests), ended: Cell::new(false), changed: Notify::new() }
    }

    /// More of them.
    pub fn add(&self, requests: u64) {
        self.left.set(self.left.get() + requests);
        self.changed.notify_waiters();
    }

    /// No more, for good.
    pub fn end(&self) {
        self.ended.set(true);
        self.changed.notify_waiters();
    }

    fn take(&self) {
        self.left.set(self.left.get().saturating_sub(1));
    }

    /// Waits until there are some.
    async fn some(&self) -> Asked {
        let mut answer = Asked::AtOnce;
        while !self.ended.get() && self.left.get() == 0 {
            self.changed.notified().await;
            answer = Asked::Waited;
        }
        if self.ended.get() { Asked::NoMore } else { answer }
    }
}

/// What came of asking for a request.
enum Asked {
    AtOnce,
    Waited,
    NoMore,
}

struct Client {
    world: Rc<World>,
    source: Rc<Source>,
    random: std::cell::RefCell<SplitMix64>,
}

/// Of `n` places, one by a zipf law of exponent near 1: place k is drawn about 1/k as often as the
/// first. The places are scattered over the volume.
fn zipf(random: &mut SplitMix64, n: u64) -> u64 {
    let unit = random.below(1 << 20) as f64 / (1 << 20) as f64;
    let rank = ((n as f64 + 1.0).powf(unit) - 1.0) as u64;
    (rank.min(n - 1)).wrapping_mul(7) % n
}

impl Client {
    async fn run(self) {
        let world = self.world.clone();
        loop {
            let pause = self.below(world.shape.pause_us);
            tokio::time::sleep(Duration::from_micros(pause)).await;
            match world.requests.some().await {
                Asked::AtOnce => {}
                // Not all of them at the very instant at which there is more.
                Asked::Waited => continue,
                Asked::NoMore => return,
            }
            for _ in 0..1 + self.below(4) / 2 {
                world.requests.take();
                self.request();
            }
        }
    }

    fn below(&self, n: u64) -> u64 {
        self.random.borrow_mut().below(n)
    }

    /// A range of whole cells of a volume; often of whole sectors or grains, too.
    fn range(&self) -> (VolumeId, u64, u64) {
        let random = &mut *self.random.borrow_mut();
        let volumes = &self.world.shape.volumes;
        let volume = random.below(volumes.len() as u64);
        let bytes = volumes[volume as usize];
        let grain = crate::shape::GRAIN;
        let unit = [CELL, 512, grain][random.below(3) as usize];
        let grains = bytes.div_ceil(grain);
        // Of a large volume, a few grains around the border of its regions.
        let first = match grains {
            0..=64 => zipf(random, grains),
            _ => (zipf(random, 24) + 1_012 + random.below(2) * (grains - 1_036)).min(grains - 1),
        };
        let first = first * grain;
        let offset = first + random.below(grain / unit) * unit;
        let offset = offset.min((bytes - 1) / CELL * CELL);
        let len = (1 + random.below(self.world.shape.longest.div_ceil(unit))) * unit;
        let len = len.min(bytes - offset);
        (VolumeId(volume as u16), offset, len)
    }

    /// Sends a request; its answer is waited for elsewhere.
    fn request(&self) {
        let what = self.below(24);
        let request = Request::to(&self.world, &self.source);
        let (volume, offset, len) = self.range();
        let chance = self.below(4);
        drop(match what {
            0..=11 => request.write(volume, offset, len, false, None),
            12 | 13 => request.write(volume, offset, len, true, None),
            14 => {
                let after = Duration::from_micros(self.below(2_000));
                request.write(volume, offset, len, false, Some(after))
            }
            15..=17 => request.zero(volume, offset, len, chance),
            18..=20 => request.flush(),
            _ => request.read(volume, offset, len),
        });
    }
}

/// One request of a client; its answer is waited for in a task of the process that it is made in.
pub struct Request {
    world: Rc<World>,
    source: Rc<Source>,
}

impl Request {
    /// A request to this source.
    pub fn to(world: &Rc<World>, source: &Rc<Source>) -> Request {
        Request { world: world.clone(), source: source.clone() }
    }

    /// Runs the request; an answer that does not come is a hang.
    fn run(
        self,
        name: &'static str,
        work: impl Future<Output = Result<(), Error>> + 'static,
    ) -> JoinHandle<()> {
        let world = self.world;
        tokio::task::spawn_local(async move {
            let begun = Instant::now();
            let mut work = std::pin::pin!(work);
            let outcome = loop {
                tokio::select! {
                    biased;
                    outcome = &mut work => break Some(outcome),
                    () = tokio::time::sleep(PATIENCE) => {}
                }
                let throttled = world.shape.preserve == 1;
                if !throttled && begun.elapsed() > PATIENCE * 3 {
                    break None;
                }
            };
            match outcome {
                Some(Ok(())) => world.trace.count(name),
                Some(Err(e)) => event!(world, "request: refused", "{name} {e}"),
                None => world.fail("alive", format!("{name} was not answered in {PATIENCE:?}")),
            }
        })
    }

    /// A write of whole cells; `leaves` is when the client does not wait any longer.
    pub fn write(
        self,
        volume: VolumeId,
        offset: u64,
        len: u64,
        durable: bool,
        leaves: Option<Duration>,
    ) -> JoinHandle<()> {
        let (world, source) = (self.world.clone(), self.source.clone());
        let number = world.oracle.issue(volume, offset, len, false);
        let mut data = vec![0; len as usize];
        cells::fill(number, volume.0, offset, &mut data);
        world.trace.note(format_args!("write {number} {} {offset}+{len} {durable}", volume.0));
        let inline = !durable && leaves.is_none();
        self.run("request: write", async move {
            let now = match inline {
                true => source.write_now(volume, offset, &data)?,
                false => Written::NotNow(Tried::default()),
            };
            let tried = match now {
                Written::Done => {
                    world.trace.count("request: answered inline");
                    world.oracle.acknowledge(number, false);
                    return Ok(());
                }
                Written::Waits(tickets) => {
                    world.trace.count("request: written inline, waits for the peer");
                    let outcome = source.confirm(tickets).await;
                    note(&world, number, false, &outcome);
                    return outcome;
                }
                Written::NotNow(tried) => tried,
            };
            let change = Change::Data(Bytes::from(data));
            let writing = source.write_on(tried, volume, offset, change, durable);
            let outcome = match leaves {
                None => writing.await,
                Some(after) => match tokio::time::timeout(after, writing).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        world.trace.count("request: the client left before its answer");
                        return Ok(());
                    }
                },
            };
            note(&world, number, durable, &outcome);
            outcome
        })
    }

    /// Zeros: written (0, 1), punched (2), punched and durable (3).
    pub fn zero(self, volume: VolumeId, offset: u64, len: u64, how: u64) -> JoinHandle<()> {
        let (world, source) = (self.world.clone(), self.source.clone());
        let number = world.oracle.issue(volume, offset, len, true);
        world.trace.note(format_args!("zero {number} {} {offset}+{len}", volume.0));
        self.run("request: zero or trim", async move {
            let change = Change::Zero { len, punch: how > 1, fast: false };
            let durable = how == 3;
            let outcome = source.write(volume, offset, change, durable).await;
            note(&world, number, durable, &outcome);
            outcome
        })
    }

    /// A flush.
    pub fn flush(self) -> JoinHandle<()> {
        let (world, source) = (self.world.clone(), self.source.clone());
        self.run("request: flush", async move {
            let begun = world.oracle.flush_begins();
            let (told, asked) = (world.licence.sync_told.get(), Instant::now());
            let outcome = source.flush().await;
            if !world.node(Site::Source).is_up() {
                return outcome;
            }
            let befell = world.licence.sync_befell.get();
            let meanwhile = befell.is_some_and(|at| asked < at && at < Instant::now());
            // In sync mode its own sync may have gone well long before: it waits for the replica.
            let meanwhile = meanwhile && !world.shape.keeping.streams_at_all();
            match &outcome {
                // The kernel tells of a lost write once: a second sync that succeeds proves nothing.
                Ok(()) if told || meanwhile => {
                    world.fail("flushed_is_kept", "a flush is answered well after one that failed");
                }
                Ok(()) => world.oracle.flushed(begun),
                Err(_) => world.licence.sync_told.set(befell.is_some()),
            }
            outcome
        })
    }

    /// A read of whole cells.
    pub fn read(self, volume: VolumeId, offset: u64, len: u64) -> JoinHandle<()> {
        let (world, source) = (self.world.clone(), self.source.clone());
        self.run("request: read", async move {
            let begun = world.oracle.flush_begins();
            let mut bytes = vec![0; len as usize];
            if !source.read_now(volume, &mut bytes, offset)? {
                bytes = source.read(volume, offset, len as usize).await?.to_vec();
            }
            if world.node(Site::Source).is_up() {
                let right = world.oracle.check_read(volume, offset, &bytes, begun);
                if let Err(words) = right {
                    world.fail("flushed_is_kept", format!("a read is wrong: {words}"));
                }
            }
            Ok(())
        })
    }
}

fn note(world: &World, number: u32, durable: bool, outcome: &Result<(), Error>) {
    match outcome {
        // A process that is dead answers nobody.
        _ if !world.node(Site::Source).is_up() => {}
        Ok(()) => world.oracle.acknowledge(number, durable),
        Err(_) => world.oracle.failed(number),
    }
}
