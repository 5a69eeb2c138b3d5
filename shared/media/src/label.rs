//! `LABEL.json`: what a person or a script reads on a medium without any key.
//!
//! It says which set, which disk of how many, whose, for whom, and carries the relationship's ticket.
//! It holds no secret and nothing is decided by it alone: the signed directory lists its hash.

use grain::{RelationshipId, SetId};
use serde::{Deserialize, Serialize};

use crate::fields::BadField;

/// The largest label in bytes.
pub const MAX_LABEL_BYTES: u64 = 256 << 10;

const FORMAT: &str = "grainhaul media label v1";

/// Whether the set that the medium belongs to is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediumState {
    /// Being written, or left unfinished.
    Writing,
    /// The set is complete and its signed directory is here.
    Finished,
}

/// The content of a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Names the format and its version.
    pub format: String,
    /// Which set.
    pub set: SetId,
    /// Writing or finished.
    pub state: MediumState,
    /// Which medium of the set, from 1.
    pub medium: u16,
    /// Of how many.
    pub media: u16,
    /// Whether the content is encrypted.
    pub sealed: bool,
    /// The relationship's name at its source.
    pub relationship_name: String,
    /// The relationship.
    pub relationship: RelationshipId,
    /// The source's identity, one line.
    pub source: String,
    /// The source's fingerprint, to compare over the telephone.
    pub source_fingerprint: String,
    /// Who can open it, in words.
    pub recipients: Vec<String>,
    /// When it was begun, milliseconds since 1970, UTC.
    pub created_unix_ms: u64,
    /// 0 for a set written in one go; counts how often its writing was taken up again.
    pub generation: u32,
    /// The relationship's ticket, as text.
    pub ticket: String,
}

impl Label {
    /// The name of the format, the first field of every label.
    pub(crate) fn format() -> String {
        FORMAT.into()
    }

    /// The text of the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // A plain struct of texts and numbers has no way to fail.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// Reads the text of the file.
    pub fn decode(bytes: &[u8]) -> Result<Label, BadField> {
        let bad = |field, why| BadField { field, offset: 0, why };
        let label: Label =
            serde_json::from_slice(bytes).map_err(|_| bad("label", "not a label in JSON"))?;
        if label.format != FORMAT {
            return Err(bad("format", "made by another version of the format"));
        }
        if label.medium == 0 || label.medium > label.media {
            return Err(bad("medium", "not one of the media of the set"));
        }
        Ok(label)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label() -> Label {
        Label {
            format: Label::format(),
            set: SetId::from_bytes([7; 16]),
            state: MediumState::Writing,
            medium: 2,
            media: 3,
            sealed: true,
            relationship_name: "payroll".into(),
            relationship: RelationshipId::from_bytes([8; 16]),
            source: "grainhaul1...".into(),
            source_fingerprint: "12345 67890".into(),
            recipients: vec!["peer".into()],
            created_unix_ms: 5,
            generation: 0,
            ticket: "ticket".into(),
        }
    }

    #[test]
    fn a_label_round_trips_and_its_bounds_hold() {
        assert_eq!(Label::decode(&label().encode()), Ok(label()));
        let mut bad = label();
        bad.medium = 4;
        assert_eq!(Label::decode(&bad.encode()).map_err(|e| e.field), Err("medium"));
        bad.medium = 0;
        assert!(Label::decode(&bad.encode()).is_err());
        bad = label();
        bad.format = "grainhaul media label v9".into();
        assert_eq!(Label::decode(&bad.encode()).map_err(|e| e.field), Err("format"));
    }

    proptest! {
        #[test]
        fn mutated_labels_do_not_panic(at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
            let mut bytes = label().encode();
            let place = at.index(bytes.len());
            bytes[place] = value;
            drop(Label::decode(&bytes));
            bytes.truncate(cut.index(bytes.len()));
            drop(Label::decode(&bytes));
        }
    }
}
