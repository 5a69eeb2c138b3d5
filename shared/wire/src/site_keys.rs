//! A site's secret keys: an Ed25519 signing key and an `age` X25519 key, and the file `site.key` that
//! holds them. Format: `docs/formats/identity.md`.
//!
//! The file is a valid `age` identity file, so that a set key can be unwrapped with the stock `age`
//! tool if everything else is lost. Secrets are wiped from memory where this crate holds them; the
//! caller gives the file mode 0600 and reads and writes it.

use std::fmt;

use age::secrecy::ExposeSecret;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use zeroize::Zeroizing;

use crate::signature::signed_message;
use crate::{AgeRecipient, Error, Identity, Signature};

const HEADER: &str = "# grainhaul site key 1 (secret: whoever has this file is this site)";
const IDENTITY: &str = "# identity ";
const SIGNING: &str = "# signing ";
const CHECK: &str = "# check ";
const SIGNING_PREFIX: &str = "grainhaul-signing-key-";

/// The secret half of a site.
pub struct SiteKeys {
    seed: Zeroizing<[u8; 32]>,
    signing: Ed25519KeyPair,
    age: age::x25519::Identity,
    identity: Identity,
}

impl SiteKeys {
    /// The longest key file that is looked at, in bytes.
    pub const MAX_FILE_BYTES: usize = 4096;

    /// Fresh keys, from the kernel's random generator.
    pub fn generate() -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0u8; 32]);
        SystemRandom::new()
            .fill(seed.as_mut_slice())
            .map_err(|_| Error::Crypto("the kernel gave no random bytes"))?;
        Self::from_secrets(seed, age::x25519::Identity::generate())
    }

    fn from_secrets(seed: Zeroizing<[u8; 32]>, age: age::x25519::Identity) -> Result<Self, Error> {
        let signing = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .map_err(|_| Error::Crypto("the signing key is not usable"))?;
        let public: [u8; 32] = signing
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| Error::Crypto("the public key has not 32 bytes"))?;
        let recipient: AgeRecipient = age.to_public().to_string().parse()?;
        Ok(SiteKeys { seed, signing, age, identity: Identity::new(public, recipient) })
    }

    /// What this site shows of itself.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Signs `bytes` for the purpose `domain`; [`Identity::verify`] with the same domain checks it.
    pub fn sign(&self, domain: &str, bytes: &[u8]) -> Signature {
        let signature = self.signing.sign(&signed_message(domain, bytes));
        let mut out = [0; Signature::BYTES];
        out.copy_from_slice(signature.as_ref());
        Signature::from_bytes(out)
    }

    /// The secret key that opens what was sealed to this site.
    pub(crate) fn age(&self) -> &age::x25519::Identity {
        &self.age
    }

    /// Signs what the TLS handshake or the certificate asks for, without our prefix.
    pub(crate) fn sign_for_tls(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).as_ref().to_vec()
    }

    /// The content of `site.key`.
    pub fn to_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        let hrp = Hrp::parse_unchecked(SIGNING_PREFIX);
        // 32 bytes are far below the code's length; there is nothing that could fail.
        let signing = bech32::encode::<Bech32m>(hrp, self.seed.as_slice()).unwrap_or_default();
        let signing = Zeroizing::new(signing);
        let age = self.age.to_string();
        let mut text = Zeroizing::new(String::with_capacity(Self::MAX_FILE_BYTES));
        let identity = self.identity.to_string();
        for part in [HEADER, "\n", IDENTITY, &identity, "\n", SIGNING, &signing, "\n"] {
            text.push_str(part);
        }
        text.push_str(age.expose_secret());
        text.push('\n');
        let check = check_of(text.as_bytes());
        for part in [CHECK, &check, "\n"] {
            text.push_str(part);
        }
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// Reads the content of `site.key`. Every byte of it is covered by the check line.
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Self, Error> {
        parse(bytes).map_err(|e| match e {
            ParseError::File(why) => Error::KeyFile(why),
            ParseError::Keys(error) => error,
        })
    }
}

enum ParseError {
    File(String),
    Keys(Error),
}

fn parse(bytes: &[u8]) -> Result<SiteKeys, ParseError> {
    let fail = |why: &str| ParseError::File(why.to_owned());
    if bytes.len() > SiteKeys::MAX_FILE_BYTES {
        return Err(ParseError::File(format!("it has {} bytes, far too many", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        ParseError::File(format!("it is not text (byte {} is not UTF-8)", e.valid_up_to()))
    })?;
    if !text.starts_with(HEADER) {
        return Err(fail("it does not begin with `# grainhaul site key 1`"));
    }
    let checked = text.rfind(CHECK).ok_or_else(|| fail("its `# check` line is missing"))?;
    let (body, check) = text.split_at(checked);
    if check != format!("{CHECK}{}\n", check_of(body.as_bytes())) {
        return Err(fail("its checksum does not match: it was cut off or changed"));
    }
    let mut lines = body.lines().skip(1);
    let mut line = |name| lines.next().and_then(|l: &str| l.strip_prefix(name));
    let identity = line(IDENTITY).ok_or_else(|| fail("line 2 is not the identity"))?;
    let signing = line(SIGNING).ok_or_else(|| fail("line 3 is not the signing key"))?;
    let age = line("").ok_or_else(|| fail("line 4 is not the age key"))?;
    let seed = decode_seed(signing).ok_or_else(|| fail("line 3 is not a signing key"))?;
    let age = age
        .parse::<age::x25519::Identity>()
        .map_err(|e| ParseError::File(format!("line 4 is not an age key: {e}")))?;
    let keys = SiteKeys::from_secrets(seed, age).map_err(ParseError::Keys)?;
    if keys.identity.to_string() != identity || lines.next().is_some() {
        return Err(fail("its identity does not belong to its keys"));
    }
    Ok(keys)
}

fn decode_seed(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let checked = CheckedHrpstring::new::<Bech32m>(text).ok()?;
    if checked.hrp().as_str() != SIGNING_PREFIX {
        return None;
    }
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(checked.byte_iter().take(33).collect());
    let mut seed = Zeroizing::new([0u8; 32]);
    if bytes.len() != seed.len() {
        return None;
    }
    seed.copy_from_slice(&bytes);
    Some(seed)
}

/// 128 bits of a BLAKE3 digest in hexadecimal: for accidents, not against a forger.
fn check_of(body: &[u8]) -> String {
    let digest = blake3::derive_key("grainhaul site key file check 1", body);
    data_encoding::HEXLOWER.encode(&digest[..16])
}

impl fmt::Debug for SiteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteKeys({})", self.identity.fingerprint())
    }
}

#[cfg(test)]
mod tests;
