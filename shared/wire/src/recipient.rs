//! Who may open an envelope, and with what: sites, escrow keys and passphrases.
//!
//! Secrets here are wiped when dropped, and never printed.

use age::secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::{AgeRecipient, Error, Identity, SiteKeys};

/// Somebody who shall be able to open an envelope.
#[derive(Clone, Debug)]
pub enum Recipient {
    /// Another site.
    Site(Identity),
    /// An `age` key: an escrow key, or any that the `age` tools made.
    Key(AgeRecipient),
    /// Whoever knows the passphrase.
    Passphrase(Passphrase),
}

impl std::str::FromStr for Recipient {
    type Err = Error;

    /// Reads `grainhaul1...` or `age1...`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.to_ascii_lowercase().starts_with("grainhaul1") {
            return text.parse().map(Recipient::Site);
        }
        if text.to_ascii_lowercase().starts_with("age1") {
            return text.parse().map(Recipient::Key);
        }
        Err(Error::Recipient("expected `grainhaul1...` or `age1...`".into()))
    }
}

/// Something that may open an envelope.
#[derive(Clone, Copy)]
pub enum Opener<'a> {
    /// The keys of a site.
    Site(&'a SiteKeys),
    /// A key of its own, as `media-tools keygen` makes it.
    Key(&'a EscrowKey),
    /// A passphrase.
    Passphrase(&'a Passphrase),
}

/// A passphrase with the scrypt work that is spent on it when sealing.
#[derive(Clone)]
pub struct Passphrase {
    text: SecretString,
    work_log2: u8,
}

impl Passphrase {
    /// 2^18 rounds: about a second and 256 MiB, what `age` itself takes for a person's passphrase.
    pub const WORK_LOG2: u8 = 18;
    /// What is accepted when opening: 2^20 rounds, some seconds and 1 GiB.
    pub const MAX_WORK_LOG2: u8 = 20;

    /// A passphrase; empty ones are refused. Whether it is a good one is for the caller to say.
    pub fn new(text: impl Into<String>) -> Result<Self, Error> {
        let text = text.into();
        if text.is_empty() {
            return Err(Error::Recipient("an empty passphrase protects nothing".into()));
        }
        Ok(Passphrase { text: SecretString::from(text), work_log2: Self::WORK_LOG2 })
    }

    /// The same with 2^`work_log2` rounds when sealing (clamped to 1..=[`Self::MAX_WORK_LOG2`]), for
    /// generated passphrases, which need no stretching.
    #[must_use]
    pub fn with_work(mut self, work_log2: u8) -> Self {
        self.work_log2 = work_log2.clamp(1, Self::MAX_WORK_LOG2);
        self
    }
}

impl Passphrase {
    pub(crate) fn secret(&self) -> SecretString {
        self.text.clone()
    }

    pub(crate) fn work_log2(&self) -> u8 {
        self.work_log2
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// A key pair that belongs to no site: kept in a safe, it opens media when the replica's own key is
/// lost. Its file is an ordinary `age` identity file.
pub struct EscrowKey {
    age: age::x25519::Identity,
}

impl EscrowKey {
    /// A fresh key, from the kernel's random generator.
    pub fn generate() -> Self {
        EscrowKey { age: age::x25519::Identity::generate() }
    }

    pub(crate) fn age(&self) -> &age::x25519::Identity {
        &self.age
    }

    /// The public half, `age1...`.
    pub fn recipient(&self) -> Result<AgeRecipient, Error> {
        self.age.to_public().to_string().parse()
    }

    /// The content of its file: a comment with the public key, then `AGE-SECRET-KEY-1...`.
    pub fn to_file_bytes(&self) -> Zeroizing<Vec<u8>> {
        let secret = self.age.to_string();
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str("# public key: ");
        text.push_str(&self.age.to_public().to_string());
        text.push('\n');
        text.push_str(secret.expose_secret());
        text.push('\n');
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// Reads an `age` identity file: comments and blank lines are skipped; the first key counts.
    pub fn from_file_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let fail = |why: &str| Error::KeyFile(why.to_owned());
        let bytes = bytes.get(..SiteKeys::MAX_FILE_BYTES).unwrap_or(bytes);
        let text = std::str::from_utf8(bytes).map_err(|_| fail("it is not text"))?;
        let is_key = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let line = text.lines().map(str::trim).find(is_key).ok_or_else(|| fail("it is empty"))?;
        let age = line.parse().map_err(|e| Error::KeyFile(format!("no age key: {e}")))?;
        Ok(EscrowKey { age })
    }
}

impl std::fmt::Debug for EscrowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EscrowKey({})", self.age.to_public())
    }
}
