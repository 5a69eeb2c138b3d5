//! (b) What the application saw flushed is on the source's disk after any crash; what it saw answered,
//! after a kill.

use disk::simulated::Crash;

use super::twin::Twin;
use crate::oracle::Counts;
use crate::plan::Site;
use crate::world::World;

fn counts(kind: Crash) -> Counts {
    match kind {
        Crash::Kill => Counts::Acknowledged,
        Crash::PowerCut => Counts::Durable,
    }
}

/// The source's process has ended.
pub fn after_end(world: &World, kind: Crash) {
    let volumes = world.node(Site::Source).volumes(world.geometry.volumes.len());
    world.trace.count("checked: flushed is kept");
    if let Err(words) = world.oracle.check(&volumes, counts(kind)) {
        world.fail("flushed_is_kept", format!("after {kind:?}: {words}"));
    }
    if kind == Crash::PowerCut {
        world.oracle.settle(&volumes);
    }
}

/// The same on a copy of a machine that runs.
pub fn of_twin(world: &World, twin: &Twin, kind: Crash) {
    let volumes = world.volumes_of(twin.machine(Site::Source));
    if let Err(words) = world.oracle.check(&volumes, counts(kind)) {
        world.fail("flushed_is_kept", format!("after {kind:?} of a copy: {words}"));
    }
}
