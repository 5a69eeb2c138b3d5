//! The daemon of a replica: loads media, dials the source, follows it, control, status.

mod dial;
mod load;
mod promote;
mod status;
mod verbs;
mod verify;
mod views;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use disk::Context;
use grain::attach::Verdict;
use replication::replica::{FollowSettings, HistorySettings, Replica, Retain, Settings};
use replication::state::Role;
use site::Problem;
use site::location::{DirLock, Name, StateDir};
use site::runtime::Shutdown;
use tokio::sync::{Mutex, Notify};
use wire::PeerSet;
use wire::frame::Compress;
use wire::link::{LinkMeter, Listener};

use crate::control::{self, Daemon};
use crate::problem::{of_relationship, of_replication};
use crate::serve::RoleEnd;
use crate::source::ANSWERS;
use crate::{Events, Relationship};

pub use load::{LoadAnswer, LoadArguments};
pub use promote::{PromoteAnswer, PromoteArguments};

/// A promotion waits until this much, at most, has come from the journal into the volumes: a moment. More is
/// served from there.
const PROMOTE_PAST: u64 = 64 << 20;

/// How to serve.
#[derive(Clone)]
pub struct ReplicaOptions {
    /// The journal may take so many bytes; less than 20 MiB counts as that. `None` for a process that pulls
    /// nothing.
    pub journal_bytes: Option<u64>,
    /// Bytes of layer files kept at most for what is no longer needed.
    pub layer_history_bytes: u64,
    /// What waits in the journal is in the volumes when the start ends.
    pub apply_at_start: bool,
    /// A catch-up that does not fit goes straight into the base.
    pub allow_direct: bool,
    /// Start although the volumes were changed.
    pub accept_touched: bool,
    /// How to follow.
    pub follow: FollowSettings,
    /// The longest pause between attempts.
    pub max_pause: Duration,
    /// How payloads that are sent from here travel.
    pub compress: Compress,
    /// Where a source that was this site's secondary dials in, when no address of it is known.
    pub listen: Vec<SocketAddr>,
    /// Verify when the newest verification is older than this.
    pub verify_every: Option<Duration>,
    /// Bytes a second that such a verification reads at most; 0 for no limit.
    pub verify_rate_bytes: u64,
    /// How long one can go back.
    pub retain: Retain,
    /// Where the history is, if not with the state.
    pub history_dir: Option<PathBuf>,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        ReplicaOptions {
            journal_bytes: None,
            layer_history_bytes: 256 << 20,
            apply_at_start: true,
            allow_direct: false,
            accept_touched: false,
            follow: FollowSettings::default(),
            max_pause: Duration::from_secs(60),
            compress: Compress::Auto,
            listen: Vec::new(),
            verify_every: None,
            verify_rate_bytes: 0,
            retain: Retain::AsFound,
            history_dir: None,
        }
    }
}

/// A replica at work.
pub struct ReplicaAgent {
    ctx: Context,
    relationship: Relationship,
    replica: Rc<Replica>,
    options: ReplicaOptions,
    events: Events,
    verdict: RefCell<Option<Verdict>>,
    connected: RefCell<Option<String>>,
    meter: RefCell<Option<LinkMeter>>,
    /// The operator named another source.
    source_changed: Notify,
    /// Who is let in, where the source dials.
    allowed: PeerSet,
    last_error: RefCell<Option<Problem>>,
    load: RefCell<load::LoadSlot>,
    /// Set while a load has the base for itself.
    loading: Cell<bool>,
    wake: Notify,
    role_changed: Notify,
    door: RefCell<Option<Rc<Mutex<Listener>>>>,
    shown: RefCell<Option<Shown>>,
    views: views::Views,
    _lock: DirLock,
}

/// Told each verdict before anything moves.
type Shown = Box<dyn Fn(&[String])>;

impl ReplicaAgent {
    /// Takes the relationship's lock and starts the role. Nobody is dialled yet.
    pub async fn start(
        ctx: &Context,
        state: &StateDir,
        name: &Name,
        options: ReplicaOptions,
    ) -> Result<Rc<ReplicaAgent>, Problem> {
        let opened = Relationship::open_locked(ctx, state, name, Some(Role::Replica)).await;
        let (relationship, lock) = opened.map_err(|e| of_relationship(&e))?;
        let settings = Settings {
            journal: match options.journal_bytes {
                Some(limit) => journal::Config::limited(relationship.dir.journal(), limit),
                None => journal::Config::at_rest(relationship.dir.journal()),
            },
            history: HistorySettings {
                dir: options.history_dir.clone().unwrap_or_else(|| relationship.dir.history()),
                retain: options.retain,
            },
            apply_at_start: options.apply_at_start,
            promote_past: PROMOTE_PAST,
            allow_direct: options.allow_direct,
            layer_history_bytes: options.layer_history_bytes,
            accept_touched: options.accept_touched,
        };
        let dir = relationship.dir.path();
        let replica = Replica::start(ctx, dir, &relationship.store, settings).await;
        let replica = replica.map_err(|e| of_replication(&e))?;
        let events = Events::new(ctx);
        events.note("the replica has started");
        Ok(Rc::new(ReplicaAgent {
            ctx: ctx.clone(),
            relationship,
            replica,
            options,
            events,
            verdict: RefCell::default(),
            connected: RefCell::default(),
            meter: RefCell::default(),
            source_changed: Notify::new(),
            allowed: PeerSet::default(),
            last_error: RefCell::default(),
            load: RefCell::default(),
            loading: Cell::new(false),
            wake: Notify::new(),
            role_changed: Notify::new(),
            door: RefCell::default(),
            shown: RefCell::default(),
            views: Default::default(),
            _lock: lock,
        }))
    }

    /// Tells `shown` each verdict, in words, before anything moves.
    pub fn show_verdicts(&self, shown: impl Fn(&[String]) + 'static) {
        *self.shown.borrow_mut() = Some(Box::new(shown));
    }

    /// Follows the source until asked to stop; with `once`, until in step.
    pub async fn serve(
        self: &Rc<Self>,
        shutdown: Shutdown,
        ready: impl FnOnce(),
    ) -> Result<RoleEnd, Problem> {
        self.open_door()?;
        let snapshot = Arc::new(site::control::Snapshot::default());
        let control = control::start(self, &snapshot)?;
        snapshot.publish(self.status_value(), Default::default());
        let publisher = control::spawn_publisher(self, snapshot);
        let verifier = self.spawn_verifier();
        ready();
        let outcome = tokio::select! {
            biased;
            () = shutdown.wait() => Ok(RoleEnd::Stopped),
            () = self.role_changed.notified() => Ok(RoleEnd::RoleChanged),
            outcome = self.follow_forever() => outcome,
        };
        self.events.note("stopping");
        self.end_views().await;
        publisher.abort();
        verifier.abort();
        if matches!(outcome, Ok(RoleEnd::RoleChanged)) {
            // Whoever asked for it gets the answer.
            tokio::time::sleep(ANSWERS).await;
            drop(control);
            return outcome;
        }
        drop(control);
        let stopped = self.replica.stop().await.map_err(|e| of_replication(&e));
        outcome.and_then(|end| stopped.map(|()| end))
    }

    /// The role.
    pub fn replica(&self) -> &Rc<Replica> {
        &self.replica
    }

    /// Stops cleanly without having served.
    pub async fn stop(&self) -> Result<(), Problem> {
        self.replica.stop().await.map_err(|e| of_replication(&e))
    }
}
