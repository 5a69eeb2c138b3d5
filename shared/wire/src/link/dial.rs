//! Dialling: the side that opens the link. Each link lives on a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::connect::secure_dialled;
use super::hello::{Greeted, Terms};
use super::{About, Link, LinkConfig, new_link, session, socket};
use crate::ticket::check_address;
use crate::{Error, Identity, SiteKeys, tls};

/// A name may have many addresses; no more than this many of each are tried.
const MAX_RESOLVED: usize = 8;

/// What is needed to dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// `HOST:PORT`, tried in this order until one lets us in.
    pub addresses: Vec<String>,
    /// Who must answer.
    pub peer: Identity,
    /// Who we are.
    pub keys: Arc<SiteKeys>,
    /// What we want.
    pub terms: Terms,
    /// How the link shall behave.
    pub config: LinkConfig,
}

/// Opens a link to `peer`. When the future is dropped, the attempt ends.
///
/// Fails with what the peer said when somebody answered ([`Error::Refused`], [`Error::Stranger`],
/// [`Error::Protocol`]), else with [`Error::Unreachable`] and what happened at each address. Does not
/// retry.
pub async fn dial(dial: Dial) -> Result<Link, Error> {
    let (send, receive) = oneshot::channel();
    spawn_thread("wire-dial", move || run(dial, send))?;
    receive.await.unwrap_or(Err(Error::Crypto("the thread of the link died")))
}

/// A thread with a name that says what it is for in a listing.
pub(super) fn spawn_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    // Detached: a link ends by its queues, and whoever must know waits on `LinkSender::ended`.
    thread.map(drop).map_err(|e| Error::io("starting a thread", e))
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::io("starting the thread of a link", e))
}

fn run(dial: Dial, mut answer: oneshot::Sender<Result<Link, Error>>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        // Nobody may be waiting any more; then nobody needs the answer.
        Err(e) => return drop(answer.send(Err(e))),
    };
    runtime.block_on(async {
        let connected = tokio::select! {
            biased;
            () = answer.closed() => return,
            connected = connect(&dial) => connected,
        };
        let (stream, remote, greeted) = match connected {
            Ok(connected) => connected,
            Err(e) => return drop(answer.send(Err(e))),
        };
        let Greeted { protocol, software, input, decoder } = greeted;
        let about = About { peer: dial.peer, remote: remote.to_string(), protocol, software };
        let (link, ends) = new_link(about, &dial.config);
        // If nobody waits any more, the link is dropped here and the session closes it at once.
        drop(answer.send(Ok(link)));
        session::run(stream, input, decoder, ends, dial.config).await;
    });
    // Name lookups may still hang in a helper thread; they must not hold us.
    runtime.shutdown_background();
}

type Connected = (TlsStream<TcpStream>, SocketAddr, Greeted);

async fn connect(dial: &Dial) -> Result<Connected, Error> {
    let config = tls::pinned_client_config(&dial.keys, dial.peer)?;
    let (mut tried, mut answered) = (Vec::new(), None);
    for address in &dial.addresses {
        let resolved = match resolve(address, dial).await {
            Ok(resolved) => resolved,
            Err(e) => {
                tried.push(format!("{address}: {e}"));
                continue;
            }
        };
        for remote in resolved {
            let attempt = async {
                let tcp = open(remote, dial).await?;
                let greeting = secure_dialled(tcp, config.clone(), &dial.terms);
                timeout(dial.config.handshake_timeout, greeting).await.unwrap_or(Err(
                    Error::TimedOut { what: "the handshake", after: dial.config.handshake_timeout },
                ))
            };
            match attempt.await {
                Ok((stream, greeted)) => return Ok((stream, remote, greeted)),
                Err(e) => {
                    tracing::debug!(%remote, error = %e, "a dialled address did not let us in");
                    tried.push(format!("{address} ({remote}): {e}"));
                    if e.is_an_answer() {
                        answered.get_or_insert(e);
                    }
                }
            }
        }
    }
    Err(answered.unwrap_or(Error::Unreachable { tried }))
}

async fn resolve(address: &str, dial: &Dial) -> Result<Vec<SocketAddr>, Error> {
    check_address(address).map_err(Error::Address)?;
    let after = dial.config.connect_timeout;
    let resolved = timeout(after, lookup_host(address))
        .await
        .map_err(|_| Error::TimedOut { what: "looking the name up", after })?
        .map_err(|e| Error::io("looking the name up", e))?;
    Ok(resolved.take(MAX_RESOLVED).collect())
}

async fn open(remote: SocketAddr, dial: &Dial) -> Result<TcpStream, Error> {
    let after = dial.config.connect_timeout;
    let connect = async {
        let socket = if remote.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(bytes) = dial.config.socket_buffer_bytes {
            // The receive window's scale is fixed when the connection opens.
            socket.set_recv_buffer_size(bytes.min(u32::MAX as usize) as u32)?;
        }
        let stream = socket.connect(remote).await?;
        socket::tune(&stream, &dial.config)?;
        Ok(stream)
    };
    timeout(after, connect)
        .await
        .map_err(|_| Error::TimedOut { what: "connecting", after })?
        .map_err(|e| Error::io("connecting", e))
}
