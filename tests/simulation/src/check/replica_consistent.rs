//! (c) What a promotion would serve equals the source at the cut that it claims, whatever was going on.

use std::rc::Rc;

use disk::simulated::FileContent;
use grain::Position;
use replication::replica::Replica;

use super::twin::Twin;
use crate::plan::Site;
use crate::world::World;

/// Starts the copy of the replica as it is after a crash and compares what it claims. Gives the role,
/// for who attaches it.
pub async fn check(world: &Rc<World>, twin: &Twin) -> Option<Rc<Replica>> {
    let replica = match twin.start_replica(world, Site::Replica).await {
        Ok(replica) => replica,
        Err(e) => {
            world.fail("replica_consistent", format!("a crashed replica does not start: {e}"));
            return None;
        }
    };
    world.trace.count_named(format!("checked: replica {}", replica.condition().name()));
    let volumes = world.volumes_of(twin.machine(Site::Replica));
    if let Err(words) = is_what_it_says(world, &replica, &volumes) {
        world.fail("replica_consistent", format!("a crashed replica says {words}"));
        return None;
    }
    Some(replica)
}

/// The same of the replica that runs, when nothing waits to be applied.
pub fn live(world: &World) {
    let replica = world.replica_role.borrow().clone();
    let Some(replica) = replica.filter(|_| world.node(Site::Replica).is_up()) else { return };
    if !replica.is_consistent() || replica.journal_stats().waiting_bytes > 0 {
        return;
    }
    let streams = replica.stream_view().streaming.get();
    let volumes = world.node(Site::Replica).volumes(world.geometry.volumes.len());
    if !streams && let Err(words) = is_what_it_says(world, &replica, &volumes) {
        world.fail("replica_consistent", format!("it says {words}"));
    }
}

/// Whether the volumes are those of the source where the replica says that it stands: at a cut to the bit;
/// inside an epoch a state in which every write is that had ended when the newest one in it was issued.
fn is_what_it_says(
    world: &World,
    replica: &Replica,
    volumes: &[FileContent],
) -> Result<(), String> {
    match replica.position().filter(|_| replica.is_consistent()) {
        Some(at) => is_source_at(world, at, volumes),
        None => Ok(()),
    }
}

/// Whether the volumes are those of the source at this position.
pub(super) fn is_source_at(
    world: &World,
    at: Position,
    volumes: &[FileContent],
) -> Result<(), String> {
    if at.sequence == 0 {
        return match world.oracle.differs_from_cut(at.cut, volumes) {
            Some(words) => Err(format!("that it is at {}, but {words}", at.cut)),
            None => Ok(()),
        };
    }
    world.trace.count("checked: a replica inside an epoch");
    if world.licence.rolled_back.get() {
        return Ok(());
    }
    let prefix = world.oracle.check_after(at.cut, volumes);
    prefix.map_err(|words| format!("that it is at {} of {}, but {words}", at.sequence, at.cut))
}
