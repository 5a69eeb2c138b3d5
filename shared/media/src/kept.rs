//! What was overwritten on purpose, put aside before: an index and a data file. Format:
//! `docs/formats/kept.md`.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use disk::{Context, OpenMode};
use grain::{CutId, RelationshipId};
use serde::{Deserialize, Serialize};

use crate::{BadField, MediaError};

/// The version of the format.
const VERSION: u32 = 1;
/// More than any index needs: one of 2 TiB that were scattered by single grains.
const MAX_INDEX_BYTES: u64 = 4 << 30;
/// The longest piece.
const MAX_PIECE_BYTES: u64 = 64 << 20;

/// The index: written after everything that it names is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptIndex {
    /// Of the format.
    pub version: u32,
    /// Whose bytes.
    pub relationship: RelationshipId,
    /// What overwrote them.
    pub why: String,
    /// The cut at which it was decided.
    pub cut: CutId,
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Name of the data file, in the same directory.
    pub data: String,
    /// In the order of the data file.
    pub pieces: Vec<KeptPiece>,
}

/// Neighbouring bytes of one volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptPiece {
    /// The volume's alias.
    pub volume: String,
    /// Where in the volume.
    pub offset: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where they begin in the data file; none for what could not be read.
    pub at: Option<u64>,
    /// BLAKE3 of the bytes, in hex.
    pub blake3: Option<String>,
}

/// What became of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptBytes {
    /// The bytes that were kept.
    Whole(Bytes),
    /// Other bytes than were kept, or none: why.
    Damaged(String),
    /// The disk had not given them when they were to be kept.
    NeverRead,
}

impl KeptIndex {
    /// A name that is safe as a file name below a directory of the reader's.
    fn is_plain(name: &str) -> bool {
        let odd = |c: char| c == '/' || c == '\\' || c.is_control();
        !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(odd)
    }

    /// Decodes an index and checks what can be checked without the data.
    ///
    /// # Errors
    /// The field that cannot be.
    pub fn decode(bytes: &[u8]) -> Result<KeptIndex, BadField> {
        let bad = |field, why| BadField { field, offset: 0, why };
        let index: KeptIndex = serde_json::from_slice(bytes)
            .map_err(|_| bad("index", "not an index of kept bytes"))?;
        if index.version != VERSION {
            return Err(bad("version", "of another version of this program"));
        }
        if index.why.len() > 200 || index.why.chars().any(char::is_control) {
            return Err(bad("why", "not words"));
        }
        if !Self::is_plain(&index.data) {
            return Err(bad("data", "not the name of a file beside the index"));
        }
        for piece in &index.pieces {
            if !Self::is_plain(&piece.volume) {
                return Err(bad("volume", "not an alias"));
            }
            if piece.bytes == 0 || piece.bytes > MAX_PIECE_BYTES {
                return Err(bad("bytes", "not the length of a piece"));
            }
            if piece.offset.checked_add(piece.bytes).is_none() {
                return Err(bad("offset", "beyond any volume"));
            }
            if piece.at.is_some() != piece.blake3.is_some() {
                return Err(bad("at", "bytes without a digest, or a digest without bytes"));
            }
        }
        Ok(index)
    }

    /// Reads an index from its file.
    ///
    /// # Errors
    /// [`MediaError::Io`]; [`MediaError::Damaged`] for what is no index.
    pub async fn read(ctx: &Context, path: &Path) -> Result<KeptIndex, MediaError> {
        let read = ctx.storage.read_all(path, MAX_INDEX_BYTES).await;
        let bytes = read.map_err(MediaError::io(path, "reading the index"))?;
        KeptIndex::decode(&bytes).map_err(MediaError::damaged(path))
    }

    /// Where the data of an index at `path` is.
    pub fn data_path(&self, path: &Path) -> PathBuf {
        path.parent().unwrap_or(Path::new(".")).join(&self.data)
    }

    /// Hands out every piece with its bytes, checked against their digest.
    ///
    /// # Errors
    /// [`MediaError::Io`] when the data file cannot be opened; those of `each`.
    pub async fn pieces<E: From<MediaError>>(
        &self,
        ctx: &Context,
        path: &Path,
        mut each: impl AsyncFnMut(&KeptPiece, KeptBytes) -> Result<(), E>,
    ) -> Result<(), E> {
        let data = self.data_path(path);
        let opened = ctx.storage.open(&data, OpenMode::Read).await;
        let file = opened.map_err(MediaError::io(&data, "opening the data"))?;
        for piece in &self.pieces {
            let (Some(at), Some(digest)) = (piece.at, piece.blake3.clone()) else {
                each(piece, KeptBytes::NeverRead).await?;
                continue;
            };
            let kept = match file.read_at(at, piece.bytes as usize).await {
                Ok(bytes) => {
                    let hashed = bytes.clone();
                    let found = ctx.offload(move || blake3::hash(&hashed).to_hex()).await;
                    match found.as_str() == digest {
                        true => KeptBytes::Whole(bytes.into()),
                        false => KeptBytes::Damaged("its digest does not fit".to_owned()),
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    KeptBytes::Damaged("the data file is too short".to_owned())
                }
                Err(e) => KeptBytes::Damaged(e.to_string()),
            };
            each(piece, kept).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> KeptIndex {
        let piece = |at, blake3: Option<&str>| KeptPiece {
            volume: "vda".into(),
            offset: 4096,
            bytes: 10,
            at,
            blake3: blake3.map(str::to_owned),
        };
        KeptIndex {
            version: VERSION,
            relationship: RelationshipId::from_bytes([1; 16]),
            why: "rejoin".into(),
            cut: CutId::new(5, [2; 10]),
            unix_ms: 7,
            data: "5-aa.data".into(),
            pieces: vec![piece(Some(0), Some("ab")), piece(None, None)],
        }
    }

    fn field(change: impl FnOnce(&mut KeptIndex)) -> Option<&'static str> {
        let mut changed = index();
        change(&mut changed);
        let text = serde_json::to_vec(&changed).expect("text");
        KeptIndex::decode(&text).err().map(|bad| bad.field)
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_field() {
        assert_eq!(field(|_| {}), None);
        assert_eq!(field(|i| i.version = 2), Some("version"));
        assert_eq!(field(|i| i.why = "\u{1b}[2J".into()), Some("why"));
        for name in ["", "../etc/passwd", "/etc/passwd", ".", "a/b", "a\nb"] {
            assert_eq!(field(|i| i.data = name.to_owned()), Some("data"), "{name:?}");
            assert_eq!(field(|i| i.pieces[1].volume = name.to_owned()), Some("volume"), "{name:?}");
        }
        assert_eq!(field(|i| i.pieces[0].bytes = 0), Some("bytes"));
        assert_eq!(field(|i| i.pieces[0].bytes = MAX_PIECE_BYTES + 1), Some("bytes"));
        assert_eq!(field(|i| i.pieces[0].offset = u64::MAX), Some("offset"));
        assert_eq!(field(|i| i.pieces[0].blake3 = None), Some("at"));
        assert_eq!(KeptIndex::decode(b"[1, 2").err().map(|bad| bad.field), Some("index"));
    }
}
