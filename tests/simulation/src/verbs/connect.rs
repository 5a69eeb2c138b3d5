//! The replica dials the source.

use std::cell::Cell;
use std::rc::Rc;

use replication::protocol;
use replication::replica::{FollowEnd, FollowSettings, follow};
use replication::source::{LinkProgress, ServeSettings, serve_link};
use replication::state::Mode;
use tokio::task::JoinHandle;
use wire::link::{LinkConfig, MemoryPair, memory_pair};

use crate::check::no_silent_full_copy::Session;
use crate::event;
use crate::node::dir;
use crate::plan::Site;
use crate::weather::LinkPlan;
use crate::world::World;

/// How the replica dials.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// It returns when in step.
    pub once: bool,
    /// It compares digests of all grains first.
    pub compare: bool,
    /// It gives up waiting for media.
    pub pull_unloaded: bool,
    /// The session before is still served at the source.
    pub older_stays: bool,
    /// It hangs up at the verdict.
    pub only_look: bool,
}

/// The bounds of a session towards the replica.
pub fn serve_settings(world: &World) -> ServeSettings {
    ServeSettings {
        buffer_bytes: world.shape.buffer_bytes[1],
        side_bytes: world.shape.side_bytes[1],
        side_dir: dir().to_owned(),
        preserve_wait: world.shape.preserve_wait,
        stream: world.shape.keeping.stream.clone(),
    }
}

/// How the replica follows.
pub fn follow_settings(world: &World, how: How) -> FollowSettings {
    FollowSettings {
        once: how.once,
        compare: how.compare,
        pull_unloaded: how.pull_unloaded,
        interval: std::time::Duration::from_millis(world.shape.interval_ms),
        samples: world.shape.samples,
        in_step_bytes: if how.once { 0 } else { 8 << 10 },
        max_rounds: 12,
        accept_unreadable: false,
        fingerprint_every: std::time::Duration::from_secs(1),
    }
}

/// The operator changes how the replica is kept.
pub fn set_mode(world: &Rc<World>, mode: Mode) {
    let (Some(source), Some(process)) =
        (world.source_role.borrow().clone(), world.node(Site::Source).process())
    else {
        return;
    };
    let identity = world.keys(Site::Replica).identity().to_string();
    let told = world.clone();
    drop(process.spawn(async move {
        match source.set_mode(&identity, mode).await {
            Ok(()) => event!(told, "verb: mode", "{mode:?}"),
            Err(e) => told.trace.note(format_args!("mode: {e}")),
        }
    }));
}

/// Connects the sites; gives what the replica's side comes to. None when a site is down.
pub fn connect(
    world: &Rc<World>,
    link: LinkPlan,
    how: How,
    seed: u64,
) -> Option<JoinHandle<replication::Result<FollowEnd>>> {
    let source = world.source_role.borrow().clone()?;
    let replica = world.replica_role.borrow().clone()?;
    let (at_source, at_replica) =
        (world.node(Site::Source).process()?, world.node(Site::Replica).process()?);
    // Applications go on while the sites are connected.
    let share = if world.shape.keeping.streams_at_all() { 1 } else { 4 };
    world.requests.add(world.shape.requests / share);
    event!(world, "verb: connect", "{link:?} {how:?}");
    let (one, two) = (at_source.clone(), at_replica.clone());
    let mut weather = link.weather(seed, &world.trace, move || !one.is_dead() && !two.is_dead());
    let meddler = world.meddler.borrow().clone();
    let weather = move |direction, bytes| {
        let fate = meddler.as_ref().and_then(|meddler| meddler(direction, bytes));
        fate.unwrap_or_else(|| weather(direction, bytes))
    };
    let (near_id, far_id) =
        (world.keys(Site::Source).identity(), world.keys(Site::Replica).identity());
    let MemoryPair { near, far, near_session, far_session, cable } =
        memory_pair(near_id, far_id, 1, &LinkConfig::default(), weather);
    *world.cable.borrow_mut() = Some(cable.clone());
    // Ends with the link, on both sides.
    drop(at_source.spawn(near_session));
    drop(at_replica.spawn(far_session));
    let progress = Rc::new(LinkProgress::default());
    let serving = {
        let (world, serve) = (world.clone(), serve_settings(world));
        let shown = progress.clone();
        at_source.spawn(async move {
            let (connection, inbox) = protocol::open(near);
            let ended = serve_link(&source, connection, inbox, &serve, &shown).await;
            if let Some(why) = *shown.stream.ended.borrow() {
                world.trace.count_named(format!("stream: {why}"));
            }
            ended_at_source(&world, ended);
        })?
    };
    let session = Rc::new(Session::new(how, progress));
    let following = {
        let (world, settings) = (world.clone(), follow_settings(world, how));
        at_replica.spawn(async move {
            let (connection, inbox) = protocol::open(far);
            let looked = Rc::new(Cell::new(false));
            let shown = |verdict: &grain::attach::Verdict| {
                world.trace.count_named(format!("verdict: {}", verdict.rule));
                world.trace.note(format_args!("verdict {} {:?}", verdict.rule, verdict.means));
                session.verdict(&world, verdict);
                if how.only_look {
                    looked.set(true);
                    cable.cut();
                }
            };
            let ended = follow(&replica, connection, inbox, &settings, shown).await;
            session.ended(&world);
            ended_at_replica(&world, &ended);
            ended
        })?
    };
    let mut sessions = world.sessions.borrow_mut();
    for (site, task) in
        [(Site::Source, serving.abort_handle()), (Site::Replica, following.abort_handle())]
    {
        let before = sessions[site as usize].replace(task);
        let stays = site == Site::Source && how.older_stays;
        if let Some(before) = before.filter(|_| !stays) {
            before.abort();
        }
    }
    Some(following)
}

impl World {
    /// Ends the sessions of both sites' agents.
    pub fn end_sessions(&self) {
        for task in self.sessions.borrow().iter().flatten() {
            task.abort();
        }
    }
}

fn ended_at_source(world: &World, ended: replication::Result<()>) {
    match ended {
        Ok(()) => event!(world, "session: ended at the source"),
        Err(replication::Error::Refused { rule, detail }) => {
            event!(world, "session: refused at the source", "{rule} {detail}");
        }
        Err(e) => {
            if e.to_string().contains("newer session") {
                world.trace.count("session: a newer one took its place");
            }
            event!(world, "session: ended at the source", "{e}");
        }
    }
}

fn ended_at_replica(world: &World, ended: &replication::Result<FollowEnd>) {
    use replication::Error;
    match ended {
        Ok(FollowEnd::InStep(cut)) => event!(world, "session: in step", "{cut}"),
        Ok(FollowEnd::Relinquished(cut)) => {
            world.fail(
                "alive",
                format!("nobody asked for a switchover, and the role is its own at {cut}"),
            );
        }
        Err(Error::Refused { rule, detail }) => {
            event!(world, "session: refused", "{rule} {detail}");
        }
        Err(Error::Link(words)) => event!(world, "session: link ended", "{words}"),
        Err(Error::Fingerprint(words)) => event!(world, "session: fingerprint", "{words}"),
        Err(Error::Journal(e)) => event!(world, "session: journal", "{e}"),
        Err(Error::Peer(words)) => {
            event!(world, "session: the peer erred", "{words}");
            if !world.licence.rolled_back.get() {
                world.fail("alive", format!("a site breaks the protocol: {words}"));
            }
        }
        Err(Error::State(words)) => event!(world, "session: state", "{words}"),
        Err(e) => event!(world, "session: failed", "{e}"),
    }
}
