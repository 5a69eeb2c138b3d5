//! The index of what was kept aside: what is taken names a file beside it, and images below the reader's
//! directory, and is written again as the same.

use std::path::Path;

use grain::{CutId, RelationshipId};
use media::{KeptIndex, KeptPiece};

use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "kept",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 1 << 20, per_byte: 64 },
};

fn run(data: &[u8]) {
    let Ok(index) = KeptIndex::decode(data) else { return };
    let again = serde_json::to_vec(&index).expect("it was read");
    assert_eq!(KeptIndex::decode(&again).expect("its own bytes"), index);
    let stays = |dir: &Path, name: &str| dir.join(name).parent() == Some(dir);
    assert_eq!(index.data_path(Path::new("/dir/index.json")).parent(), Some(Path::new("/dir")));
    for piece in &index.pieces {
        assert!(stays(Path::new("/out"), &format!("{}.img", piece.volume)), "{:?}", piece.volume);
        assert!(piece.bytes <= 64 << 20 && piece.offset.checked_add(piece.bytes).is_some());
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let piece = |offset, at: Option<u64>| KeptPiece {
        volume: "vda".into(),
        offset,
        bytes: 65536,
        at,
        blake3: at.map(|at| blake3::hash(&at.to_le_bytes()).to_hex().to_string()),
    };
    let index = |pieces| KeptIndex {
        version: 1,
        relationship: RelationshipId::from_bytes([7; 16]),
        why: "rejoin".into(),
        cut: CutId::new(1_700_000_000_000, [3; 10]),
        unix_ms: 1_700_000_000_000,
        data: "1700000000000-0badcafe.data".into(),
        pieces,
    };
    let text = |index: KeptIndex| serde_json::to_vec_pretty(&index).expect("text");
    vec![
        ("empty".into(), text(index(Vec::new()))),
        ("pieces".into(), text(index(vec![piece(0, Some(0)), piece(1 << 20, None)]))),
    ]
}
