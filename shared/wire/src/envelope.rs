//! The envelope: a 32-byte set key, wrapped with `age` for everybody who may read a media set.
//! Format: `docs/formats/identity.md`, section "Envelope".
//!
//! `age` does not mix a passphrase with other recipients in one file (that is on purpose: such a file
//! could be authenticated by nobody), so an envelope holds one `age` file for all keys and one for each
//! passphrase. It is bounded in bytes, files and lines before `age` sees it, and a passphrase is tried
//! only where its scrypt work is bounded.
//!
//! Not promised: who made it. Anyone can seal some key to a recipient; what the key opens is signed by
//! the source elsewhere.

use std::io::{Read, Write};

use zeroize::Zeroizing;

use crate::{Error, Opener, Passphrase, Recipient};

const MAGIC: &[u8; 8] = b"GHENVEL1";
const KIND_KEYS: u8 = 1;
const KIND_PASSPHRASE: u8 = 2;
/// A grease stanza of `age` and 64 recipients stay far below.
const MAX_BLOB_LINES: usize = 1024;

/// A set key: 32 random bytes, wiped when dropped.
pub type SetKey = Zeroizing<[u8; 32]>;

/// Sealing and opening.
pub struct Envelope;

impl Envelope {
    /// The longest envelope, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;
    /// The most sites and keys of one envelope.
    pub const MAX_KEYS: usize = 64;
    /// The most passphrases of one envelope: each costs whoever opens it seconds.
    pub const MAX_PASSPHRASES: usize = 4;

    /// Wraps `key` for each of `recipients`, of which there must be at least one.
    ///
    /// The result differs in bytes and in length from call to call: `age` draws fresh keys, and a
    /// stanza of random length that keeps readers tolerant.
    pub fn seal(key: &[u8; 32], recipients: &[Recipient]) -> Result<Vec<u8>, Error> {
        let mut keys: Vec<age::x25519::Recipient> = Vec::new();
        let mut passphrases = Vec::new();
        for recipient in recipients {
            match recipient {
                Recipient::Site(identity) => keys.push(identity.recipient().to_age()?),
                Recipient::Key(recipient) => keys.push(recipient.to_age()?),
                Recipient::Passphrase(passphrase) => passphrases.push(passphrase),
            }
        }
        let bounded = keys.len() <= Self::MAX_KEYS && passphrases.len() <= Self::MAX_PASSPHRASES;
        if recipients.is_empty() || !bounded {
            return Err(Error::Recipient(format!(
                "{} keys and {} passphrases; an envelope is for at least one, and at most {} and {}",
                keys.len(),
                passphrases.len(),
                Self::MAX_KEYS,
                Self::MAX_PASSPHRASES
            )));
        }
        let mut blobs = Vec::new();
        if !keys.is_empty() {
            let recipients = keys.iter().map(|k| k as &dyn age::Recipient);
            let encryptor = age::Encryptor::with_recipients(recipients).map_err(sealing)?;
            blobs.push((KIND_KEYS, encrypt(encryptor, key)?));
        }
        for passphrase in passphrases {
            let mut recipient = age::scrypt::Recipient::new(passphrase.secret());
            recipient.set_work_factor(passphrase.work_log2());
            let recipients = std::iter::once(&recipient as &dyn age::Recipient);
            let encryptor = age::Encryptor::with_recipients(recipients).map_err(sealing)?;
            blobs.push((KIND_PASSPHRASE, encrypt(encryptor, key)?));
        }
        Ok(assemble(&blobs))
    }

    /// Unwraps the set key with the first of `openers` that fits. May take seconds when a passphrase
    /// is among them, and none when not.
    pub fn open(envelope: &[u8], openers: &[Opener<'_>]) -> Result<SetKey, Error> {
        let blobs = parse(envelope)?;
        let mut too_much_work = None;
        for blob in &blobs {
            for opener in openers {
                match try_open(blob, opener)? {
                    Attempt::Opened(key) => return Ok(key),
                    Attempt::OtherKey => {}
                    Attempt::TooMuchWork(asked) => too_much_work = Some(asked),
                }
            }
        }
        match too_much_work {
            Some(asked) => Err(Error::WorkFactor { asked, limit: Passphrase::MAX_WORK_LOG2 }),
            None => Err(Error::NoKey { tried: openers.len() }),
        }
    }

    /// Checks the outer form without a key, and says whether a passphrase opens it.
    pub fn inspect(envelope: &[u8]) -> Result<EnvelopeInfo, Error> {
        let blobs = parse(envelope)?;
        let has = |kind| blobs.iter().any(|b| b.kind == kind);
        Ok(EnvelopeInfo { for_keys: has(KIND_KEYS), for_passphrase: has(KIND_PASSPHRASE) })
    }
}

/// What an envelope shows without a key. `age` does not show for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvelopeInfo {
    /// Some site or escrow key opens it.
    pub for_keys: bool,
    /// Some passphrase opens it.
    pub for_passphrase: bool,
}

struct Blob<'a> {
    kind: u8,
    offset: usize,
    bytes: &'a [u8],
}

enum Attempt {
    Opened(SetKey),
    OtherKey,
    TooMuchWork(u8),
}

fn sealing(_: age::EncryptError) -> Error {
    Error::Crypto("age could not seal the set key")
}

fn encrypt(encryptor: age::Encryptor, key: &[u8; 32]) -> Result<Vec<u8>, Error> {
    let seal = || {
        let mut writer = encryptor.wrap_output(Vec::new())?;
        writer.write_all(key)?;
        writer.finish()
    };
    seal().map_err(|e| Error::io("sealing the set key", e))
}

fn assemble(blobs: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.push(blobs.len() as u8);
    for (kind, bytes) in blobs {
        out.push(*kind);
        out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(bytes);
    }
    out
}

fn parse(envelope: &[u8]) -> Result<Vec<Blob<'_>>, Error> {
    let damaged = |field, offset, why: &str| Error::Envelope { field, offset, why: why.into() };
    if envelope.len() > Envelope::MAX_BYTES {
        let (bytes, limit) = (envelope.len() as u64, Envelope::MAX_BYTES as u64);
        return Err(Error::TooLong { what: "the envelope", bytes, limit });
    }
    let mut rest = envelope
        .strip_prefix(MAGIC)
        .ok_or_else(|| damaged("magic", 0, "it does not begin with `GHENVEL1`"))?;
    let at = |rest: &[u8]| envelope.len() - rest.len();
    let short = |rest: &[u8]| damaged("blob", at(rest), "it is cut off");
    let (&count, after) = rest.split_first().ok_or_else(|| short(rest))?;
    if count == 0 || usize::from(count) > 1 + Envelope::MAX_PASSPHRASES {
        return Err(damaged("count", at(rest), "it holds no age file, or too many"));
    }
    rest = after;
    let mut blobs = Vec::new();
    for _ in 0..count {
        let (head, body) = rest.split_first_chunk::<5>().ok_or_else(|| short(rest))?;
        let [kind, len @ ..] = *head;
        if !matches!(kind, KIND_KEYS | KIND_PASSPHRASE) {
            return Err(damaged("kind", at(rest), "unknown kind of age file"));
        }
        let len = u32::from_le_bytes(len) as usize;
        let (bytes, after) = body.split_at_checked(len).ok_or_else(|| short(rest))?;
        if bytes.iter().filter(|b| **b == b'\n').count() > MAX_BLOB_LINES {
            return Err(damaged("age file", at(body), "it has too many lines"));
        }
        blobs.push(Blob { kind, offset: at(body), bytes });
        rest = after;
    }
    if !rest.is_empty() {
        return Err(damaged("end", at(rest), "bytes follow the last age file"));
    }
    Ok(blobs)
}

fn try_open(blob: &Blob<'_>, opener: &Opener<'_>) -> Result<Attempt, Error> {
    let opened = match (blob.kind, opener) {
        (KIND_KEYS, Opener::Site(keys)) => decrypt(blob, keys.age()),
        (KIND_KEYS, Opener::Key(key)) => decrypt(blob, key.age()),
        (KIND_PASSPHRASE, Opener::Passphrase(passphrase)) => {
            let mut identity = age::scrypt::Identity::new(passphrase.secret());
            identity.set_max_work_factor(Passphrase::MAX_WORK_LOG2);
            decrypt(blob, &identity)
        }
        _ => return Ok(Attempt::OtherKey),
    };
    let damaged = |why: String| Error::Envelope { field: "age file", offset: blob.offset, why };
    match opened {
        Ok(key) => Ok(Attempt::Opened(key)),
        Err(age::DecryptError::NoMatchingKeys) => Ok(Attempt::OtherKey),
        // For a passphrase, a wrong one and a damaged wrap look the same.
        Err(age::DecryptError::DecryptionFailed | age::DecryptError::KeyDecryptionFailed)
            if blob.kind == KIND_PASSPHRASE =>
        {
            Ok(Attempt::OtherKey)
        }
        Err(age::DecryptError::ExcessiveWork { required, .. }) => {
            Ok(Attempt::TooMuchWork(required))
        }
        Err(e) => Err(damaged(e.to_string())),
    }
}

fn decrypt(blob: &Blob<'_>, identity: &dyn age::Identity) -> Result<SetKey, age::DecryptError> {
    let decryptor = age::Decryptor::new_buffered(blob.bytes)?;
    // Otherwise a blob marked as one for keys could make us stretch a passphrase.
    if decryptor.is_scrypt() != (blob.kind == KIND_PASSPHRASE) {
        return Err(age::DecryptError::InvalidHeader);
    }
    let mut reader = decryptor.decrypt(std::iter::once(identity))?.take(33);
    let mut plain = Zeroizing::new(Vec::with_capacity(33));
    reader.read_to_end(&mut plain)?;
    let mut key = Zeroizing::new([0u8; 32]);
    if plain.len() != key.len() {
        return Err(age::DecryptError::InvalidHeader);
    }
    key.copy_from_slice(&plain);
    Ok(key)
}

#[cfg(test)]
mod tests;
