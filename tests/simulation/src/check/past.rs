//! (k) A view equals the source at the cut that it names, whatever is going on, and stays as it is; a point that
//! is listed can be looked at.

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::SplitMix64;
use grain::{CutId, Span};
use replication::replica::{At, Replica, View};

use crate::event;
use crate::plan::Site;
use crate::world::World;

/// Points looked at of a replica that was started after a crash.
const POINTS: u64 = 2;

/// All that a view shows.
async fn shown(view: &View) -> replication::Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    for (volume, v) in view.replica().volumes().iter() {
        let span = Span { volume, start: 0, bytes: v.bytes };
        all.push(view.read(span).await?.to_vec());
    }
    Ok(all)
}

fn differs(world: &World, cut: CutId, seen: &[Vec<u8>]) -> Option<String> {
    if !world.oracle.knows(cut) {
        return Some(format!("no cut {cut} was ever made"));
    }
    for ((volume, _), seen) in world.geometry.iter().zip(seen) {
        let mut expected = vec![0; seen.len()];
        world.oracle.at_cut(cut, volume, 0, &mut expected);
        if let Some(at) = (0..seen.len()).find(|at| seen[*at] != expected[*at]) {
            return Some(format!("byte {at} of volume {} is another", volume.0));
        }
    }
    None
}

/// Looks at points of the copy of a replica that was started after a crash.
pub async fn check(world: &World, replica: &Rc<Replica>, seed: u64) {
    let points = replica.points();
    let mut random = SplitMix64::new(seed);
    for _ in 0..POINTS.min(points.len() as u64) {
        let point = &points[random.below(points.len() as u64) as usize];
        let looked = async {
            let view = replica.view(&At::Cut(point.cut)).await?;
            shown(&view).await
        };
        match looked.await {
            Ok(seen) => {
                world.trace.count("checked: a point after a crash");
                if let Some(words) = differs(world, point.cut, &seen) {
                    let cut = point.cut;
                    world.fail("past", format!("after a crash the point {cut} shows that {words}"));
                }
            }
            Err(e) => world.fail("past", format!("the point {} cannot be seen: {e}", point.cut)),
        }
    }
}

/// Looks at the replica that runs, at a point or at what is there now, holds on to it for a while, and looks
/// again.
pub fn look(world: &Rc<World>, hold: Duration, seed: u64) {
    let Some(replica) = world.replica_role.borrow().clone() else { return };
    let Some(process) = world.node(Site::Replica).process() else { return };
    let world = world.clone();
    let looking = process.spawn(async move {
        let points = replica.points();
        let mut random = SplitMix64::new(seed);
        let nth = random.below(points.len() as u64 + 1) as usize;
        let point = points.get(nth).map(|point| point.cut);
        let view = match replica.view(&point.map_or(At::Latest, At::Cut)).await {
            Ok(view) => view,
            Err(_) => return world.trace.count("view: refused"),
        };
        match point {
            Some(cut) => event!(world, "view: of a point", "{cut}"),
            None => event!(world, "view: of now"),
        }
        let mut before: Option<Vec<Vec<u8>>> = None;
        for _ in 0..3 {
            let seen = match shown(&view).await {
                Ok(seen) => seen,
                // A disk that fails, damage that was noticed, or it was ended: said, and nothing is shown.
                Err(_) => return world.trace.count("view: ended"),
            };
            if let Some(words) = point.and_then(|cut| differs(&world, cut, &seen)) {
                return world.fail("past", format!("a view of {point:?} shows that {words}"));
            }
            if before.as_ref().is_some_and(|before| *before != seen) {
                return world
                    .fail("past", format!("a view of {point:?} changed while it was open"));
            }
            before = Some(seen);
            tokio::time::sleep(hold).await;
        }
        world.trace.count("checked: a view");
        view.close().await;
    });
    drop(looking);
}
