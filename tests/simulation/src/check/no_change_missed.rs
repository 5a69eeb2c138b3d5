//! (a) No change is missed: of the disks as a crash leaves them, the delta that an attach computes
//! contains every grain in which the source differs from what the replica can prove.
//!
//! It is checked on the delta that is really computed: copies of both machines are started and attached,
//! nothing writes, and afterwards both must hold the same.

use std::rc::Rc;

use replication::Error;
use replication::protocol;
use replication::replica::{FollowSettings, Replica, follow};
use replication::source::{LinkProgress, ServeSettings, Source, serve_link};
use wire::link::{Calm, LinkConfig, MemoryPair, memory_pair};

use super::twin::Twin;
use crate::node::dir;
use crate::oracle::difference;
use crate::plan::Site;
use crate::shape::GRAIN;
use crate::world::World;

/// Attaches the copies and compares them.
pub async fn check(world: &Rc<World>, twin: &Twin, replica: &Rc<Replica>) {
    if replica.head().is_none() {
        return;
    }
    let source = match twin.start_source(world, Site::Source).await {
        Ok(source) => source,
        Err(e) => {
            return world.fail("alive", format!("a crashed source does not start: {e}"));
        }
    };
    let before = world.volumes_of(twin.machine(Site::Source));
    let outcome = attach(world, Site::Source, &source, replica).await;
    if let Err(e) = outcome {
        return world.fail("no_change_missed", format!("copies do not come into step: {e}"));
    }
    world.trace.count("checked: no change missed");
    let left = world.volumes_of(twin.machine(Site::Source));
    let right = world.volumes_of(twin.machine(Site::Replica));
    if let Some(words) = difference(&left, &right, GRAIN) {
        world.fail("no_change_missed", format!("in step after an attach, but {words}"));
    }
    if difference(&before, &left, GRAIN).is_some() {
        world.fail("no_silent_full_copy", "an attach changed the source");
    }
}

/// Attaches a copy to the source, which runs on the copy of `site`'s machine, until both are in step.
pub(super) async fn attach(
    world: &World,
    site: Site,
    source: &Rc<Source>,
    replica: &Rc<Replica>,
) -> replication::Result<()> {
    match attach_by(world, site, source, replica, false).await {
        // Where a machine was rolled back the operator has to name the loser.
        Err(Error::Refused { rule, .. }) if world.licence.rolled_back.get() => {
            world.trace.count_named(format!("checked: rolled back, refused by {rule}"));
            attach_by(world, site, source, replica, true).await
        }
        outcome => outcome,
    }
}

async fn attach_by(
    world: &World,
    site: Site,
    source: &Rc<Source>,
    replica: &Rc<Replica>,
    compare: bool,
) -> replication::Result<()> {
    let (near_id, far_id) = (world.keys(site).identity(), world.keys(site.other()).identity());
    let config = LinkConfig { keep_alive: None, ..LinkConfig::default() };
    let MemoryPair { near, far, near_session, far_session, .. } =
        memory_pair(near_id, far_id, 1, &config, Calm);
    let sessions = [near_session, far_session].map(tokio::task::spawn_local);
    let source = source.clone();
    let serving = tokio::task::spawn_local(async move {
        let (connection, inbox) = protocol::open(near);
        let settings = ServeSettings {
            buffer_bytes: 1 << 20,
            side_bytes: 0,
            side_dir: dir().to_owned(),
            preserve_wait: std::time::Duration::ZERO,
            stream: Default::default(),
        };
        serve_link(&source, connection, inbox, &settings, &Rc::new(LinkProgress::default())).await
    });
    let (connection, inbox) = protocol::open(far);
    let settings = FollowSettings {
        once: true,
        compare,
        pull_unloaded: true,
        samples: world.shape.samples,
        in_step_bytes: 0,
        ..FollowSettings::default()
    };
    let outcome = follow(replica, connection, inbox, &settings, |_| {}).await;
    serving.abort();
    sessions.iter().for_each(|session| session.abort());
    outcome.map(|_| ())
}
