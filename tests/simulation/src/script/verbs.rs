//! What a script does: the verbs of the operator and requests of an application, each waited for. A verb
//! that fails says why in words, which is fine; one that does not end is not.

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::Crash;
use grain::VolumeId;
use replication::Result;
use replication::state::Mode;
use tokio::task::JoinHandle;

use crate::life;
use crate::plan::Site;
use crate::steps::Shipment;
use crate::verbs::connect::{How, connect, set_mode};
use crate::verbs::{courier, dump, load};
use crate::weather::LinkPlan;
use crate::workload::Request;
use crate::world::World;

/// The virtual time within which any verb ends: longer than a link may take to be noticed as dead.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// How long a script waits for both processes: some attempts to start.
const STARTS: Duration = Duration::from_millis(120);

async fn wait_for(most: Duration, done: impl Fn() -> bool) -> bool {
    let begun = tokio::time::Instant::now();
    while !done() {
        if begun.elapsed() >= most {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Waits until both sites run; not for ever, for a disk may be broken.
pub async fn up(world: &Rc<World>) {
    let up = || {
        let roles = world.source_role.borrow().is_some() && world.replica_role.borrow().is_some();
        roles && world.node(Site::Source).is_up() && world.node(Site::Replica).is_up()
    };
    wait_for(STARTS, || world.has_failed() || up()).await;
}

/// The answer of a task in a process; none when the process went away.
async fn ended<T>(world: &World, what: &str, task: Option<JoinHandle<T>>) -> Option<T> {
    match tokio::time::timeout(PATIENCE, task?).await {
        Ok(answer) => answer.ok(),
        Err(_) => {
            world.fail("alive", format!("{what} does not end in {PATIENCE:?}"));
            None
        }
    }
}

/// A request of an application, if the source runs.
async fn request(
    world: &Rc<World>,
    what: &str,
    make: impl FnOnce(Request) -> JoinHandle<()> + 'static,
) {
    let source = world.source_role.borrow().clone();
    let (Some(source), Some(process)) = (source, world.node(Site::Source).process()) else {
        return;
    };
    let request = Request::to(world, &source);
    let asked = process.spawn(async move { drop(make(request).await) });
    ended(world, what, asked).await;
}

/// A write of whole cells.
pub async fn write(world: &Rc<World>, volume: u16, offset: u64, len: u64, durable: bool) {
    let volume = VolumeId(volume);
    request(world, "a write", move |r| r.write(volume, offset, len, durable, None)).await;
}

/// Zeros, see [`Request::zero`].
pub async fn zero(world: &Rc<World>, volume: u16, offset: u64, len: u64, how: u64) {
    request(world, "a zero", move |r| r.zero(VolumeId(volume), offset, len, how)).await;
}

/// A flush.
pub async fn flush(world: &Rc<World>) {
    request(world, "a flush", Request::flush).await;
}

/// A read.
pub async fn read(world: &Rc<World>, volume: u16, offset: u64, len: u64) {
    request(world, "a read", move |r| r.read(VolumeId(volume), offset, len)).await;
}

/// A cut and housekeeping.
pub async fn cut(world: &Rc<World>) {
    dump::cut(world);
    tokio::time::sleep(LOOK * 20).await;
}

/// Begins a dump, and waits until it runs or was refused.
pub async fn dump_begins(world: &Rc<World>) {
    if world.source_role.borrow().is_some() {
        dump::begin(world);
        wait_for(PATIENCE, || world.dump.borrow().is_some() || !world.dumping.get()).await;
    }
}

/// Waits until no dump runs.
pub async fn dump_ends(world: &Rc<World>) {
    if !wait_for(PATIENCE, || !world.dumping.get()).await {
        world.fail("alive", "a dump does not end");
    }
}

/// A dump to its end.
pub async fn dump(world: &Rc<World>) {
    dump_begins(world).await;
    dump_ends(world).await;
}

/// Takes up an unfinished dump and waits for its end.
pub async fn resume(world: &Rc<World>) {
    dump::resume_later(world);
    tokio::time::sleep(LOOK * 2).await;
    dump_ends(world).await;
}

/// Cancels a dump, running or not.
pub async fn cancel(world: &Rc<World>) {
    dump::cancel(world);
    tokio::time::sleep(LOOK * 2).await;
    dump_ends(world).await;
}

/// The newest set travels to the replica.
pub async fn ship(world: &Rc<World>) {
    courier::ship(world, Shipment::Whole, 0).await;
}

/// Loads what has arrived, or of its media only those before `most`.
pub async fn load(world: &Rc<World>, most: usize) {
    let all = world.arrived.borrow().clone();
    world.arrived.borrow_mut().truncate(most);
    let loading = load::load(world, 0, 0);
    *world.arrived.borrow_mut() = all;
    ended(world, "a load", loading).await;
}

/// One session, waited for.
pub async fn connect_as(world: &Rc<World>, how: How) -> Option<Result<()>> {
    let session = connect(world, LinkPlan::calm(), how, 1);
    let answer = ended(world, "a session", session).await;
    Some(answer?.map(|_| ()))
}

/// A session until both sites are in step.
pub async fn attach(world: &Rc<World>) {
    connect_as(world, How { once: true, ..How::default() }).await;
}

/// The operator sets how the replica is kept.
pub async fn keep(world: &Rc<World>, mode: Mode) {
    set_mode(world, mode);
    tokio::time::sleep(LOOK * 20).await;
}

/// A session that lasts, until writes stream over it; not for ever, for something may be broken.
pub async fn streams(world: &Rc<World>) {
    drop(connect(world, LinkPlan::calm(), How::default(), 1));
    let streaming = || {
        let replica = world.replica_role.borrow();
        replica.as_ref().is_some_and(|replica| replica.stream_view().streaming.get())
    };
    wait_for(LOOK * 300, streaming).await;
}

/// The link breaks, and both sides notice.
pub async fn hang_up(world: &Rc<World>) {
    world.cable.borrow_mut().take().iter().for_each(wire::link::Cable::cut);
    tokio::time::sleep(LOOK * 20).await;
}

/// A site stops cleanly. It starts again by itself unless it is held.
pub async fn stop(world: &Rc<World>, site: Site) {
    if world.node(site).process().is_none() {
        return;
    }
    life::stop(world, site, Duration::from_millis(1)).await;
    if !wait_for(PATIENCE, || !world.node(site).is_up()).await {
        world.fail("alive", format!("the {} does not stop", site.name()));
    }
    // Its tasks are gone only then.
    wait_for(LOOK * 50, || world.node(site).process.borrow().is_none()).await;
}

/// A process is killed, or its machine loses power; it starts again.
pub async fn crash(world: &Rc<World>, site: Site, kind: Crash, seed: u64) {
    let node = world.node(site);
    if node.is_up() {
        node.crash(world, kind, seed, LOOK);
        wait_for(LOOK * 50, || node.process.borrow().is_none()).await;
    }
}
