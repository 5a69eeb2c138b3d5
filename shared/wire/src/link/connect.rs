//! From a TCP connection to a greeted TLS stream, on either side, and what its errors mean in words.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

use super::hello::{self, Greeted, Terms, refusal};
use crate::{Error, Identity, PeerSet, tls};

/// How much plain text TLS may hold ready to be sent: large enough for one system call per batch.
const TLS_BUFFER_BYTES: usize = 1 << 20;

/// What an error of the stream means. TLS reports its findings inside I/O errors.
pub(super) fn stream_error(error: io::Error) -> Error {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let refused = |by_peer, code, text: &str| Error::Refused { by_peer, code, text: text.into() };
    let not_pinned = rustls::Error::from(CertificateError::ApplicationVerificationFailure);
    match inner {
        Some(e) if *e == not_pinned => Error::Stranger("it shows a key that is not pinned here"),
        Some(rustls::Error::InvalidCertificate(_)) => {
            Error::Stranger("it shows no certificate that proves a key")
        }
        Some(rustls::Error::NoCertificatesPresented) => Error::Stranger("it shows no key"),
        Some(rustls::Error::NoApplicationProtocol) => {
            refused(false, refusal::VERSION, "the other side speaks another version of the link")
        }
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => refused(
            true,
            refusal::VERSION,
            "the other side speaks another version of the link; update the older side",
        ),
        Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => {
            refused(true, refusal::KEY, "the key of this site is not pinned at the other side")
        }
        Some(e) => Error::Protocol(format!("TLS: {e}")),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::Cut("the connection ended in the middle".into())
        }
        None => Error::Cut(error.to_string()),
    }
}

/// Greets over a connection that was dialled.
pub(super) async fn secure_dialled(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    terms: &Terms,
) -> Result<(TlsStream<TcpStream>, Greeted), Error> {
    let name = ServerName::try_from("grainhaul").map_err(|_| Error::Crypto("no server name"))?;
    let connector = TlsConnector::from(config);
    let mut tls = connector.connect(name, tcp).await.map_err(stream_error)?;
    let connection = tls.get_mut().1;
    connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    if connection.alpn_protocol() != Some(tls::ALPN) {
        return Err(Error::Protocol("it does not say that it speaks `grainhaul/1`".into()));
    }
    let mut tls = TlsStream::from(tls);
    let greeted = hello::as_dialer(&mut tls, terms).await?;
    Ok((tls, greeted))
}

/// Authenticates a connection that came in, and reads its hello. A visitor that does not even ask for
/// our protocol gets no byte. The outer error is for one whose TLS failed, the inner one for one that
/// is known and has to be told.
pub(super) async fn secure_accepted(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    peers: &PeerSet,
    terms: &Terms,
) -> Result<(TlsStream<TcpStream>, Identity, Result<Greeted, Error>), Error> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
    let start = start.await.map_err(stream_error)?;
    let ours = |name: &[u8]| name.starts_with(tls::ALPN_FAMILY);
    if !start.client_hello().alpn().is_some_and(|mut names| names.any(ours)) {
        return Err(Error::Stranger("it does not ask for our protocol"));
    }
    let mut tls = start.into_stream(config).await.map_err(stream_error)?;
    let connection = tls.get_mut().1;
    connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    let peer = shown.and_then(tls::key_of).and_then(|key| peers.find(&key));
    // Pinned during the handshake, removed meanwhile: as if it had never been.
    let peer = peer.ok_or(Error::Stranger("its key is not pinned any more"))?;
    if connection.alpn_protocol() != Some(tls::ALPN) {
        return Err(Error::Protocol("it does not speak `grainhaul/1`".into()));
    }
    let mut tls = TlsStream::from(tls);
    let greeted = hello::as_listener(&mut tls, terms).await;
    Ok((tls, peer, greeted))
}
