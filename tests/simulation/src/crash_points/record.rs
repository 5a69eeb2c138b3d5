//! Records the instants between the operations of both machines.

use std::cell::RefCell;
use std::rc::Rc;

use disk::simulated::{Fault, Snapshot};

use crate::check::stands_fast::Standing;
use crate::errors_at_n::SITES;
use crate::oracle::Oracle;
use crate::plan::Site;
use crate::world::World;

/// One instant: what both disks hold, and what may be asked of them.
pub struct Point {
    /// Both machines, page caches included.
    pub machines: [Rc<Snapshot>; 2],
    /// What the oracle knew.
    pub oracle: Rc<Oracle>,
    /// What the replica was bound by.
    pub standing: Standing,
    /// Which machines changed since the instant before.
    pub changed: [bool; 2],
}

#[derive(Default)]
struct Last {
    steps: [(u64, u64); 2],
    time: u64,
}

/// See the module's text.
#[derive(Default)]
pub struct Recorder {
    points: RefCell<Vec<Point>>,
    last: RefCell<Last>,
}

impl Recorder {
    /// Records from here on.
    pub fn begin(world: &World) -> Rc<Recorder> {
        let recorder = Rc::new(Recorder::default());
        for site in SITES {
            let to = recorder.clone();
            *world.node(site).observer.borrow_mut() = Some(Rc::new(move |world: &World, _| {
                to.note(world);
                Fault::None
            }));
        }
        recorder
    }

    /// The last instant, and all of them.
    pub fn end(&self, world: &World) -> Vec<Point> {
        self.note(world);
        for site in SITES {
            world.node(site).observer.borrow_mut().take();
        }
        self.points.take()
    }

    fn note(&self, world: &World) {
        let steps = SITES.map(|site| world.node(site).machine.steps());
        let time = world.oracle.now();
        let mut last = self.last.borrow_mut();
        let mut points = self.points.borrow_mut();
        let before = points.last();
        let changed = [0, 1].map(|at| before.is_none() || last.steps[at] != steps[at]);
        if changed == [false; 2] && last.time == time {
            return;
        }
        let machine = |site: Site| match before {
            Some(before) if !changed[site as usize] => before.machines[site as usize].clone(),
            _ => Rc::new(world.node(site).machine.snapshot()),
        };
        let oracle = match before {
            Some(before) if last.time == time => before.oracle.clone(),
            _ => Rc::new(world.oracle.clone()),
        };
        let point =
            Point { machines: SITES.map(machine), oracle, standing: world.standing.get(), changed };
        *last = Last { steps, time };
        points.push(point);
    }
}
