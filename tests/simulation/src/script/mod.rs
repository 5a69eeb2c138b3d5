//! Worlds that are driven by a script: small, calm, nobody in them acts by himself. What fails, and when,
//! is up to who drives them ([`crate::errors_at_n`]).
//!
//! A [`Stage`] is a world that somebody prepared: images of both machines after clean stops, and what the
//! oracle knew. Many runs begin from the same stage.

pub mod verbs;

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::Snapshot;

use crate::check::stands_fast::Standing;
use crate::life;
use crate::oracle::Oracle;
use crate::plan::Site;
use crate::shape::{GRAIN, Shape};
use crate::trace::Trace;
use crate::world::{MadeSet, World};

/// A small world without clients, in which no operation takes time.
pub fn calm_shape() -> Shape {
    Shape {
        volumes: vec![5 * GRAIN, 2 * GRAIN + 100],
        clients: 0,
        requests: 0,
        pause_us: 1,
        longest: GRAIN,
        latency_us: [0, 0],
        now_chance: 128,
        credit_bytes: 64 << 10,
        exact: false,
        excess_bytes: 4 << 20,
        layer_history: [1 << 20, 1 << 20],
        buffer_bytes: [GRAIN, GRAIN],
        side_bytes: [4 * GRAIN, 4 * GRAIN],
        preserve_wait: Duration::from_millis(5),
        preserve: 0,
        journal: (192 << 10, 4 * (192 << 10), 64),
        dump_rate: 0,
        allow_direct: false,
        media: 2,
        sealed: false,
        level: None,
        interval_ms: 30,
        samples: 4,
        keeping: Default::default(),
        retain: Default::default(),
    }
}

/// A prepared world, see the module's text.
pub struct Stage {
    /// What runs that begin here are like.
    pub shape: Shape,
    images: [Snapshot; 2],
    oracle: Oracle,
    made: Vec<MadeSet>,
    arrived: Vec<std::path::PathBuf>,
    standing: Standing,
    dumps: u64,
}

impl Stage {
    /// The world as it is: nothing runs in it, or nothing that counts.
    pub fn of(world: &World) -> Stage {
        Stage {
            shape: world.shape.clone(),
            images: [Site::Source, Site::Replica].map(|site| world.node(site).machine.snapshot()),
            oracle: world.oracle.clone(),
            made: world.made.borrow().clone(),
            arrived: world.arrived.borrow().clone(),
            standing: world.standing.get(),
            dumps: world.dumps.get(),
        }
    }

    /// The same, with runs that are like `shape` says.
    pub fn shaped(mut self, shape: &Shape) -> Stage {
        self.shape = shape.clone();
        self
    }

    /// A world that begins here. Its processes start as soon as it is waited for.
    pub fn world(&self, seed: u64, printed: bool) -> Rc<World> {
        self.world_like(&self.shape, seed, printed)
    }

    fn world_like(&self, shape: &Shape, seed: u64, printed: bool) -> Rc<World> {
        let mut world = World::new(seed, shape, Trace::new(seed, printed));
        if let Some(world) = Rc::get_mut(&mut world) {
            world.oracle = self.oracle.clone();
        }
        *world.made.borrow_mut() = self.made.clone();
        *world.arrived.borrow_mut() = self.arrived.clone();
        world.standing.set(self.standing);
        world.dumps.set(self.dumps);
        for site in [Site::Source, Site::Replica] {
            let machine = &world.node(site).machine;
            machine.restore(&self.images[site as usize]);
            // Later than anything that happened before the stage was set.
            machine.clock().jump_ms(3_600_000);
            world.set_pace(site);
        }
        world
    }
}

/// Keeps both sites running.
pub fn begin(world: &Rc<World>) {
    for site in [Site::Source, Site::Replica] {
        tokio::task::spawn_local(life::keep(world.clone(), site));
    }
}

/// Prepares a stage: a world of this shape, from `from` or from its beginning, played by `script`, both
/// sites stopped cleanly.
pub async fn prepare(
    shape: &Shape,
    from: Option<&Stage>,
    script: impl AsyncFn(&Rc<World>),
) -> Stage {
    let world = match from {
        Some(stage) => stage.world_like(shape, 11, false),
        None => {
            let world = World::new(12, shape, Trace::new(12, false));
            world.init().await;
            world
        }
    };
    begin(&world);
    verbs::up(&world).await;
    script(&world).await;
    for site in [Site::Source, Site::Replica] {
        world.node(site).held.set(true);
        verbs::stop(&world, site).await;
    }
    if let Some(violation) = world.violation() {
        panic!("a stage cannot be set: {}: {}", violation.checker, violation.words);
    }
    let stage = Stage::of(&world);
    world.end();
    stage
}
