//! Short texts that people pass on: identities, recipients, signatures, fingerprints, ids, and key files.
//!
//! What parses is written again as a text that parses to the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use grain::fingerprint::Fingerprint;
use grain::{CutId, SetId};
use site::amount::{parse_duration, parse_rate, parse_size};
use wire::{AgeRecipient, EscrowKey, Identity, Signature, SiteKeys};

use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "texts",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 1 << 20, per_byte: 64 },
};

fn run(data: &[u8]) {
    if let Ok(keys) = SiteKeys::from_file_bytes(data) {
        let again = SiteKeys::from_file_bytes(&keys.to_file_bytes()).expect("its own file");
        assert_eq!(again.identity(), keys.identity());
    }
    if let Ok(key) = EscrowKey::from_file_bytes(data) {
        key.recipient().expect("a key has a recipient");
    }
    if let Ok(fingerprint) = Fingerprint::from_bytes(data) {
        assert_eq!(fingerprint.to_bytes()[..], *data);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    same::<Identity>(text);
    same::<AgeRecipient>(text);
    same::<Signature>(text);
    same::<CutId>(text);
    same::<SetId>(text);
    if let Ok(fingerprint) = Fingerprint::try_from(text.to_owned()) {
        assert_eq!(fingerprint.to_string(), text);
    }
    // Refused or understood; there is no way back from these.
    drop((parse_size(text), parse_rate(text), parse_duration(text)));
}

fn same<T: FromStr + Display + PartialEq + Debug>(text: &str)
where
    T::Err: Debug,
{
    let Ok(value) = text.parse::<T>() else { return };
    assert_eq!(value.to_string().parse::<T>().expect("its own text"), value);
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let keys = stage::keys();
    let identity = keys.identity();
    let fingerprint = Fingerprint { seed: [7; 16], chunks: 1000, sum: 0x1234_5678 };
    let text = |name: &str, text: String| (name.to_owned(), text.into_bytes());
    vec![
        text("identity", identity.to_string()),
        text("identity-upper", identity.to_string().to_uppercase()),
        text("recipient", identity.recipient().to_string()),
        text("signature", keys.sign("fuzz", b"bytes").to_string()),
        text("fingerprint", fingerprint.to_string()),
        ("fingerprint-bytes".into(), fingerprint.to_bytes().to_vec()),
        text("id", CutId::from_bytes([9; 16]).to_string()),
        text("size", "1.5 GiB".into()),
        text("rate", "10M/s".into()),
        text("duration", "1h 30m".into()),
        ("key-file".into(), stage::KEYS.to_vec()),
    ]
}
