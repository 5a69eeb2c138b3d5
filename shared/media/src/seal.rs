//! Sealing: the set key, the keys derived from it, and the two ways a frame is protected.
//!
//! Every file of a set has a random 256-bit salt. Its key is derived from the set key, the set's id,
//! the kind and number of the file and the salt, so a nonce (domain and number inside the file) can
//! never meet the same key twice, not even after a crash and a resumed dump, and each file is read
//! alone. The cipher is AES-256-GCM (NIST SP 800-38D). A set made with `--no-encryption` keeps the
//! same layout: nothing is hidden, and the 16 bytes of tag are a BLAKE3 checksum that anyone can
//! compute; what is true then follows from the signed directory alone.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use grain::SetId;
use zeroize::Zeroizing;

/// Length of an authentication tag in bytes.
pub const TAG_BYTES: usize = 16;
/// Length of a salt in bytes.
pub const SALT_BYTES: usize = 32;

const KEY_CONTEXT: &str = "grainhaul 2026 media file key v1";
const PLAIN_CONTEXT: &str = "grainhaul 2026 media unsealed checksum v1";
const MARKER_CONTEXT: &str = "grainhaul 2026 media frame marker v1";

/// The secret of a set. Wiped when dropped; never printed.
#[derive(Clone)]
pub struct SetKey(Zeroizing<[u8; 32]>);

impl SetKey {
    /// The set key with these bytes (fresh from the kernel, or out of an envelope).
    pub fn new(bytes: [u8; 32]) -> Self {
        SetKey(Zeroizing::new(bytes))
    }

    /// The secret bytes, to be wrapped in an envelope.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for SetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetKey(..)")
    }
}

/// Which file of a set a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileRole {
    /// A segment, by its number.
    Segment(u64),
    /// The part directory of a medium, by the medium's number.
    Part(u16),
    /// The set's directory.
    Directory,
}

impl FileRole {
    fn code(self) -> (u8, u64) {
        match self {
            FileRole::Segment(number) => (1, number),
            FileRole::Part(medium) => (2, u64::from(medium)),
            FileRole::Directory => (3, 0),
        }
    }
}

/// The nonce domains. Two uses of one key never share a domain and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Domain {
    Record = 1,
    Index = 2,
    Trailer = 3,
    PartEntry = 4,
    Directory = 5,
}

enum Protection {
    Sealed(Box<LessSafeKey>),
    Plain([u8; 32]),
}

/// Protects and opens the frames of one file.
pub(crate) struct Sealer(Protection);

/// A frame that does not open: damaged, forged, moved, or the wrong key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotGenuine;

impl Sealer {
    /// The sealer of one file; without a key, of an unencrypted set.
    pub(crate) fn new(
        key: Option<&SetKey>,
        set: SetId,
        role: FileRole,
        salt: &[u8; SALT_BYTES],
    ) -> Self {
        let (kind, number) = role.code();
        let context = if key.is_some() { KEY_CONTEXT } else { PLAIN_CONTEXT };
        let mut hasher = blake3::Hasher::new_derive_key(context);
        if let Some(key) = key {
            hasher.update(key.expose());
        }
        hasher.update(&set.to_bytes());
        hasher.update(&[kind]);
        hasher.update(&number.to_le_bytes());
        hasher.update(salt);
        let derived = Zeroizing::new(*hasher.finalize().as_bytes());
        hasher.reset();
        if key.is_none() {
            return Sealer(Protection::Plain(*derived));
        }
        match UnboundKey::new(&AES_256_GCM, &derived[..]) {
            Ok(key) => Sealer(Protection::Sealed(Box::new(LessSafeKey::new(key)))),
            // invariant: the only cause is a wrong length, and the length is in the type.
            Err(_) => unreachable!("32 bytes are an AES-256 key"),
        }
    }

    fn nonce(domain: Domain, number: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[0] = domain as u8;
        nonce[4..].copy_from_slice(&number.to_le_bytes());
        nonce
    }

    fn checksum(key: &[u8; 32], nonce: &[u8; 12], aad: &[u8], body: &[u8]) -> [u8; TAG_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(nonce);
        hasher.update(&(aad.len() as u64).to_le_bytes());
        hasher.update(aad);
        hasher.update(body);
        let mut tag = [0; TAG_BYTES];
        hasher.finalize_xof().fill(&mut tag);
        tag
    }

    /// Seals `body` in place and returns its tag. `aad` is bound to it and stays readable.
    pub(crate) fn seal(
        &self,
        domain: Domain,
        number: u64,
        aad: &[u8],
        body: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let nonce = Self::nonce(domain, number);
        match &self.0 {
            Protection::Plain(key) => Self::checksum(key, &nonce, aad, body),
            Protection::Sealed(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body);
                let mut bytes = [0; TAG_BYTES];
                match sealed {
                    Ok(tag) => bytes.copy_from_slice(tag.as_ref()),
                    // invariant: fails only above 64 GiB, far beyond any frame.
                    Err(_) => unreachable!("a frame is below the cipher's limit"),
                }
                bytes
            }
        }
    }

    /// Opens `sealed` (body and tag) in place and returns the body.
    pub(crate) fn open<'a>(
        &self,
        domain: Domain,
        number: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotGenuine> {
        let nonce = Self::nonce(domain, number);
        match &self.0 {
            Protection::Plain(key) => {
                let body_len = sealed.len().checked_sub(TAG_BYTES).ok_or(NotGenuine)?;
                let (body, tag) = sealed.split_at_mut(body_len);
                let good = Self::checksum(key, &nonce, aad, body) == *tag;
                if good { Ok(body) } else { Err(NotGenuine) }
            }
            Protection::Sealed(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| NotGenuine)
            }
        }
    }
}

/// The eight bytes that open every frame of a file with this salt. They come from the salt, so that
/// a search for the next frame is not led astray by volumes that themselves hold media sets.
pub(crate) fn frame_marker(salt: &[u8; SALT_BYTES]) -> [u8; 8] {
    let digest = blake3::derive_key(MARKER_CONTEXT, salt);
    let mut marker = [0; 8];
    marker.copy_from_slice(&digest[..8]);
    marker
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealers() -> [Sealer; 2] {
        let set = SetId::from_bytes([1; 16]);
        let key = SetKey::new([2; 32]);
        [Some(&key), None].map(|key| Sealer::new(key, set, FileRole::Segment(3), &[4; 32]))
    }

    #[test]
    fn what_was_sealed_opens_only_in_its_place() {
        for sealer in sealers() {
            let mut frame = b"content".to_vec();
            let tag = sealer.seal(Domain::Record, 7, b"head", &mut frame);
            frame.extend_from_slice(&tag);
            let open = |domain, number, aad: &[u8], frame: &[u8]| {
                sealer.open(domain, number, aad, &mut frame.to_vec()).map(|body| body.to_vec())
            };
            assert_eq!(open(Domain::Record, 7, b"head", &frame), Ok(b"content".to_vec()));
            assert!(open(Domain::Record, 8, b"head", &frame).is_err());
            assert!(open(Domain::Index, 7, b"head", &frame).is_err());
            assert!(open(Domain::Record, 7, b"hea", &frame).is_err());
            assert!(open(Domain::Record, 7, b"head", &[]).is_err());
            for bit in 0..frame.len() * 8 {
                let mut bad = frame.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(open(Domain::Record, 7, b"head", &bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn sealed_bytes_do_not_show_the_content() {
        let [sealed, plain] = sealers();
        let mut frame = vec![0x55; 64];
        sealed.seal(Domain::Record, 0, b"", &mut frame);
        assert!(frame.windows(4).all(|w| w != [0x55; 4]));
        let mut frame = vec![0x55; 64];
        plain.seal(Domain::Record, 0, b"", &mut frame);
        assert_eq!(frame, vec![0x55; 64]);
        assert_eq!(format!("{:?}", SetKey::new([2; 32])), "SetKey(..)");
    }

    #[test]
    fn each_file_has_its_own_key() {
        let set = SetId::from_bytes([1; 16]);
        let key = SetKey::new([2; 32]);
        let tag = |role, salt: u8| {
            Sealer::new(Some(&key), set, role, &[salt; 32]).seal(Domain::Record, 0, b"", &mut [])
        };
        let tags = [
            tag(FileRole::Segment(1), 0),
            tag(FileRole::Segment(1), 1),
            tag(FileRole::Segment(2), 0),
            tag(FileRole::Part(1), 0),
            tag(FileRole::Directory, 0),
        ];
        for (i, a) in tags.iter().enumerate() {
            assert!(tags.iter().skip(i + 1).all(|b| a != b));
        }
        assert_ne!(frame_marker(&[0; 32]), frame_marker(&[1; 32]));
    }
}
