//! The daemon of a source: NBD exports, the door for replicas, dumps, control, status.

mod bookmark;
mod dump;
mod forecast;
mod freeze;
mod links;
mod mode;
mod pace;
mod peers;
mod roles;
mod status;
mod verbs;
mod verify;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use disk::Context;
use grain::attach::Rule;
use replication::source::{ServeSettings, Settings, Source, StreamSettings, VolumeExport};
use replication::state::Role;
use site::Problem;
use site::location::{DirLock, Name, StateDir};
use site::runtime::Shutdown;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use wire::PeerSet;
use wire::frame::Compress;

use crate::control::{self, Daemon};
use crate::hours::Hours;
use crate::problem::{nbd_problem, of_relationship, of_replication, refused};
use crate::serve::RoleEnd;
use crate::{Events, Relationship};

pub use bookmark::{BookmarkAnswer, BookmarkArguments, BookmarkedPeer};
pub use dump::DumpArguments;
pub use freeze::FreezeArguments;
pub use rustls::ServerConfig as TlsServerConfig;
pub use status::plan_of;

pub(crate) use links::{PROTOCOL, link_config, software};
pub(crate) use mode::words as mode_words;

/// How long the answer to a verb that changes the role has to reach who asked.
pub(crate) const ANSWERS: Duration = Duration::from_millis(200);

/// How often it is looked whether a peer was heard.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the exports are offered.
#[derive(Clone, Default)]
pub struct NbdListen {
    /// A Unix socket.
    pub unix: Option<PathBuf>,
    /// A TCP address: with TLS, or plain on loopback when that was asked for.
    pub tcp: Option<SocketAddr>,
    /// TLS with client certificates for TCP.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Plain TCP on a loopback address.
    pub plain: bool,
}

/// How to serve.
#[derive(Clone)]
pub struct SourceOptions {
    /// Bounds of the role.
    pub settings: Settings,
    /// Where replicas dial.
    pub listen: Vec<SocketAddr>,
    /// Where applications connect.
    pub nbd: NbdListen,
    /// Bytes of preserved grains in memory for a session over the link.
    pub buffer_bytes: u64,
    /// Bytes of the side file of such a session; 0 for none.
    pub side_bytes: u64,
    /// Where side files go; the relationship's directory if not given.
    pub side_dir: Option<PathBuf>,
    /// How long a writer waits for room to preserve.
    pub preserve_wait: Duration,
    /// Bounds of a stream.
    pub stream: StreamSettings,
    /// How payloads travel.
    pub compress: Compress,
    /// Hours with another pace than the settings'.
    pub hours: Vec<Hours>,
    /// After an unclean stop the volumes are offered once the peer has been heard.
    pub require_peer: bool,
}

impl Default for SourceOptions {
    fn default() -> Self {
        SourceOptions {
            settings: Settings::default(),
            listen: Vec::new(),
            nbd: NbdListen::default(),
            buffer_bytes: 64 << 20,
            side_bytes: 0,
            side_dir: None,
            preserve_wait: Duration::from_secs(2),
            stream: StreamSettings::default(),
            compress: Compress::Auto,
            hours: Vec::new(),
            require_peer: false,
        }
    }
}

/// A source at work.
pub struct SourceAgent {
    ctx: Context,
    relationship: Relationship,
    source: Rc<Source>,
    options: SourceOptions,
    events: Events,
    dump: RefCell<dump::DumpSlot>,
    links: RefCell<BTreeMap<String, links::LinkSlot>>,
    role_changed: Notify,
    /// The volumes are not offered yet.
    waits_for_peer: Cell<bool>,
    /// Who is let in.
    allowed: PeerSet,
    pace: RefCell<pace::PacePlan>,
    verify: RefCell<verify::VerifySlot>,
    _lock: DirLock,
}

impl SourceAgent {
    /// Takes the relationship's lock and starts the role. Nothing is offered to anyone yet.
    pub async fn start(
        ctx: &Context,
        state: &StateDir,
        name: &Name,
        options: SourceOptions,
    ) -> Result<Rc<SourceAgent>, Problem> {
        let opened = Relationship::open_locked(ctx, state, name, Some(Role::Source)).await;
        let (relationship, lock) = opened.map_err(|e| of_relationship(&e))?;
        let thawed = site::hooks::thaw_left_over(ctx, &relationship.dir.frozen_marker()).await;
        thawed.map_err(|e| Problem::from(&e))?;
        let settings = options.settings.clone();
        if !options.hours.is_empty() {
            pace::check_zone()?;
        }
        let pace = pace::PacePlan::new(settings.pace, options.hours.clone());
        let source =
            Source::start(ctx, relationship.dir.path(), &relationship.store, settings).await;
        let source = source.map_err(|e| of_replication(&e))?;
        let events = Events::new(ctx);
        events.note("the source has started");
        Ok(Rc::new(SourceAgent {
            ctx: ctx.clone(),
            relationship,
            source,
            options,
            events,
            dump: RefCell::default(),
            links: RefCell::default(),
            role_changed: Notify::new(),
            waits_for_peer: Cell::new(false),
            allowed: PeerSet::default(),
            pace,
            verify: RefCell::default(),
            _lock: lock,
        }))
    }

    /// Serves until asked to stop, then stops cleanly; or until the role has changed.
    pub async fn serve(
        self: &Rc<Self>,
        shutdown: Shutdown,
        ready: impl FnOnce(&[SocketAddr]),
    ) -> Result<RoleEnd, Problem> {
        let snapshot = Arc::new(site::control::Snapshot::default());
        let control = control::start(self, &snapshot)?;
        snapshot.publish(self.status_value(), Default::default());
        let publisher = control::spawn_publisher(self, snapshot);
        let pace = self.spawn_pace();
        self.take_up_dump();
        let (listener, addresses) = self.open_door()?;
        let dialers = self.dial_peers();
        let mut server = None;
        let mut ready = Some(ready);
        let end = loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => break RoleEnd::Stopped,
                () = self.role_changed.notified() => break RoleEnd::RoleChanged,
                () = self.peer_was_heard(), if ready.is_some() => {
                    self.waits_for_peer.set(false);
                    server = self.start_nbd().await?;
                    if let Some(ready) = ready.take() {
                        ready(&addresses);
                    }
                }
            }
        };
        self.events.note("stopping");
        listener.iter().chain(&dialers).for_each(JoinHandle::abort);
        if let Some(server) = server {
            server.shutdown().await;
        }
        self.end_links();
        self.interrupt_dump().await;
        publisher.abort();
        pace.abort();
        if end == RoleEnd::RoleChanged {
            // Whoever asked for it gets the answer.
            tokio::time::sleep(ANSWERS).await;
        }
        drop(control);
        match end {
            RoleEnd::Stopped => self.source.stop().await.map_err(|e| of_replication(&e))?,
            RoleEnd::RoleChanged => {}
        }
        Ok(end)
    }

    /// Returns at once, unless the volumes are to be offered only when a peer has said that it follows.
    async fn peer_was_heard(&self) {
        if !self.options.require_peer || !self.source.was_unclean() {
            return;
        }
        self.waits_for_peer.set(true);
        self.events
            .note("the last run did not end in good order: waits for the peer before it serves");
        let follows = |slot: &links::LinkSlot| {
            let verdict = slot.progress.verdict.borrow();
            verdict.as_ref().is_some_and(|v| matches!(v.rule, Rule::InStep | Rule::Delta))
        };
        while !self.links.borrow().values().any(follows) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Stops cleanly without having served.
    pub async fn stop(&self) -> Result<(), Problem> {
        self.source.stop().await.map_err(|e| of_replication(&e))
    }

    async fn start_nbd(self: &Rc<Self>) -> Result<Option<Rc<nbd::Server>>, Problem> {
        let listen = &self.options.nbd;
        if listen.unix.is_none() && listen.tcp.is_none() {
            return Ok(None);
        }
        let exports = VolumeExport::all(&self.source);
        let limits = nbd::Limits { plain_loopback: listen.plain, ..nbd::Limits::default() };
        let server =
            nbd::Server::new(exports, limits, listen.tls.clone()).map_err(|e| nbd_problem(&e))?;
        let server = Rc::new(server);
        if let Some(path) = &listen.unix {
            server.serve_unix(path).await.map_err(|e| nbd_problem(&e))?;
        }
        if let Some(address) = listen.tcp {
            if listen.tls.is_none() && !(listen.plain && address.ip().is_loopback()) {
                return Err(refused(
                    "nbd-plain",
                    format!("NBD on {address} needs TLS with client certificates"),
                )
                .todo(
                    "Give --nbd-tls-ca, --nbd-tls-cert and --nbd-tls-key; or, on a loopback \
                     address only, --nbd-plain.",
                ));
            }
            server.serve_tcp(address).await.map_err(|e| nbd_problem(&e))?;
        }
        Ok(Some(server))
    }

    /// The bounds of a session towards a replica.
    fn serve_settings(&self) -> ServeSettings {
        ServeSettings {
            buffer_bytes: self.options.buffer_bytes,
            side_bytes: self.options.side_bytes,
            side_dir: self.side_dir(),
            preserve_wait: self.options.preserve_wait,
            stream: self.options.stream.clone(),
        }
    }

    fn side_dir(&self) -> PathBuf {
        let own = || self.relationship.dir.path().to_owned();
        self.options.side_dir.clone().unwrap_or_else(own)
    }

    /// The role.
    pub fn source(&self) -> &Rc<Source> {
        &self.source
    }
}
