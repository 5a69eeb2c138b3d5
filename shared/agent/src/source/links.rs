//! The door for replicas: each link is served by a task; a new one of the same peer ends the old one
//! first.

use std::net::SocketAddr;
use std::rc::Rc;

use replication::protocol;
use replication::source::{LinkProgress, serve_link};
use site::Problem;
use tokio::task::JoinHandle;
use wire::PeerSet;
use wire::link::{Incoming, Link, LinkConfig, Listen, Listener, Terms};

use super::SourceAgent;
use crate::problem::{of_relationship, of_replication, of_wire};

/// The version of the replication protocol that is spoken.
pub(crate) const PROTOCOL: u16 = 1;
/// Links up at a time.
const MAX_LINKS: usize = 8;

/// What is known of one peer's link.
#[derive(Default)]
pub(super) struct LinkSlot {
    pub(super) progress: Rc<LinkProgress>,
    pub(super) remote: Option<String>,
    pub(super) connected: bool,
    pub(super) last_error: Option<String>,
    task: Option<JoinHandle<()>>,
    number: u64,
}

/// What this program calls itself to its peers.
pub(crate) fn software() -> String {
    format!("grainhaul {}", env!("CARGO_PKG_VERSION"))
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
        let relationship = self.source.store().with(|s| s.relationship);
        let listener = Listener::bind(Listen {
            addresses: self.options.listen.clone(),
            keys: self.relationship.keys.clone(),
            peers: PeerSet::new(peers),
            terms: Terms { relationship, protocol: PROTOCOL..=PROTOCOL, software: software() },
            config: LinkConfig::default(),
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
                Incoming::Link(link) => self.take_link(link),
                Incoming::Turned { remote, error } => {
                    self.events.note(format!("{remote} was not let in: {error}"));
                }
            }
        }
    }

    fn take_link(self: &Rc<Self>, link: Link) {
        let peer = link.peer().to_string();
        let remote = link.about().remote.clone();
        self.events.note(format!("a replica connected from {remote}"));
        let mut links = self.links.borrow_mut();
        let slot = links.entry(peer.clone()).or_default();
        // A replica follows one session; the one before is over, whether it knows or not.
        if let Some(old) = slot.task.take() {
            old.abort();
        }
        slot.progress = Rc::default();
        slot.remote = Some(remote);
        slot.connected = true;
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
