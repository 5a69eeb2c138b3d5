//! Identifiers: relationships, cuts, layers, sets, sessions.
//!
//! All are 128-bit UUIDs. Those that name an instant are version 7 (RFC 9562: 48 bits of Unix
//! milliseconds, then random bits), so that they sort by time in a listing; nothing relies on that
//! order for correctness. The random bytes come from the caller, who takes them from the kernel at
//! the moment of use (a machine reverted with its memory would repeat a generator's output).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an identifier (expected a UUID)")]
pub struct IdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a version 7 id from Unix milliseconds and ten bytes fresh from the kernel.
            pub fn new(unix_ms: u64, random: [u8; 10]) -> Self {
                $name(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }

            /// The 16 bytes as stored and sent.
            pub fn to_bytes(self) -> [u8; 16] {
                *self.0.as_bytes()
            }

            /// The id whose stored form is `bytes`. Any 16 bytes are an id.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                $name(Uuid::from_bytes(bytes))
            }

            /// The last eight hex digits: enough to tell ids apart on a screen.
            pub fn short(self) -> String {
                let text = self.0.simple().to_string();
                text[text.len() - 8..].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map($name).map_err(|_| IdError(text.to_owned()))
            }
        }
    };
}

id!(
    /// Names a relationship: the volumes that are cut, copied and mirrored together.
    RelationshipId
);
id!(
    /// Names a cut: an instant in the write order of a relationship.
    CutId
);
id!(
    /// Names one file of layer pages, so that a recycled page of an older layer is told apart.
    LayerId
);
id!(
    /// Names a media set: the shipped disks that together hold one copy session.
    SetId
);
id!(
    /// Names one copy session over the link.
    SessionId
);
id!(
    /// Names the history of a replica: what does not carry it is not ours to go back to.
    HistoryId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_round_trip() {
        let early = CutId::new(1_000, [0xff; 10]);
        let late = CutId::new(2_000, [0; 10]);
        assert!(early < late);
        assert_eq!(late.to_string().parse::<CutId>(), Ok(late));
        assert_eq!(CutId::from_bytes(late.to_bytes()), late);
        assert!("not-an-id".parse::<CutId>().is_err());
    }
}
