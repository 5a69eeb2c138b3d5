//! TLS for clients with an own PKI: NBD over TCP, where clients show a certificate of the operator's
//! authority. Chains, dates and uses are checked as everywhere (webpki).

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::provider;
use crate::Error;

const MAX_PEM_BYTES: usize = 1 << 20;
const MAX_CERTIFICATES: usize = 256;

/// A server that shows `certificate_pem` (with its chain) and `key_pem`, and lets in clients with a
/// certificate of an authority in `authority_pem`. TLS 1.3 only; no ALPN. Errors name the file by its
/// part: authority, certificate or key.
pub fn pki_server_config(
    authority_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<Arc<ServerConfig>, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("authority", authority_pem)? {
        roots.add(certificate).map_err(|e| bad("authority", e))?;
    }
    let chain = certificates("certificate", certificate_pem)?;
    if key_pem.len() > MAX_PEM_BYTES {
        return Err(bad("key", "the file is too long"));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| bad("key", e))?;
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|e| bad("authority", e))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| Error::Crypto("TLS 1.3 is not available"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|e| bad("certificate", e))?;
    Ok(Arc::new(config))
}

fn bad(part: &'static str, why: impl ToString) -> Error {
    Error::Pki { part, why: why.to_string() }
}

fn certificates(part: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(bad(part, "the file is too long"));
    }
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem).take(MAX_CERTIFICATES).collect();
    let found = found.map_err(|e| bad(part, e))?;
    if found.is_empty() {
        return Err(bad(part, "it holds no certificate in PEM form"));
    }
    Ok(found)
}
