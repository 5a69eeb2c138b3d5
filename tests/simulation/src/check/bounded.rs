//! (f) No buffer, queue or file is above its limit.

use replication::replica::Retain;

use crate::faults::FileClass;
use crate::plan::Site;
use crate::world::World;

/// Map files of a site at most, however long the history: the cuts that peers, sets and sessions name,
/// what waits to be tidied, and a few that are free. Cuts between two tidyings are bounded by the steps.
const MAX_MAPS: usize = 120;

/// Looks at both sites.
pub fn look(world: &World) {
    let (_, journal_bytes, _) = match world.healing.get() {
        true => (0, 64 << 20, 0),
        false => world.shape.journal,
    };
    for site in [Site::Source, Site::Replica] {
        let (mut maps, mut journal, mut side, mut history) = (0, 0, 0, 0);
        for (path, len) in world.node(site).machine.files("/site") {
            match FileClass::of(&path) {
                FileClass::Map => maps += 1,
                FileClass::Journal => journal += len,
                FileClass::History => history += len,
                FileClass::Side => side = side.max(len),
                _ => {}
            }
        }
        let name = site.name();
        if maps > MAX_MAPS {
            world.fail("bounded", format!("the {name} has {maps} map files"));
        }
        if journal > journal_bytes.max(world.shape.journal.1) {
            world.fail("bounded", format!("the journal has {journal} bytes"));
        }
        // Twice the room while somebody looks, what is being written, and what is not applied yet.
        let kept = match world.shape.retain {
            Retain::Up { bytes, .. } => 2 * bytes + (3 << 20) + journal_bytes,
            _ => u64::MAX,
        };
        if history > kept {
            world.fail("bounded", format!("the history has {history} bytes, above {kept}"));
        }
        let side_limit = world.shape.side_bytes.iter().max().copied().unwrap_or(0);
        if side > side_limit.next_multiple_of(4096) {
            world.fail("bounded", format!("a side file has {side} bytes, above {side_limit}"));
        }
    }
    if let Some(job) = world.dump.borrow().as_ref() {
        let counters = job.progress.session.get();
        let limit = world.shape.buffer_bytes[0];
        if counters.memory_peak_bytes > limit {
            let words = format!("{} preserved bytes, above {limit}", counters.memory_peak_bytes);
            world.fail("bounded", words);
        }
    }
}
