//! TLS configurations against each other in memory: who gets in, and with what error not.

use rustls::{ClientConnection, ServerConnection};

use super::*;

fn site() -> Arc<SiteKeys> {
    Arc::new(SiteKeys::generate().unwrap())
}

/// Runs a handshake in memory until one side fails or both are through.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from("grainhaul").unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut input = &bytes[..];
        while !input.is_empty() {
            server.read_tls(&mut input).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut input = &bytes[..];
        while !input.is_empty() {
            client.read_tls(&mut input).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn pinned_sites_meet_and_know_each_other() {
    let (primary, secondary) = (site(), site());
    let peers = PeerSet::new([secondary.identity()]);
    let server = pinned_server_config(&primary, &peers).unwrap();
    let client = pinned_client_config(&secondary, primary.identity()).unwrap();
    let (client_side, server_side) = handshake(&client, &server).unwrap();
    let shown = |certs: Option<&[CertificateDer<'static>]>| key_of(&certs.unwrap()[0]).unwrap();
    assert_eq!(shown(client_side.peer_certificates()), primary.identity().signing_key());
    assert_eq!(shown(server_side.peer_certificates()), secondary.identity().signing_key());
    assert_eq!(client_side.alpn_protocol(), Some(ALPN));
    assert_eq!(client_side.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    // Removed while running: the next handshake is refused.
    assert!(peers.remove(&secondary.identity()));
    let error = handshake(&client, &server).unwrap_err();
    assert_eq!(error, CertificateError::ApplicationVerificationFailure.into());
    peers.allow(secondary.identity());
    assert!(handshake(&client, &server).is_ok());
}

#[test]
fn a_stranger_is_refused_by_either_side() {
    let (primary, secondary, stranger) = (site(), site(), site());
    let peers = PeerSet::new([secondary.identity()]);
    let server = pinned_server_config(&primary, &peers).unwrap();
    let refused: rustls::Error = CertificateError::ApplicationVerificationFailure.into();
    let client = pinned_client_config(&stranger, primary.identity()).unwrap();
    assert_eq!(handshake(&client, &server).unwrap_err(), refused);
    let client = pinned_client_config(&secondary, stranger.identity()).unwrap();
    assert_eq!(handshake(&client, &server).unwrap_err(), refused);
}

/// Shows the certificate of one site and signs with the key of another.
#[test]
fn a_stolen_certificate_is_worth_nothing() {
    let (primary, secondary, thief) = (site(), site(), site());
    let server = pinned_server_config(&primary, &PeerSet::new([secondary.identity()])).unwrap();
    let honest = TlsKey { public: secondary.identity().signing_key(), keys: secondary };
    let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let chain = vec![params.self_signed(&honest).unwrap().der().clone()];
    let key = TlsKey { public: honest.public, keys: thief };
    let provider = provider();
    let pinned = Arc::new(PinnedPeers::new(PeerSet::new([primary.identity()]), &provider));
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pinned)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
            chain,
            Arc::new(key),
        ))));
    client.alpn_protocols = vec![ALPN.to_vec()];
    let error = handshake(&Arc::new(client), &server).unwrap_err();
    assert_eq!(error, CertificateError::BadSignature.into());
}

#[test]
fn another_protocol_is_refused() {
    let (primary, secondary) = (site(), site());
    let server = pinned_server_config(&primary, &PeerSet::new([secondary.identity()])).unwrap();
    let mut client = (*pinned_client_config(&secondary, primary.identity()).unwrap()).clone();
    client.alpn_protocols = vec![b"grainhaul/2".to_vec()];
    let error = handshake(&Arc::new(client), &server).unwrap_err();
    assert_eq!(error, rustls::Error::NoApplicationProtocol);
}

#[test]
fn damaged_certificates_have_no_key() {
    let keys = site();
    let key = TlsKey { public: keys.identity().signing_key(), keys };
    let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let der = params.self_signed(&key).unwrap().der().to_vec();
    assert_eq!(key_of(&CertificateDer::from(der.clone())), Some(key.public));
    for cut in 0..der.len() {
        assert_eq!(key_of(&CertificateDer::from(der[..cut].to_vec())), None);
    }
    let mut longer = der;
    longer.push(0);
    assert_eq!(key_of(&CertificateDer::from(longer)), None);
}

#[test]
fn an_own_pki_is_read_from_pem_and_errors_name_the_part() {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, ca_key).unwrap();
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &ca).unwrap(), key)
    };
    let (server_cert, server_key) = leaf("localhost");
    let (ca_pem, cert_pem, key_pem) =
        (ca.pem().into_bytes(), server_cert.pem().into_bytes(), server_key.serialize_pem());
    let server = pki_server_config(&ca_pem, &cert_pem, key_pem.as_bytes()).unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let builder = || {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let (client_cert, client_key) = leaf("client");
    let key = rustls::pki_types::PrivateKeyDer::try_from(client_key.serialize_der()).unwrap();
    let chain = vec![client_cert.der().clone()];
    let client = Arc::new(builder().with_client_auth_cert(chain, key).unwrap());
    let run = |client| {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(client, name).unwrap();
        let mut server = ServerConnection::new(server.clone()).unwrap();
        let mut outcome = Ok(());
        for _ in 0..4 {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).unwrap();
            }
            let mut input = &bytes[..];
            while !input.is_empty() && outcome.is_ok() {
                server.read_tls(&mut input).unwrap();
                outcome = server.process_new_packets().map(|_| ());
            }
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut input = &bytes[..];
            while !input.is_empty() && client.read_tls(&mut input).is_ok() {
                drop(client.process_new_packets());
            }
        }
        outcome
    };
    assert_eq!(run(client), Ok(()));
    assert!(run(Arc::new(builder().with_no_client_auth())).is_err());

    let part = |a: &[u8], c: &[u8], k: &[u8]| match pki_server_config(a, c, k) {
        Err(Error::Pki { part, .. }) => part,
        other => panic!("{other:?}"),
    };
    assert_eq!(part(b"", &cert_pem, key_pem.as_bytes()), "authority");
    assert_eq!(part(&ca_pem, b"nothing", key_pem.as_bytes()), "certificate");
    assert_eq!(part(&ca_pem, &cert_pem, b"nothing"), "key");
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    assert_eq!(part(&ca_pem, &cert_pem, other.as_bytes()), "certificate");
}
