//! (c) What a promotion would serve equals the source at the cut that it claims, whatever was going on.

use std::rc::Rc;

use replication::replica::Replica;

use super::twin::Twin;
use crate::plan::Site;
use crate::world::World;

/// Starts the copy of the replica as it is after a crash and compares what it claims. Gives the role,
/// for who attaches it.
pub async fn check(world: &Rc<World>, twin: &Twin) -> Option<Rc<Replica>> {
    let replica = match twin.start_replica(world).await {
        Ok(replica) => replica,
        Err(e) => {
            world.fail("replica_consistent", format!("a crashed replica does not start: {e}"));
            return None;
        }
    };
    world.trace.count_named(format!("checked: replica {}", replica.condition().name()));
    if replica.is_consistent()
        && let Some(cut) = replica.head()
    {
        let volumes = world.volumes_of(twin.machine(Site::Replica));
        if let Some(words) = world.oracle.differs_from_cut(cut, &volumes) {
            let words = format!("a crashed replica says that it is at {cut}, but {words}");
            world.fail("replica_consistent", words);
            return None;
        }
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
    if let Some(cut) = replica.head() {
        let volumes = world.node(Site::Replica).volumes(world.geometry.volumes.len());
        if let Some(words) = world.oracle.differs_from_cut(cut, &volumes) {
            world.fail("replica_consistent", format!("it says that it is at {cut}, but {words}"));
        }
    }
}
