//! TLS between sites: version 1.3 only, AES-GCM, both sides authenticated by their pinned Ed25519 key.
//!
//! A certificate is only the envelope in which TLS carries the key: it is self-signed, made anew at
//! each start, and its names and dates are ignored (`docs/decisions/0034`). What counts is that the
//! key in it is pinned and that the handshake is signed with it. Sessions are never resumed, so that a
//! peer that was removed has to show its key again and is refused.
//!
//! The server helper at the end serves clients with an own PKI (NBD over TLS), not sites.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Error, Identity, PeerSet, SiteKeys};

mod pki;
pub use pki::pki_server_config;

/// The name of our protocol inside TLS (ALPN, RFC 7301). The number is that of the frame layer; the
/// versions of the messages inside are agreed in the first frame.
pub const ALPN: &[u8] = b"grainhaul/1";
/// What the names of all versions begin with.
pub(crate) const ALPN_FAMILY: &[u8] = b"grainhaul/";

/// aws-lc-rs with AES-GCM only: faster than ChaCha20 wherever we run, and one thing less to reason
/// about.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(provider)
}

/// The listening side: lets in whoever proves to hold a key of `peers`.
pub fn pinned_server_config(
    keys: &Arc<SiteKeys>,
    peers: &PeerSet,
) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedPeers::new(peers.clone(), &provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| Error::Crypto("TLS 1.3 is not available"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificate(keys)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The dialling side: talks only to `peer`.
pub fn pinned_client_config(
    keys: &Arc<SiteKeys>,
    peer: Identity,
) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider();
    let verifier = Arc::new(PinnedPeers::new(PeerSet::new([peer]), &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| Error::Crypto("TLS 1.3 is not available"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(certificate(keys)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

/// The Ed25519 public key in a certificate, if that is what it holds. Everything that a stranger shows
/// comes through here, before it has proven anything.
pub fn key_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (rest, parsed) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    let spki = parsed.public_key();
    let is_ed25519 = spki.algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519;
    if !rest.is_empty() || !is_ed25519 || spki.algorithm.parameters.is_some() {
        return None;
    }
    spki.subject_public_key.data.as_ref().try_into().ok()
}

fn certificate(keys: &Arc<SiteKeys>) -> Result<SingleCertAndKey, Error> {
    let failed = |_| Error::Crypto("the certificate cannot be made");
    let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(failed)?;
    // Nothing about the site but its key: a scanner learns no name.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "grainhaul");
    let key = TlsKey { public: keys.identity().signing_key(), keys: keys.clone() };
    let certificate = params.self_signed(&key).map_err(failed)?;
    let chain = vec![certificate.der().clone()];
    Ok(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::new(key))))
}

/// The site key as the certificate maker and the TLS stack want it; the secret is not copied.
#[derive(Clone, Debug)]
struct TlsKey {
    public: [u8; 32],
    keys: Arc<SiteKeys>,
}

impl rcgen::PublicKeyData for TlsKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ED25519
    }
}

impl rcgen::SigningKey for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.keys.sign_for_tls(message))
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as _)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.keys.sign_for_tls(message))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// Accepts a certificate when its key is pinned; the stack then demands that the handshake is signed
/// with that key.
#[derive(Debug)]
struct PinnedPeers {
    peers: PeerSet,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedPeers {
    fn new(peers: PeerSet, provider: &CryptoProvider) -> Self {
        PinnedPeers { peers, algorithms: provider.signature_verification_algorithms }
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = key_of(certificate).ok_or(CertificateError::BadEncoding)?;
        match self.peers.find(&key) {
            Some(_) => Ok(()),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }
}

fn no_tls12() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}

impl ServerCertVerifier for PinnedPeers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for PinnedPeers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
mod tests;
