//! What operators, carriers and networks do to a world: one file a verb.

pub mod connect;
pub mod courier;
pub mod disturb;
pub mod dump;
pub mod load;

use std::rc::Rc;
use std::time::Duration;

use disk::simulated::Crash;

use crate::plan::{Site, Step};
use crate::steps::Act;
use crate::world::World;
use crate::{check, event, life};

/// Does what a step says. What takes long goes on in the processes.
pub async fn perform(world: &Rc<World>, step: &Step) {
    world.trace.note(format_args!("step {} {:?}", step.number, step.act));
    match &step.act {
        Act::Crash { site, kind, at, down } => {
            disturb::crash(world, *site, *kind, *at, *down, step.seed);
        }
        Act::PowerAtSync { site, class, n } => {
            disturb::power_at_sync(world, *site, *class, *n, step.seed);
        }
        Act::CutThenPower { at } => {
            dump::cut(world);
            let (kind, down) = (Crash::PowerCut, Duration::from_millis(5));
            disturb::crash(world, Site::Source, kind, Some(*at), down, step.seed);
        }
        Act::Stop { site, down } => life::stop(world, *site, *down).await,
        Act::Hang { site, time } => disturb::hang(world, *site, *time),
        Act::Connect { link, once, compare, pull_unloaded, older_stays } => {
            let how = connect::How {
                once: *once,
                compare: *compare,
                pull_unloaded: *pull_unloaded,
                older_stays: *older_stays,
                only_look: false,
            };
            drop(connect::connect(world, *link, how, step.seed));
        }
        Act::Plan => {
            let how = connect::How { only_look: true, ..connect::How::default() };
            drop(connect::connect(world, crate::weather::LinkPlan::calm(), how, step.seed));
        }
        Act::CutCable => {
            if let Some(cable) = world.cable.borrow_mut().take() {
                event!(world, "link: cut by hand");
                cable.cut();
            }
        }
        Act::Cut => dump::cut(world),
        Act::Look { hold } => check::past::look(world, *hold, step.seed),
        Act::Dump => dump::begin(world),
        Act::CancelDump => dump::cancel(world),
        Act::ResumeDump => dump::resume_later(world),
        Act::Ship(how) => courier::ship(world, *how, step.seed).await,
        Act::Load { leaves } => drop(load::load(world, *leaves, step.seed)),
        Act::Trouble(trouble) => world.node(trouble.site).trouble(*trouble, step.seed),
        Act::Flip { site, target } => disturb::flip(world, *site, *target, step.seed),
        Act::Keep(site) => disturb::keep(world, *site),
        Act::RollBack(site) => disturb::roll_back(world, *site, step.seed),
        Act::Clock(site, delta) => {
            event!(world, "clock: jumps");
            world.licence.clock.set(true);
            world.node(*site).machine.clock().jump_ms(*delta);
        }
        Act::Mode(mode) => connect::set_mode(world, *mode),
        Act::Await => wait(world).await,
        Act::Probe => check::probe(world, step.seed).await,
    }
    check::bounded::look(world);
}

/// Until both sites run and nothing long is under way, some seconds at most.
async fn wait(world: &World) {
    for _ in 0..300 {
        let up = world.source_role.borrow().is_some() && world.replica_role.borrow().is_some();
        let busy = world.dumping.get() || world.loading.get();
        if (up && !busy) || world.has_failed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
