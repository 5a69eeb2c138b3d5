//! Copies of both machines as they would be after a crash now, with nothing that fails or takes time.

use std::rc::Rc;

use disk::simulated::{Crash, SimMachine};
use replication::Result;
use replication::replica::{Replica, Settings};
use replication::source::Source;
use replication::state::{Role, StateStore};

use crate::node::dir;
use crate::plan::Site;
use crate::world::World;

/// See the module's text.
pub struct Twin {
    machines: [SimMachine; 2],
}

impl Twin {
    /// Copies the machines of a world and crashes the copies.
    pub fn of(world: &World, kinds: [Crash; 2], seed: u64) -> Twin {
        let copy = |site: Site| {
            let machine = world.node(site).machine.copy(seed ^ site as u64);
            machine.set_capacity(u64::MAX);
            machine.crash_seeded(kinds[site as usize], seed);
            machine
        };
        Twin { machines: [copy(Site::Source), copy(Site::Replica)] }
    }

    /// These machines: what a crash left.
    pub fn from(machines: [SimMachine; 2]) -> Twin {
        Twin { machines }
    }

    /// The same, with another copy of a site's machine.
    pub fn put(&mut self, site: Site, machine: SimMachine) {
        self.machines[site as usize] = machine;
    }

    /// The role that the disk of a site names.
    pub async fn role(&self, site: Site) -> Result<Role> {
        let store = StateStore::open(&self.machine(site).context(), dir()).await?;
        Ok(store.with(|s| s.role))
    }

    /// The copy of a site's machine.
    pub fn machine(&self, site: Site) -> &SimMachine {
        &self.machines[site as usize]
    }

    /// Starts the copy of a site as a replica, with room for whatever a catch-up brings.
    pub async fn start_replica(&self, world: &World, site: Site) -> Result<Rc<Replica>> {
        self.start_replica_with(site, world.replica_settings(true)).await
    }

    /// The same with other settings.
    pub async fn start_replica_with(&self, site: Site, settings: Settings) -> Result<Rc<Replica>> {
        let ctx = self.machine(site).context();
        let store = StateStore::open(&ctx, dir()).await?;
        Replica::start(&ctx, dir(), &store, settings).await
    }

    /// Starts the copy of a site as a source; a suspect one with the operator's word.
    pub async fn start_source(&self, world: &World, site: Site) -> Result<Rc<Source>> {
        let ctx = self.machine(site).context();
        let store = StateStore::open(&ctx, dir()).await?;
        Source::start(&ctx, dir(), &store, world.source_settings(true)).await
    }
}
