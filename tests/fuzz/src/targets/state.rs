//! `state.json`. The first byte chooses: the file's bytes, or a content to which the right checksum is put.
//!
//! What decodes encodes to a file that decodes to the same.

use std::path::PathBuf;

use grain::{Cut, CutId, CutReason, LayerId, Lineage, RelationshipId};
use replication::state::{
    BacklogRecord, Bookmark, ClosedLayer, LayerRef, LayerTable, Mode, OnLinkLoss, Peer,
    ReplicaState, Role, RunRecord, STATE_VERSION, State, Verified, decode, encode,
};

use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "state",
    run,
    seeds,
    // A few bytes of JSON (`{},`) may stand for a struct; the options of a set are a tree of values.
    allocation: Allocation { constant_bytes: 256 << 10, per_byte: 512 },
};

fn run(data: &[u8]) {
    let (mode, rest) = data.split_first().unwrap_or((&0, &[]));
    let file = match mode % 2 {
        0 => rest.to_vec(),
        _ => {
            let sum = blake3::hash(rest).to_hex();
            [format!("{{\"checksum\":\"{sum}\",\"state\":").as_bytes(), rest, b"}\n"].concat()
        }
    };
    let Ok(state) = decode(&file) else { return };
    let bytes = encode(&state).expect("a state that was decoded");
    assert_eq!(decode(&bytes).expect("its own encoding"), state);
}

fn sample(role: Role) -> State {
    let mut lineage = Lineage::new();
    let cut = CutId::from_bytes([1; 16]);
    let first = Cut { id: cut, parent: None, unix_ms: 5, reason: CutReason::Start };
    lineage.push(first, None).expect("a chain");
    let at = |file| LayerRef { file, id: LayerId::from_bytes([file as u8; 16]) };
    let name = grain::LayerName::new(cut, CutId::from_bytes([2; 16]));
    State {
        version: STATE_VERSION,
        relationship: RelationshipId::from_bytes([2; 16]),
        name: "payroll".into(),
        geometry: stage::geometry(),
        volumes: vec![PathBuf::from("/dev/a"), PathBuf::from("/dev/b")],
        role,
        lineage,
        synced: Some(cut),
        layers: LayerTable {
            next_file: 4,
            open: Some(at(1)),
            closed: vec![ClosedLayer { at: at(2), name, grains: 7 }],
            free: vec![at(3)],
            anchor: None,
        },
        peers: vec![Peer {
            mode: Mode::Sync { on_link_loss: OnLinkLoss::Block { limit_ms: 9 } },
            identity: stage::keys().identity().to_string(),
            acked: Some(cut),
            published: vec![cut],
            alone: None,
            addresses: vec!["secondary.example:7420".into()],
            verified: Some(Verified { cut: Some(cut), total_grains: 9, ..Verified::default() }),
        }],
        sets: Vec::new(),
        suspect: None,
        run: RunRecord::default(),
        replica: (role == Role::Replica).then(ReplicaState::default),
        promoted: (role == Role::Source).then_some(cut),
        bookmarks: vec![Bookmark { cut, label: "before".into(), unix_ms: 5 }],
        backlog: (role == Role::Source)
            .then(|| BacklogRecord { maps: [at(5), at(6)], journal: "/state/journal".into() }),
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, role) in [("source", Role::Source), ("replica", Role::Replica)] {
        let state = sample(role);
        let file = encode(&state).expect("a state");
        let content = serde_json::to_vec(&state).expect("a state");
        found.push((format!("{name}-file"), [vec![0], file].concat()));
        found.push((format!("{name}-content"), [vec![1], content].concat()));
    }
    found
}
