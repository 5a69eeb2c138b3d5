//! The main scenarios: a stage each, and a script.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use disk::OpenMode;
use disk::simulated::Crash;
use replication::source::StreamSettings;
use replication::state::{Mode, OnLinkLoss, StateStore};

use super::SITES;
use crate::keeping::Keeping;
use crate::node::{dir, volume_path};
use crate::plan::Site;
use crate::script::verbs::{
    attach, cancel, connect_as, crash, cut, dump, dump_begins, dump_ends, flush, hang_up, keep,
    load, read, resume, ship, stop, streams, up, write, zero,
};
use crate::script::{Stage, calm_shape, prepare};
use crate::shape::{GRAIN, Shape};
use crate::verbs::connect::How;
use crate::world::World;

type Script = for<'a> fn(&'a Rc<World>) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Where a scenario begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Volumes, no states.
    Bare,
    /// Both sites made, nothing written.
    New,
    /// Written, dumped and shipped; nothing loaded.
    Shipped,
    /// Seeded and in step, and written since.
    Behind,
    /// The same, with more than the journal takes, and an operator who lets that go into the base.
    BehindDirect,
    /// One of two media is loaded.
    Half,
    /// A dump was interrupted.
    Interrupted,
    /// Seeded and in step, to be kept in sync mode, with short epochs.
    Streams,
    /// Written, dumped and shipped; the volumes of the replica hold what an earlier life left.
    Used,
}

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Where it begins.
    pub at: At,
    /// The starts of both sites are part of it.
    pub from_start: bool,
    /// The states of both sites are made in it.
    pub makes_state: bool,
    /// What is done.
    pub script: Script,
}

const fn scenario(name: &'static str, at: At, script: Script) -> Scenario {
    Scenario { name, at, from_start: false, makes_state: false, script }
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "init and start",
        at: At::Bare,
        from_start: true,
        makes_state: true,
        script: |world| Box::pin(async move { write(world, 0, 0, 512, false).await }),
    },
    Scenario {
        name: "start of a pair that was in step",
        at: At::Behind,
        from_start: true,
        makes_state: false,
        script: |world| Box::pin(async move { write(world, 0, 0, 512, false).await }),
    },
    scenario("write, flush, trim, zero, read", At::New, |world| {
        Box::pin(async move {
            write(world, 0, 0, GRAIN + 512, false).await;
            flush(world).await;
            write(world, 1, 2 * GRAIN, 100, true).await;
            zero(world, 0, 64, GRAIN, 0).await;
            zero(world, 0, 2 * GRAIN, GRAIN, 2).await;
            write(world, 0, GRAIN, 64, false).await;
            read(world, 0, 0, 2 * GRAIN).await;
            zero(world, 1, 0, GRAIN, 3).await;
            flush(world).await;
        })
    }),
    scenario("dump to two media", At::New, |world| {
        Box::pin(async move {
            write(world, 0, GRAIN, 2 * GRAIN, false).await;
            write(world, 1, 64, 64, false).await;
            dump_begins(world).await;
            write(world, 0, 0, 3 * GRAIN, false).await;
            write(world, 1, 0, GRAIN, false).await;
            dump_ends(world).await;
        })
    }),
    scenario("load", At::Shipped, |world| {
        Box::pin(async move {
            load(world, usize::MAX).await;
            // The operator tries again.
            load(world, usize::MAX).await;
        })
    }),
    scenario("load over used volumes", At::Used, |world| {
        Box::pin(async move {
            load(world, usize::MAX).await;
            load(world, usize::MAX).await;
        })
    }),
    scenario("direct comparison, again", At::Used, |world| {
        Box::pin(async move {
            load(world, 1).await;
            for _ in 0..2 {
                let how = How { once: true, pull_unloaded: true, compare: true, ..How::default() };
                connect_as(world, how).await;
            }
        })
    }),
    scenario("catch-up through the journal", At::Behind, |world| Box::pin(attach(world))),
    scenario("direct catch-up of a consistent replica", At::BehindDirect, |world| {
        Box::pin(attach(world))
    }),
    scenario("direct catch-up instead of media", At::Half, |world| {
        Box::pin(async move {
            for _ in 0..2 {
                let how = How { once: true, pull_unloaded: true, ..How::default() };
                connect_as(world, how).await;
            }
        })
    }),
    scenario("cut and cycle", At::Behind, |world| {
        Box::pin(async move {
            cut(world).await;
            write(world, 1, GRAIN, 64, false).await;
            attach(world).await;
        })
    }),
    scenario("compare", At::Behind, |world| {
        Box::pin(async move {
            connect_as(world, How { once: true, compare: true, ..How::default() }).await;
        })
    }),
    scenario("plan", At::Behind, |world| {
        Box::pin(async move {
            connect_as(world, How { only_look: true, ..How::default() }).await;
        })
    }),
    scenario("stop and start again", At::Behind, |world| {
        Box::pin(async move {
            write(world, 0, 2 * GRAIN, GRAIN, false).await;
            for site in SITES {
                stop(world, site).await;
            }
            up(world).await;
        })
    }),
    scenario("cancel a dump", At::New, |world| {
        Box::pin(async move {
            dump_begins(world).await;
            cancel(world).await;
        })
    }),
    scenario("writes stream in sync mode", At::Streams, |world| {
        Box::pin(async move {
            streams(world).await;
            write(world, 0, GRAIN, GRAIN + 64, false).await;
            flush(world).await;
            zero(world, 1, 64, GRAIN, 2).await;
            // An epoch ends by itself, and another one by a cut.
            tokio::time::sleep(Duration::from_millis(60)).await;
            write(world, 0, 64, 64, true).await;
            cut(world).await;
            write(world, 1, 0, 64, false).await;
            hang_up(world).await;
            write(world, 0, 2 * GRAIN, 64, false).await;
            attach(world).await;
        })
    }),
    scenario("a stream, then async, and a stop", At::Streams, |world| {
        Box::pin(async move {
            streams(world).await;
            write(world, 0, 0, 64, false).await;
            keep(world, Mode::Async).await;
            write(world, 0, GRAIN, GRAIN, false).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
            write(world, 0, 3 * GRAIN, 64, false).await;
            for site in SITES {
                stop(world, site).await;
            }
            up(world).await;
        })
    }),
    // The agent takes up an unfinished dump when it starts.
    Scenario {
        name: "resume a dump",
        at: At::Interrupted,
        from_start: true,
        makes_state: false,
        script: |world| Box::pin(resume(world)),
    },
    Scenario {
        name: "cancel a dump that is taken up",
        at: At::Interrupted,
        from_start: true,
        makes_state: false,
        script: |world| Box::pin(cancel(world)),
    },
];

/// The stages, set once.
pub struct Stages {
    all: Vec<(At, Stage)>,
}

impl Stages {
    /// Sets all of them.
    pub async fn set() -> Stages {
        let shape = calm_shape();
        let bare = {
            let world = World::new(1, &shape, crate::trace::Trace::new(1, false));
            world.init().await;
            for site in SITES {
                world.node(site).machine.unplug(dir());
            }
            Stage::of(&world)
        };
        let new = prepare(&shape, None, async |_| {}).await;
        let shipped = prepare(&shape, Some(&new), async |world| {
            write(world, 0, GRAIN, 2 * GRAIN, false).await;
            write(world, 1, 0, GRAIN + 64, false).await;
            dump(world).await;
            ship(world).await;
        })
        .await;
        let behind = prepare(&shape, Some(&shipped), async |world| {
            load(world, usize::MAX).await;
            attach(world).await;
            write(world, 0, 0, GRAIN + 64, false).await;
            zero(world, 0, 2 * GRAIN, GRAIN, 2).await;
            write(world, 1, 64, 64, false).await;
        })
        .await;
        // More is written than the journal may take; that it is zeros nobody knows before.
        let volumes = vec![3 * GRAIN, 260 * GRAIN];
        let large = Shape { volumes, allow_direct: true, ..shape.clone() };
        let direct = prepare(&large, None, async |world| {
            write(world, 0, GRAIN, GRAIN, false).await;
            write(world, 1, 0, GRAIN, false).await;
            dump(world).await;
            ship(world).await;
            load(world, usize::MAX).await;
            attach(world).await;
            write(world, 0, 64, GRAIN, false).await;
            zero(world, 1, 0, 260 * GRAIN, 2).await;
        })
        .await;
        let stream = StreamSettings {
            epoch: Duration::from_millis(20),
            age_limit: Duration::from_millis(400),
            pause: Duration::from_millis(1),
            ..StreamSettings::default()
        };
        let keeping = Keeping { stream, ..Keeping::default() };
        let kept = Shape { keeping, ..shape.clone() };
        let streaming = prepare(&kept, Some(&shipped), async |world| {
            load(world, usize::MAX).await;
            attach(world).await;
            keep(world, Mode::Sync { on_link_loss: OnLinkLoss::Continue }).await;
        })
        .await;
        let half = prepare(&shape, Some(&shipped), async |world| load(world, 1).await).await;
        let used = prepare(&shape, Some(&shipped), async |world| {
            // What stands there is of no write of this relationship.
            let ctx = world.node(Site::Replica).machine.context();
            for number in 0..world.geometry.volumes.len() {
                let path = volume_path(number);
                let file = ctx.storage.open(&path, OpenMode::ReadWrite).await.expect("a volume");
                let len = file.len().expect("a length") as usize;
                file.write_at(0, vec![0xa5; len].into()).await.expect("a write");
                file.sync_data().await.expect("a sync");
            }
        })
        .await;
        let slow = Shape { dump_rate: 4 * GRAIN, ..shape.clone() };
        let interrupted = prepare(&slow, Some(&new), async |world| {
            write(world, 0, 0, 4 * GRAIN, false).await;
            dump_begins(world).await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            world.node(Site::Source).held.set(true);
            crash(world, Site::Source, Crash::Kill, 0).await;
        })
        .await;
        let interrupted = interrupted.shaped(&shape);
        Stages {
            all: vec![
                (At::Bare, bare),
                (At::New, new),
                (At::Shipped, shipped),
                (At::Behind, behind),
                (At::BehindDirect, direct),
                (At::Half, half),
                (At::Streams, streaming),
                (At::Interrupted, interrupted),
                (At::Used, used),
            ],
        }
    }

    /// Where a scenario begins.
    pub fn of(&self, scenario: &Scenario) -> &Stage {
        let found = self.all.iter().find(|(at, _)| *at == scenario.at);
        &found.expect("every stage is set").1
    }
}

/// Makes the states of both sites, where they are not there yet. What fails is tried again by who calls.
pub async fn make_states(world: &Rc<World>) {
    for site in SITES {
        let ctx = world.node(site).machine.context();
        let made = async {
            ctx.storage.create_dir(dir()).await.map_err(replication::Error::io("make", dir()))?;
            StateStore::create(&ctx, dir(), world.first_state(site)).await
        };
        if let Err(e) = made.await {
            world.trace.note(format_args!("init: {} {e}", site.name()));
        }
    }
}
