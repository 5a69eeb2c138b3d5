//! The bare round trip over loopback with TLS 1.3: a message of the size of a streamed 4 KiB write there, a
//! confirmation back. Two threads, blocking sockets, nothing else: what a reply that waits for another site
//! costs at least.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls::{Stream, version::TLS13};

use crate::contest::median;

/// A streamed write of 4 KiB with its headers.
const THERE_BYTES: usize = 4096 + 128;
/// A confirmation.
const BACK_BYTES: usize = 48;
/// Round trips that do not count.
const WARM_UP: usize = 200;

/// The name in the certificate.
const HOST: &str = "localhost";

/// What a turn found.
pub struct RoundTrips {
    /// One after the other.
    pub per_second: f64,
    /// The median of one.
    pub median_us: f64,
}

/// Goes there and back for some time.
pub fn for_seconds(seconds: u64) -> Result<RoundTrips, String> {
    let (server, client) = configs().map_err(|e| format!("TLS: {e}"))?;
    let failed = |e: std::io::Error| format!("round trip: {e}");
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    std::thread::scope(|scope| {
        let answering = scope.spawn(move || answer(&listener, server));
        let stream = TcpStream::connect(address).map_err(failed)?;
        let measured = ask(stream, client, Duration::from_secs(seconds)).map_err(failed);
        answering.join().map_err(|_| "the answering side panicked")?.map_err(failed)?;
        measured
    })
}

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

fn configs() -> Result<Configs, Box<dyn std::error::Error>> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec![HOST.to_owned()])?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((Arc::new(server), Arc::new(client)))
}

fn answer(listener: &TcpListener, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let (mut socket, _) = listener.accept()?;
    socket.set_nodelay(true)?;
    let mut session = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut session, &mut socket);
    let mut there = [0; THERE_BYTES];
    loop {
        match stream.read_exact(&mut there) {
            Ok(()) => stream.write_all(&[1; BACK_BYTES])?,
            // The other side has enough.
            Err(_) => return Ok(()),
        }
    }
}

fn ask(
    mut socket: TcpStream,
    config: Arc<ClientConfig>,
    time: Duration,
) -> std::io::Result<RoundTrips> {
    socket.set_nodelay(true)?;
    let name = ServerName::try_from(HOST).map_err(std::io::Error::other)?;
    let mut session = ClientConnection::new(config, name).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut session, &mut socket);
    let mut once = || -> std::io::Result<f64> {
        let begun = Instant::now();
        stream.write_all(&[2; THERE_BYTES])?;
        stream.read_exact(&mut [0; BACK_BYTES])?;
        Ok(begun.elapsed().as_secs_f64() * 1e6)
    };
    for _ in 0..WARM_UP {
        once()?;
    }
    let begun = Instant::now();
    let mut taken = Vec::new();
    while begun.elapsed() < time {
        taken.push(once()?);
    }
    let per_second = taken.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(RoundTrips { per_second, median_us: median(&taken).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_there_and_back() {
        let found = for_seconds(1).unwrap();
        assert!(found.per_second > 0.0 && found.median_us > 0.0);
        assert!(found.median_us * found.per_second < 2e6, "one after the other");
    }
}
