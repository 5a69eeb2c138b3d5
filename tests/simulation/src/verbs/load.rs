//! Loading what has arrived.

use std::rc::Rc;

use disk::simulated::SplitMix64;
use media::KeySource;
use replication::replica::{LoadProgress, LoadReport, LoadRequest};
use tokio::task::JoinHandle;

use crate::event;
use crate::plan::Site;
use crate::world::World;

/// Loads, in the replica's process. Following stops meanwhile, as in the agent.
pub fn load(
    world: &Rc<World>,
    leaves: u64,
    seed: u64,
) -> Option<JoinHandle<replication::Result<LoadReport>>> {
    let replica = world.replica_role.borrow().clone()?;
    let mut random = SplitMix64::new(seed);
    let mut dirs = world.arrived.borrow().clone();
    dirs.retain(|_| leaves == 0 || random.below(leaves + 1) > 0);
    if dirs.is_empty() {
        event!(world, "verb: nothing to load");
        return None;
    }
    if let Some(follows) = &world.sessions.borrow()[Site::Replica as usize] {
        follows.abort();
    }
    let keys = vec![KeySource::Site(world.keys(Site::Replica))];
    let told = world.clone();
    world.loading.set(true);
    world.node(Site::Replica).process()?.spawn(async move {
        let request = LoadRequest { dirs, keys };
        let outcome = replica.load(request, &LoadProgress::default()).await;
        told.loading.set(false);
        match &outcome {
            Ok(report) => {
                event!(told, "verb: load", "{} {}", report.loaded_grains, report.damaged_grains);
                if report.loaded_grains == 0 {
                    told.trace.count("load: again, nothing to do");
                }
                if report.damaged_grains > 0 {
                    told.trace.count("load: damage became missing grains");
                }
                if report.waiting_grains > 0 {
                    told.trace.count("load: waits for media");
                }
                if report.fuzzy {
                    told.trace.count("load: fuzzy");
                }
            }
            Err(e) => event!(told, "verb: load refused", "{e}"),
        }
        outcome
    })
}
