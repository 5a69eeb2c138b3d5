//! A detached Ed25519 signature, and the bytes that are signed.
//!
//! What is signed is never the caller's bytes alone but a fixed prefix, the name of the domain
//! (`"media directory"`, `"ticket"`) and the BLAKE3 digest of the bytes. So a signature made for one
//! purpose is worth nothing for another, and none can be passed off as one of the TLS handshake or of
//! a certificate, which begin with other bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

const PREFIX: &[u8] = b"grainhaul signature 1\0";

/// An Ed25519 signature (RFC 8032), 64 bytes. As text: 128 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signature([u8; 64]);

impl Signature {
    /// Length in bytes.
    pub const BYTES: usize = 64;

    /// The signature whose stored form is `bytes`; whether it is anyone's is for
    /// [`Identity::verify`](crate::Identity::verify) to say.
    pub fn from_bytes(bytes: [u8; 64]) -> Self {
        Signature(bytes)
    }

    /// The 64 bytes as stored.
    pub fn to_bytes(self) -> [u8; 64] {
        self.0
    }
}

/// The message that is really signed for `bytes` in `domain`.
pub(crate) fn signed_message(domain: &str, bytes: &[u8]) -> Vec<u8> {
    let mut message = PREFIX.to_vec();
    message.extend_from_slice(&(domain.len() as u64).to_le_bytes());
    message.extend_from_slice(domain.as_bytes());
    message.extend_from_slice(blake3::hash(bytes).as_bytes());
    message
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}..)", data_encoding::HEXLOWER.encode(&self.0[..4]))
    }
}

impl FromStr for Signature {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::Signature {
            signer: "anyone".into(),
            domain: format!("text: {} characters are not 128 hexadecimal digits", text.len()),
        };
        if text.len() != 128 {
            return Err(malformed());
        }
        let bytes =
            data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| malformed())?;
        bytes.try_into().map(Signature).map_err(|_| malformed())
    }
}

impl TryFrom<String> for Signature {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Signature> for String {
    fn from(signature: Signature) -> String {
        signature.to_string()
    }
}
