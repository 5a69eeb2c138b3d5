//! STARTTLS over TCP with client certificates: our client, libnbd's, and those that are refused.

mod harness;

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use harness::{noise, on_one_thread, run_tool, try_tool};
use nbd::{Client, ConnectOptions, Error, Export, Limits, MemoryExport, Server};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;

/// An authority and what it certifies.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "test authority");
        let certificate = params.self_signed(&key).expect("a certificate");
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        Arc::new(roots)
    }

    fn server_config(&self) -> Arc<rustls::ServerConfig> {
        let (certificate, key) = self.issue();
        let verifier = WebPkiClientVerifier::builder(self.roots()).build().expect("a verifier");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let versions = &[&rustls::version::TLS13];
        let config = rustls::ServerConfig::builder_with_protocol_versions(versions)
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.expect("a configuration"))
    }

    /// A client that trusts `self`, with a certificate of `own` if there is one.
    fn client_options(&self, own: Option<&Authority>) -> ConnectOptions {
        let versions = &[&rustls::version::TLS13];
        let builder = rustls::ClientConfig::builder_with_protocol_versions(versions)
            .with_root_certificates(self.roots());
        let config = match own.map(Authority::issue) {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                let chain = vec![certificate.der().clone()];
                builder.with_client_auth_cert(chain, key).expect("a configuration")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        ConnectOptions { tls: Some((Arc::new(config), name)), ..ConnectOptions::default() }
    }

    /// The files that libnbd looks for in a directory.
    fn write_for_libnbd(&self, directory: &Path) {
        let (certificate, key) = self.issue();
        let files = [
            ("ca-cert.pem", self.certificate.pem()),
            ("client-cert.pem", certificate.pem()),
            ("client-key.pem", key.serialize_pem()),
        ];
        for (name, content) in files {
            std::fs::write(directory.join(name), content).expect("room for a file");
        }
    }
}

async fn serve(authority: &Authority) -> (Server, SocketAddr, Rc<MemoryExport>) {
    let memory = Rc::new(MemoryExport::new(8 << 20));
    let exports = vec![("disk".to_owned(), Rc::clone(&memory) as Rc<dyn Export>)];
    let config = Some(authority.server_config());
    let server = Server::new(exports, Limits::default(), config).expect("fine exports");
    let address = "127.0.0.1:0".parse().expect("an address");
    let bound = server.serve_tcp(address).await.expect("bound");
    (server, bound, memory)
}

#[test]
fn our_client_upgrades_and_works() {
    on_one_thread(async {
        let authority = Authority::new();
        let (server, address, _) = serve(&authority).await;
        let options = authority.client_options(Some(&authority));
        let client = Client::connect_tcp(address, &options).await.expect("upgraded");
        let content = Bytes::from(noise(5 << 20, 9));
        client.write(0, content.clone(), true).await.expect("written");
        assert!(client.read(0, 5 << 20).await.expect("read") == content);
        assert!(server.connections()[0].tls);
        client.disconnect().await;
    });
}

#[test]
fn strangers_and_plain_clients_get_nothing() {
    on_one_thread(async {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let (server, address, _) = serve(&authority).await;
        let plain = ConnectOptions::default();
        let error = Client::connect_tcp(address, &plain).await.map(drop).expect_err("refused");
        assert!(matches!(error, Error::Refused { reply: 0x8000_0005, .. }), "{error}");
        for own in [None, Some(&stranger)] {
            let options = authority.client_options(own);
            Client::connect_tcp(address, &options).await.map(drop).expect_err("refused");
        }
        // The client, too, checks whom it speaks to.
        let options = stranger.client_options(Some(&authority));
        Client::connect_tcp(address, &options).await.map(drop).expect_err("refused");
        assert!(server.connections().is_empty());
    });
}

#[test]
fn libnbd_upgrades_with_its_certificate_and_not_without() {
    on_one_thread(async {
        let authority = Authority::new();
        let (_, address, memory) = serve(&authority).await;
        let directory = tempfile::tempdir().expect("a temporary directory");
        authority.write_for_libnbd(directory.path());
        let port = address.port();
        let script = format!(
            r"
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_certificates('{}')
h.connect_tcp('localhost', '{port}')
assert h.get_tls_negotiated() and h.get_structured_replies_negotiated()
h.pwrite(b'secret' * 100000, 3)
assert h.pread(600000, 3) == b'secret' * 100000
h.shutdown()
",
            directory.path().display()
        );
        run_tool("nbdsh", &["-c", &script]).await;
        let mut written = [0; 6];
        memory.read(3, &mut written);
        assert_eq!(written, *b"secret");
        let plain = format!("nbd://localhost:{port}/disk");
        let output = try_tool("nbdinfo", &[&plain]).await;
        assert!(!output.status.success(), "no export without TLS");
        let foreign = tempfile::tempdir().expect("a temporary directory");
        Authority::new().write_for_libnbd(foreign.path());
        let ca = authority.certificate.pem();
        std::fs::write(foreign.path().join("ca-cert.pem"), ca).expect("room for a file");
        let script = script.replace(
            &directory.path().display().to_string(),
            &foreign.path().display().to_string(),
        );
        let output = try_tool("nbdsh", &["-c", &script]).await;
        assert!(!output.status.success(), "a stranger's certificate");
    });
}
