//! (d) A cut is one instant across all volumes: no write to a base is under way at it, and what was
//! answered before it is there.

use disk::simulated::FileContent;

use crate::node::volume_path;
use crate::oracle::Counts;
use crate::plan::Site;
use crate::world::World;

/// The source has made a cut just now.
pub fn at_cut(world: &World, volumes: &[FileContent]) {
    world.trace.count("checked: cuts are points in time");
    let machine = &world.node(Site::Source).machine;
    for number in 0..volumes.len() {
        let under_way = machine.changes_under_way(volume_path(number));
        if under_way > 0 {
            let words = format!("{under_way} writes to volume {number} are under way at a cut");
            world.fail("cuts_are_points_in_time", words);
        }
    }
    if let Err(words) = world.oracle.check(volumes, Counts::Acknowledged) {
        world.fail("cuts_are_points_in_time", format!("at a cut: {words}"));
    }
}
