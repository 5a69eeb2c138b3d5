//! [`Server`]: listens, accepts, runs connections, shuts down.
//!
//! Everything runs as local tasks of the caller's thread; call it inside a `LocalSet`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::TlsAcceptor;

use crate::connection::{Connection, End};
use crate::export::Export;
use crate::handshake::{Terms, serve_handshake};
use crate::link::{Commons, Link};
use crate::listen::{UnixSocket, bind_tcp};
use crate::negotiation::Chosen;
use crate::protocol::MAX_STRING;
use crate::stats::ConnectionStats;
use crate::stream::Stream;
use crate::{Error, Limits};

/// After a failed `accept` (no file descriptors left, say) the listener rests so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An NBD server. Cheap to clone; all clones are the same server.
#[derive(Clone)]
pub struct Server {
    inner: Rc<Inner>,
}

struct Inner {
    exports: Vec<(String, Rc<dyn Export>)>,
    limits: Limits,
    tls: Option<TlsAcceptor>,
    commons: Rc<Commons>,
    next_id: Cell<u64>,
    /// Connections in the transmission phase.
    active: RefCell<BTreeMap<u64, Active>>,
}

/// What is remembered of a connection for stats and shutdown.
struct Active {
    link: Rc<Link>,
    export: String,
    peer: String,
    tls: bool,
}

impl Server {
    /// A server of `exports` by name; the first is also what clients get that name none.
    ///
    /// `tls` is needed for TCP: TLS 1.3 with a required client certificate is the caller's choice
    /// in that configuration. Fails when a name is empty, used twice, or longer than 4096 bytes, or
    /// when a description contradicts the protocol's bounds.
    pub fn new(
        exports: Vec<(String, Rc<dyn Export>)>,
        limits: Limits,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<Server, Error> {
        for (at, (name, export)) in exports.iter().enumerate() {
            let wrong = |problem| Err(Error::Export { name: name.clone(), problem });
            let twice = exports[..at].iter().any(|(other, _)| other == name);
            if name.is_empty() || name.len() > MAX_STRING || name.contains('\0') || twice {
                return wrong("a name has 1 to 4096 bytes, no NUL, and is used once");
            }
            let blocks = export.describe().blocks;
            let sized = blocks.minimum.is_power_of_two()
                && blocks.preferred.is_power_of_two()
                && blocks.minimum <= 65536
                && blocks.preferred >= blocks.minimum.max(512)
                && blocks.max_payload >= blocks.preferred;
            if !sized {
                return wrong("block sizes outside the protocol's bounds");
            }
        }
        let inner = Inner {
            exports,
            limits,
            tls: tls.map(TlsAcceptor::from),
            commons: Rc::default(),
            next_id: Cell::new(1),
            active: RefCell::default(),
        };
        Ok(Server { inner: Rc::new(inner) })
    }

    /// Listens on a Unix socket (mode 0600) until shutdown; returns when it is bound. A stale
    /// socket is replaced, a live one is [`Error::SocketInUse`].
    pub async fn serve_unix(&self, path: &Path) -> Result<(), Error> {
        let socket = UnixSocket::bind(path).await?;
        let server = self.clone();
        tokio::task::spawn_local(async move {
            let places = Rc::new(Cell::new(0));
            while let Some(accepted) = server.unless_stopping(socket.listener.accept()).await {
                let accepted = accepted.map(|(stream, _)| (Stream::unix(stream), None));
                server.admit(accepted, &places).await;
            }
        });
        Ok(())
    }

    /// Listens on a TCP address until shutdown; returns the bound address. With a TLS configuration
    /// clients must upgrade before anything else; without, only loopback addresses are accepted, and
    /// only where [`Limits::plain_loopback`] says so.
    pub async fn serve_tcp(&self, address: SocketAddr) -> Result<SocketAddr, Error> {
        let inner = &self.inner;
        let listener = bind_tcp(address, inner.tls.is_some(), inner.limits.plain_loopback).await?;
        let bound = listener.local_addr().map_err(Error::io("ask for the bound address"))?;
        let server = self.clone();
        tokio::task::spawn_local(async move {
            let places = Rc::new(Cell::new(0));
            while let Some(accepted) = server.unless_stopping(listener.accept()).await {
                let accepted = accepted.and_then(|(stream, peer)| {
                    let stream = Stream::tcp(stream).map_err(io::Error::other)?;
                    Ok((stream, Some(peer)))
                });
                server.admit(accepted, &places).await;
            }
        });
        Ok(bound)
    }

    /// Serves one socket that is connected already, from the handshake to its end; for a socket pair,
    /// or one that was passed on by whoever accepted it.
    pub async fn serve_connected(&self, stream: tokio::net::UnixStream) {
        self.serve(Stream::unix(stream), None).await;
    }

    /// Waits for `accept`, or gives `None` when the server is being shut down.
    async fn unless_stopping<T>(&self, accept: impl Future<Output = T>) -> Option<T> {
        let commons = &self.inner.commons;
        let mut accept = std::pin::pin!(accept);
        loop {
            if commons.stopping.get() {
                return None;
            }
            tokio::select! {
                biased;
                () = commons.changed.notified() => {}
                accepted = &mut accept => return Some(accepted),
            }
        }
    }

    /// Starts a connection if there is a place for it on its listener.
    async fn admit(
        &self,
        accepted: io::Result<(Stream, Option<SocketAddr>)>,
        places: &Rc<Cell<usize>>,
    ) {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                return tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        };
        if places.get() >= self.inner.limits.connections {
            tracing::warn!(limit = places.get(), "too many connections; one is turned away");
            return;
        }
        places.set(places.get() + 1);
        self.inner.commons.connections.set(self.inner.commons.connections.get() + 1);
        let place = Place { commons: Rc::clone(&self.inner.commons), places: Rc::clone(places) };
        let server = self.clone();
        tokio::task::spawn_local(async move {
            server.serve(stream, peer).await;
            drop(place);
        });
    }

    /// One connection from handshake to end.
    pub(crate) async fn serve(&self, stream: Stream, peer: Option<SocketAddr>) {
        let inner = &self.inner;
        let id = inner.next_id.replace(inner.next_id.get() + 1);
        let peer_name = peer.map_or_else(|| "unix".to_owned(), |address| address.to_string());
        let terms = Terms {
            exports: &inner.exports,
            tls: inner.tls.clone().filter(|_| peer.is_some()),
            limits: inner.limits,
            stopping: &inner.commons.stopping,
        };
        let handshake = self.unless_stopping_for_long(serve_handshake(stream, &terms));
        match handshake.await {
            Some(Ok(Some((stream, chosen)))) => self.transmit(id, peer_name, stream, chosen).await,
            Some(Ok(None)) | None => tracing::debug!(id, peer = peer_name, "left before GO"),
            Some(Err(error)) => tracing::info!(id, peer = peer_name, %error, "handshake failed"),
        }
    }

    /// A handshake under way at shutdown gets the farewell time to learn of it.
    async fn unless_stopping_for_long<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let stopped = async {
            while !self.inner.commons.stopping.get() {
                self.inner.commons.changed.notified().await;
            }
            tokio::time::sleep(self.inner.limits.farewell).await;
        };
        tokio::select! {
            biased;
            done = &mut work => Some(done),
            () = stopped => None,
        }
    }

    async fn transmit(&self, id: u64, peer: String, stream: Stream, chosen: Chosen) {
        let inner = &self.inner;
        let Chosen { name, export, rules } = chosen;
        let payload = rules.description.blocks.max_payload as usize;
        let size = rules.description.size_bytes;
        let link = Rc::new(Link::new(rules.style, size, payload, Rc::clone(&inner.commons)));
        let tls = matches!(stream, Stream::Tls(_));
        tracing::debug!(id, peer, export = name, tls, "connected");
        let active = Active { link: Rc::clone(&link), export: name, peer, tls };
        inner.active.borrow_mut().insert(id, active);
        let end = Connection::new(stream, link, export, rules, inner.limits).run().await;
        inner.active.borrow_mut().remove(&id);
        match end {
            End::Violation(error) => tracing::info!(id, %error, "disconnected"),
            End::Broken(error) => tracing::debug!(id, %error, "disconnected"),
            End::Disconnect | End::Closed | End::Shutdown => tracing::debug!(id, "disconnected"),
        }
    }

    /// Shuts down: accepts no more, answers new commands with `ESHUTDOWN`, and returns when every
    /// command in flight was answered and every connection is closed.
    pub async fn shutdown(&self) {
        let commons = &self.inner.commons;
        commons.stopping.set(true);
        commons.changed.notify_waiters();
        for active in self.inner.active.borrow().values() {
            active.link.wake();
        }
        loop {
            let changed = commons.changed.notified();
            if commons.connections.get() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The connections in the transmission phase, oldest first.
    pub fn connections(&self) -> Vec<ConnectionStats> {
        let active = self.inner.active.borrow();
        let stats = active.iter().map(|(id, active)| ConnectionStats {
            id: *id,
            export: active.export.clone(),
            peer: active.peer.clone(),
            tls: active.tls,
            counts: active.link.counters.get(),
            in_flight: active.link.in_flight(),
            in_flight_bytes: active.link.in_flight_bytes(),
        });
        stats.collect()
    }
}

/// A connection's place among those allowed; given back when its last command has ended.
struct Place {
    commons: Rc<Commons>,
    places: Rc<Cell<usize>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.set(self.places.get() - 1);
        self.commons.connections.set(self.commons.connections.get() - 1);
        self.commons.changed.notify_waiters();
    }
}
