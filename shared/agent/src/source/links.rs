//! The door for replicas: each link is served by a task; a new one of the same peer ends the old one
//! first.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use grain::attach::Rule;
use replication::protocol;
use replication::source::{LinkProgress, serve_link};
use replication::state::{Peer, State};
use site::Problem;
use tokio::task::JoinHandle;
use wire::frame::Compress;
use wire::link::{Dial, Incoming, Link, LinkConfig, LinkMeter, Listen, Listener, Terms, dial};

use super::SourceAgent;
use super::forecast::Forecast;
use crate::problem::{of_relationship, of_replication, of_wire};

/// The version of the replication protocol that is spoken.
pub(crate) const PROTOCOL: u16 = 1;
/// Between two attempts to reach a peer: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Links up at a time.
const MAX_LINKS: usize = 8;

/// What is known of one peer's link.
#[derive(Default)]
pub(super) struct LinkSlot {
    pub(super) progress: Rc<LinkProgress>,
    pub(super) remote: Option<String>,
    pub(super) connected: bool,
    pub(super) last_error: Option<String>,
    pub(super) meter: Option<LinkMeter>,
    pub(super) forecast: RefCell<Forecast>,
    task: Option<JoinHandle<()>>,
    number: u64,
}

/// What this program calls itself to its peers.
pub(crate) fn software() -> String {
    format!("grainhaul {}", env!("CARGO_PKG_VERSION"))
}

/// The bounds of every link, in either role.
pub(crate) fn link_config(compress: Compress) -> LinkConfig {
    LinkConfig { compress, ..LinkConfig::default() }
}

impl SourceAgent {
    /// Opens the door, if there is an address to listen at.
    pub(super) fn open_door(
        self: &Rc<Self>,
    ) -> Result<(Option<JoinHandle<()>>, Vec<SocketAddr>), Problem> {
        if self.options.listen.is_empty() {
            return Ok((None, Vec::new()));
        }
        let peers = self.relationship.peers().map_err(|e| of_relationship(&e))?;
        self.allowed.replace(peers);
        let relationship = self.source.store().with(|s| s.relationship);
        let listener = Listener::bind(Listen {
            addresses: self.options.listen.clone(),
            keys: self.relationship.keys.clone(),
            peers: self.allowed.clone(),
            terms: Terms { relationship, protocol: PROTOCOL..=PROTOCOL, software: software() },
            config: link_config(self.options.compress),
            max_links: MAX_LINKS,
        })
        .map_err(|e| of_wire(&e))?;
        let addresses = listener.local_addresses().to_vec();
        let agent = self.clone();
        let door = tokio::task::spawn_local(async move { agent.welcome(listener).await });
        Ok((Some(door), addresses))
    }

    async fn welcome(self: Rc<Self>, mut listener: Listener) {
        while let Ok(incoming) = listener.next().await {
            match incoming {
                Incoming::Link(link) => {
                    self.events.note(format!("a replica connected from {}", link.about().remote));
                    self.take_link(link);
                }
                Incoming::Turned { remote, error } => {
                    self.events.note(format!("{remote} was not let in: {error}"));
                }
            }
        }
    }

    /// Dials the peers that do not dial in, again and again.
    pub(super) fn dial_peers(self: &Rc<Self>) -> Vec<JoinHandle<()>> {
        let peers = self.source.store().with(|s| s.peers.clone());
        let dialled = peers.into_iter().filter(|peer| !peer.addresses.is_empty());
        dialled.map(|peer| tokio::task::spawn_local(self.clone().dial_peer(peer))).collect()
    }

    async fn dial_peer(self: Rc<Self>, peer: Peer) {
        let Ok(identity) = peer.identity.parse() else { return };
        let relationship = self.source.store().with(|s| s.relationship);
        let mut pause = FIRST_PAUSE;
        let is_peer = |s: &State| s.peers.iter().any(|known| known.identity == peer.identity);
        while self.source.store().with(is_peer) {
            let dialled = dial(Dial {
                addresses: peer.addresses.clone(),
                peer: identity,
                keys: self.relationship.keys.clone(),
                terms: Terms { relationship, protocol: PROTOCOL..=PROTOCOL, software: software() },
                config: link_config(self.options.compress),
            });
            match dialled.await {
                Ok(link) => {
                    self.events.note(format!("connected to {}", link.about().remote));
                    self.take_link(link);
                    while self.is_connected(&peer.identity) {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    let served = self.links.borrow().get(&peer.identity).is_some_and(|slot| {
                        matches!(
                            slot.progress.verdict.borrow().as_ref().map(|v| v.rule),
                            Some(Rule::InStep | Rule::Delta | Rule::Ahead)
                        )
                    });
                    if served {
                        pause = FIRST_PAUSE;
                    }
                }
                Err(e) => {
                    let mut links = self.links.borrow_mut();
                    links.entry(peer.identity.clone()).or_default().last_error =
                        Some(e.to_string());
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    fn is_connected(&self, peer: &str) -> bool {
        self.links.borrow().get(peer).is_some_and(|slot| slot.connected)
    }

    fn take_link(self: &Rc<Self>, link: Link) {
        let peer = link.peer().to_string();
        let remote = link.about().remote.clone();
        let mut links = self.links.borrow_mut();
        let slot = links.entry(peer.clone()).or_default();
        // A replica follows one session; the one before is over, whether it knows or not.
        if let Some(old) = slot.task.take() {
            old.abort();
        }
        slot.progress = Rc::default();
        slot.remote = Some(remote);
        slot.connected = true;
        slot.meter = Some(link.meter());
        slot.forecast = RefCell::default();
        slot.number += 1;
        let (agent, progress, number) = (self.clone(), slot.progress.clone(), slot.number);
        slot.task = Some(tokio::task::spawn_local(async move {
            let (connection, inbox) = protocol::open(link);
            let settings = agent.serve_settings();
            let ended = serve_link(&agent.source, connection, inbox, &settings, &progress).await;
            agent.link_ended(&peer, number, ended);
        }));
    }

    fn link_ended(&self, peer: &str, number: u64, ended: replication::Result<()>) {
        // Sessions cut off by a task that was aborted leave their copy session to its drop.
        let error = ended.err().map(|e| of_replication(&e).what);
        let words = error.as_deref().unwrap_or("it closed the link");
        self.events.note(format!("replica: {words}"));
        let mut links = self.links.borrow_mut();
        if let Some(slot) = links.get_mut(peer).filter(|slot| slot.number == number) {
            slot.connected = false;
            slot.last_error = error;
            slot.task = None;
        }
    }

    /// Ends the session of one peer, and forgets what is known of its link.
    pub(super) fn end_link(&self, peer: &str) {
        if let Some(mut slot) = self.links.borrow_mut().remove(peer)
            && let Some(task) = slot.task.take()
        {
            task.abort();
        }
    }

    /// Ends all sessions.
    pub(super) fn end_links(&self) {
        for slot in self.links.borrow_mut().values_mut() {
            slot.connected = false;
            if let Some(task) = slot.task.take() {
                task.abort();
            }
        }
    }
}
