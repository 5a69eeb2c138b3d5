//! Listening: the side that is dialled.
//!
//! One thread accepts connections; each gets a thread of its own for its handshake and, if it is let
//! in, for its life. Who has not proven a pinned key is limited in number and time, and what is beyond
//! the number is dropped at once, so that strangers cannot crowd out each other's time-outs.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsStream;

use super::connect::secure_accepted;
use super::dial::{runtime, spawn_thread};
use super::hello::{self, Greeted, Terms, refusal};
use super::{About, Link, LinkConfig, new_link, session, socket};
use crate::{Error, Identity, PeerSet, SiteKeys, tls};

/// How many connections may be in their handshake at a time.
const MAX_UNPROVEN: usize = 32;
/// How many events may wait for [`Listener::next`]. Reports of strangers beyond are dropped.
const MAX_EVENTS: usize = 64;

/// What is needed to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where: addresses of this machine. Port 0 takes a free one.
    pub addresses: Vec<SocketAddr>,
    /// Who we are.
    pub keys: Arc<SiteKeys>,
    /// Who is let in.
    pub peers: PeerSet,
    /// What is served.
    pub terms: Terms,
    /// How links shall behave.
    pub config: LinkConfig,
    /// How many links may be up at a time. A peer that lost its connection comes back before the old
    /// one is noticed to be dead, so leave room.
    pub max_links: usize,
}

/// What happened at the door.
#[derive(Debug)]
pub enum Incoming {
    /// A peer was let in.
    Link(Link),
    /// Somebody was not, and why.
    Turned {
        /// From where.
        remote: SocketAddr,
        /// Why.
        error: Error,
    },
}

/// An open door. Dropping it closes the door; links that are up stay.
#[derive(Debug)]
pub struct Listener {
    events: mpsc::Receiver<Incoming>,
    local: Vec<SocketAddr>,
    /// Dropped with the listener: tells the accepting thread to stop.
    _open: watch::Sender<()>,
}

impl Listener {
    /// Opens the door. Fails when an address cannot be taken.
    pub fn bind(listen: Listen) -> Result<Self, Error> {
        let mut sockets = Vec::new();
        let mut local = Vec::new();
        for address in &listen.addresses {
            let failed = |e| Error::Listen { address: *address, source: Arc::new(e) };
            let socket = TcpListener::bind(address).map_err(failed)?;
            socket.set_nonblocking(true).map_err(failed)?;
            local.push(socket.local_addr().map_err(failed)?);
            sockets.push(socket);
        }
        let (events_sender, events) = mpsc::channel(MAX_EVENTS);
        let (open, stop) = watch::channel(());
        let door = Arc::new(Door {
            config: tls::pinned_server_config(&listen.keys, &listen.peers)?,
            unproven: Arc::new(Semaphore::new(MAX_UNPROVEN)),
            links: Arc::new(Semaphore::new(listen.max_links)),
            listen,
            events: events_sender,
            stop,
        });
        spawn_thread("wire-listen", move || accept_all(sockets, &door))?;
        Ok(Listener { events, local, _open: open })
    }

    /// The addresses that were taken, in the order asked for.
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.local
    }

    /// The next event. Fails only when the accepting thread has died.
    pub async fn next(&mut self) -> Result<Incoming, Error> {
        self.events.recv().await.ok_or(Error::Crypto("the listening thread has died"))
    }
}

struct Door {
    listen: Listen,
    config: Arc<rustls::ServerConfig>,
    unproven: Arc<Semaphore>,
    links: Arc<Semaphore>,
    events: mpsc::Sender<Incoming>,
    stop: watch::Receiver<()>,
}

impl Door {
    /// Strangers may fill the queue of events; then their reports are dropped, never links.
    fn report(&self, remote: SocketAddr, error: Error) {
        tracing::info!(%remote, %error, "a visitor was turned away");
        drop(self.events.try_send(Incoming::Turned { remote, error }));
    }
}

fn accept_all(sockets: Vec<TcpListener>, door: &Arc<Door>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "the listener cannot start"),
    };
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for socket in sockets {
            match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => drop(tasks.spawn(accept_on(socket, door.clone()))),
                Err(error) => tracing::error!(%error, "the listener cannot start"),
            }
        }
        let mut stop = door.stop.clone();
        // Nothing is ever sent: this returns when the listener is dropped.
        while stop.changed().await.is_ok() {}
        tasks.abort_all();
    });
}

async fn accept_on(socket: tokio::net::TcpListener, door: Arc<Door>) {
    loop {
        let (stream, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: asking again at once would only spin.
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = door.unproven.clone().try_acquire_owned() else {
            door.report(remote, Error::TooManyVisitors { limit: MAX_UNPROVEN });
            continue;
        };
        let started = stream.into_std().map_err(|e| Error::io("taking a connection", e));
        let started = started.and_then(|stream| {
            let door = door.clone();
            spawn_thread("wire-link", move || serve(stream, remote, permit, &door))
        });
        if let Err(error) = started {
            door.report(remote, error);
        }
    }
}

fn serve(
    stream: std::net::TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
    door: &Door,
) {
    let outcome = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let stream =
                TcpStream::from_std(stream).map_err(|e| Error::io("taking a connection", e))?;
            visit(stream, remote, permit, door).await
        })
    });
    if let Err(error) = outcome {
        door.report(remote, error);
    }
}

async fn visit(
    tcp: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
    door: &Door,
) -> Result<(), Error> {
    let config = &door.listen.config;
    socket::tune(&tcp, config).map_err(|e| Error::io("setting socket options", e))?;
    let after = config.handshake_timeout;
    let overdue = || Error::TimedOut { what: "the handshake", after };
    let (stream, peer, greeted, slot) =
        timeout(after, prove(tcp, door)).await.unwrap_or_else(|_| Err(overdue()))?;
    drop(permit);
    let Greeted { protocol, software, input, decoder } = greeted;
    let about = About { peer, remote: remote.to_string(), protocol, software };
    let (link, ends) = new_link(about, config);
    // The relationship takes links as they come; if the door was closed meanwhile, the link is
    // dropped here and the session closes it.
    drop(timeout(after, door.events.send(Incoming::Link(link))).await);
    session::run(stream, input, decoder, ends, config.clone()).await;
    drop(slot);
    Ok(())
}

type Proven = (TlsStream<TcpStream>, Identity, Greeted, OwnedSemaphorePermit);

async fn prove(tcp: TcpStream, door: &Door) -> Result<Proven, Error> {
    let Listen { peers, terms, .. } = &door.listen;
    let (mut stream, peer, greeted) =
        secure_accepted(tcp, door.config.clone(), peers, terms).await?;
    let slot = door.links.clone().try_acquire_owned();
    let verdict = greeted.and_then(|greeted| match slot {
        Ok(slot) => Ok((greeted, slot)),
        Err(_) => {
            let text = format!("{} links are up already", door.listen.max_links);
            Err(Error::Refused { by_peer: false, code: refusal::BUSY, text })
        }
    });
    match verdict {
        Ok((greeted, slot)) => {
            hello::welcome(&mut stream, greeted.protocol, terms).await?;
            Ok((stream, peer, greeted, slot))
        }
        Err(error) => {
            if let Error::Refused { code, text, .. } = &error {
                // What we found counts more than whether the words arrived.
                drop(hello::refuse(&mut stream, *code, text).await);
            }
            Err(error)
        }
    }
}
