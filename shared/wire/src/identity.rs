//! What a site shows of itself: its [`Identity`], one line of text, and the fingerprint that people
//! compare over the telephone. Format: `docs/formats/identity.md`.
//!
//! An identity holds no secret. Reading one proves nothing about who sent it; that is what the
//! fingerprint is for.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use aws_lc_rs::{agreement, signature as lc_signature};
use bech32::{Bech32, Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use serde::{Deserialize, Serialize};

use crate::signature::signed_message;
use crate::{Error, Signature};

const PREFIX: &str = "grainhaul";
const VERSION: u8 = 1;
/// Version, Ed25519 public key, X25519 public key.
const PAYLOAD_BYTES: usize = 1 + 32 + 32;
/// Length of the line: prefix, separator, 104 characters of payload, 6 of checksum.
const LINE_CHARS: usize = PREFIX.len() + 1 + 104 + 6;

/// The X25519 public key to which `age` wraps a file key; as text `age1...`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgeRecipient([u8; 32]);

/// The public half of a site's keys: who it is (Ed25519) and to whom media are sealed (X25519).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    signing: [u8; 32],
    recipient: AgeRecipient,
}

impl Identity {
    /// The identity with these two public keys.
    pub(crate) fn new(signing: [u8; 32], recipient: AgeRecipient) -> Self {
        Identity { signing, recipient }
    }

    /// The Ed25519 public key: what the link pins.
    pub fn signing_key(&self) -> [u8; 32] {
        self.signing
    }

    /// The key to which media for this site are sealed.
    pub fn recipient(&self) -> AgeRecipient {
        self.recipient
    }

    /// Eight groups of five digits, e.g. `03817 55210 ...`: about 132 bits of a BLAKE3 digest over
    /// both keys. Digits are read alike in every language; whoever wants to pass another key off as
    /// this one must find a second preimage.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("grainhaul identity fingerprint 1");
        hasher.update(&self.signing).update(&self.recipient.0);
        let mut words = [0u8; 64];
        hasher.finalize_xof().fill(&mut words);
        let group = |word: &[u8]| {
            let number = word.iter().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
            format!("{:05}", number % 100_000)
        };
        words.chunks(8).map(group).collect::<Vec<_>>().join(" ")
    }

    /// Checks that this site signed `bytes` for `domain` (see [`SiteKeys::sign`](crate::SiteKeys::sign)).
    pub fn verify(&self, domain: &str, bytes: &[u8], signature: &Signature) -> Result<(), Error> {
        let key = lc_signature::UnparsedPublicKey::new(&lc_signature::ED25519, &self.signing);
        key.verify(&signed_message(domain, bytes), &signature.to_bytes())
            .map_err(|_| Error::Signature { signer: self.fingerprint(), domain: domain.into() })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.to_ascii_lowercase().starts_with("grainhaul1") {
            return Err("it does not begin with `grainhaul1`".into());
        }
        if text.len() != LINE_CHARS {
            return Err(format!(
                "it has {} characters where {LINE_CHARS} belong: a part is missing, or too much \
                 was copied",
                text.len()
            ));
        }
        // Any one to three wrong characters are found for certain (BIP 350), others with 2^-30.
        let checked = CheckedHrpstring::new::<Bech32m>(text)
            .map_err(|e| format!("a character is mistyped or two are swapped ({e})"))?;
        let payload: Vec<u8> = checked.byte_iter().collect();
        let payload: [u8; PAYLOAD_BYTES] =
            payload.try_into().map_err(|_| "it holds a wrong number of bytes".to_owned())?;
        let [version, keys @ ..] = payload;
        if version != VERSION {
            return Err(format!("it has version {version}; this program knows {VERSION}"));
        }
        let (mut signing, mut recipient) = ([0; 32], [0; 32]);
        signing.copy_from_slice(&keys[..32]);
        recipient.copy_from_slice(&keys[32..]);
        Ok(Identity { signing, recipient: AgeRecipient::from_bytes(recipient)? })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut payload = [VERSION; PAYLOAD_BYTES];
        payload[1..33].copy_from_slice(&self.signing);
        payload[33..].copy_from_slice(&self.recipient.0);
        let text = bech32::encode::<Bech32m>(Hrp::parse_unchecked(PREFIX), &payload);
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl FromStr for Identity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Identity::parse(text).map_err(Error::Identity)
    }
}

impl TryFrom<String> for Identity {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

impl AgeRecipient {
    /// Refuses the few keys of small order: everybody knows the "shared secret" with them.
    fn from_bytes(bytes: [u8; 32]) -> Result<Self, String> {
        // Any key of ours shows it: with one of theirs every agreement comes to nothing (RFC 7748, 6.1).
        static ANY: LazyLock<Option<agreement::PrivateKey>> =
            LazyLock::new(|| agreement::PrivateKey::generate(&agreement::X25519).ok());
        let own = ANY.as_ref().ok_or("the kernel gave no random bytes")?;
        let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, &bytes);
        agreement::agree(own, theirs, (), |_| Ok(()))
            .map_err(|()| "its X25519 key is one of the weak ones".to_owned())?;
        Ok(AgeRecipient(bytes))
    }

    /// The same key as the `age` crate has it.
    pub(crate) fn to_age(self) -> Result<age::x25519::Recipient, Error> {
        self.to_string().parse().map_err(|e: &str| Error::Recipient(e.to_owned()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !text.to_ascii_lowercase().starts_with("age1") {
            return Err("it does not begin with `age1`".into());
        }
        let checked = CheckedHrpstring::new::<Bech32>(text)
            .map_err(|e| format!("a character is missing or mistyped ({e})"))?;
        if checked.hrp().as_str() != "age" {
            return Err("only X25519 recipients (`age1` and 58 characters) are supported".into());
        }
        let bytes: Vec<u8> = checked.byte_iter().take(33).collect();
        let bytes: [u8; 32] =
            bytes.try_into().map_err(|_| "it does not hold 32 bytes".to_owned())?;
        AgeRecipient::from_bytes(bytes)
    }
}

impl fmt::Display for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bech32::encode::<Bech32>(Hrp::parse_unchecked("age"), &self.0);
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for AgeRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for AgeRecipient {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        AgeRecipient::parse(text).map_err(Error::Recipient)
    }
}

impl TryFrom<String> for AgeRecipient {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<AgeRecipient> for String {
    fn from(recipient: AgeRecipient) -> String {
        recipient.to_string()
    }
}

#[cfg(test)]
mod tests;
