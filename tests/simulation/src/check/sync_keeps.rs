//! (j) In sync mode, while the state is `mirroring`, what was answered is in the replica's journal, and what
//! was flushed is durable there.

use disk::simulated::Crash;

use super::twin::Twin;
use crate::oracle::{Counts, Memory};
use crate::plan::Site;
use crate::world::World;

/// What the application had been told at an instant at which the source mirrored in sync.
pub struct Told {
    memory: Memory,
    counts: Counts,
}

impl Told {
    /// What holds now of a replica that crashes so; nothing where the source does not mirror in sync.
    pub fn now(world: &World, kind: Crash) -> Option<Told> {
        let source = world.source_role.borrow().clone()?;
        let identity = world.keys(Site::Replica).identity().to_string();
        let up = world.node(Site::Source).is_up() && world.node(Site::Replica).is_up();
        if !up || !source.mirrors_in_sync(&identity) || world.licence.rolled_back.get() {
            return None;
        }
        let counts = match kind {
            Crash::Kill => Counts::Acknowledged,
            Crash::PowerCut => Counts::Durable,
        };
        Some(Told { memory: world.oracle.remember(), counts })
    }

    /// Looks at the copy of the replica, which has been started.
    pub fn check(&self, world: &World, twin: &Twin) {
        world.trace.count(match self.counts {
            Counts::Acknowledged => "checked: sync keeps what was answered",
            Counts::Durable => "checked: sync keeps what was flushed",
        });
        let volumes = world.volumes_of(twin.machine(Site::Replica));
        if let Err(words) = self.memory.check(&volumes, self.counts, u64::MAX) {
            world.fail("sync_keeps", format!("mirroring in sync, but at the replica {words}"));
        }
    }
}
