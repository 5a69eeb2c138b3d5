//! `HASHES.b3`: the hash of every file of a medium in plain, so that a carrier can check the disks
//! with `b3sum --check HASHES.b3` and without a key.
//!
//! It proves nothing against a forger; the signed directory does. Lines are `HASH  NAME`, as `b3sum`
//! (<https://github.com/BLAKE3-team/BLAKE3>) prints them.

use blake3::Hash;

use crate::fields::BadField;

/// The longest list that is read, in bytes.
pub(crate) const MAX_HASHES_BYTES: u64 = 256 << 20;

/// The text of the list.
pub(crate) fn encode(files: &[(String, [u8; 32])]) -> Vec<u8> {
    let mut text = String::new();
    for (name, hash) in files {
        text.push_str(Hash::from_bytes(*hash).to_hex().as_str());
        text.push_str("  ");
        text.push_str(name);
        text.push('\n');
    }
    text.into_bytes()
}

/// Reads a list.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<(String, [u8; 32])>, BadField> {
    let bad = |why| BadField { field: "hash list", offset: 0, why };
    let text = std::str::from_utf8(bytes).map_err(|_| bad("not text"))?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(bad("cut off"));
    }
    let mut files = Vec::new();
    let mut offset = 0;
    for line in text.lines() {
        let bad = |why| BadField { field: "hash list line", offset, why };
        let (hash, name) = line.split_once("  ").ok_or(bad("not a hash and a name"))?;
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(bad("not the name of a file beside it"));
        }
        let hash = Hash::from_hex(hash).map_err(|_| bad("not a BLAKE3 hash"))?;
        files.push((name.to_owned(), *hash.as_bytes()));
        offset += line.len() as u64 + 1;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_list_round_trips() {
        let files = vec![("LABEL.json".to_owned(), [1; 32]), ("KEY.age".to_owned(), [0xab; 32])];
        let text = encode(&files);
        assert_eq!(decode(&text), Ok(files));
        assert_eq!(decode(b""), Ok(Vec::new()));
        for cut in 1..text.len() {
            assert!(cut == 77 || decode(&text[..cut]).is_err(), "{cut}");
        }
        let traversal = String::from_utf8(text).unwrap().replace("KEY.age", "../etc/passwd");
        assert!(decode(traversal.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn random_lists_do_not_panic(bytes: Vec<u8>) {
            drop(decode(&bytes));
        }
    }
}
