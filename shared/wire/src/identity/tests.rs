//! Identities as text: typos, truncation, weak keys, and the fingerprint.

use proptest::prelude::*;

use super::*;
use crate::SiteKeys;

#[test]
fn the_line_round_trips_and_survives_a_mail_program() {
    let identity = SiteKeys::generate().unwrap().identity();
    let line = identity.to_string();
    assert_eq!(line.len(), LINE_CHARS);
    assert!(line.starts_with("grainhaul1"), "{line}");
    assert_eq!(line.parse::<Identity>().unwrap(), identity);
    assert_eq!(format!("  {}\r\n", line.to_uppercase()).parse::<Identity>().unwrap(), identity);
    let json = serde_json::to_string(&identity).unwrap();
    assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), identity);
    let bytes = crate::codec::encode(&identity).unwrap();
    assert_eq!(crate::codec::decode::<Identity>(&bytes, 1000).unwrap(), identity);
}

#[test]
fn every_single_typo_and_every_swap_is_found() {
    let line = SiteKeys::generate().unwrap().identity().to_string();
    for at in 10..line.len() {
        let mut typo = line.clone().into_bytes();
        typo[at] = if typo[at] == b'q' { b'p' } else { b'q' };
        let error = String::from_utf8(typo).unwrap().parse::<Identity>().unwrap_err().to_string();
        assert!(error.contains("mistyped"), "{at}: {error}");
    }
    let shorter = line[..line.len() - 1].parse::<Identity>().unwrap_err().to_string();
    assert!(shorter.contains("a part is missing"), "{shorter}");
    for foreign in
        ["", "age1qqqq", "grainhaul", "grainhaul1", "\u{e9}grainhaul1", "grainhaul1\u{e9}"]
    {
        assert!(foreign.parse::<Identity>().is_err(), "{foreign}");
    }
}

#[test]
fn another_version_and_a_weak_key_are_refused_in_words() {
    let encode =
        |payload: &[u8]| bech32::encode::<Bech32m>(Hrp::parse_unchecked(PREFIX), payload).unwrap();
    let mut payload = [9u8; PAYLOAD_BYTES];
    payload[0] = 2;
    let error = encode(&payload).parse::<Identity>().unwrap_err().to_string();
    assert!(error.contains("version 2; this program knows 1"), "{error}");
    // The X25519 point of order 1 (and 0, of order 4): the shared secret is all zeros.
    for weak in [0u8, 1] {
        let mut payload = [9u8; PAYLOAD_BYTES];
        payload[0] = VERSION;
        payload[33..].fill(0);
        payload[33] = weak;
        let error = encode(&payload).parse::<Identity>().unwrap_err().to_string();
        assert!(error.contains("weak"), "{error}");
    }
}

#[test]
fn the_fingerprint_is_stable_and_covers_both_keys() {
    let identity = Identity::new([1; 32], AgeRecipient([2; 32]));
    let golden = identity.fingerprint();
    assert_eq!(golden, "57924 20973 13714 92690 71642 11027 96618 53769");
    assert_eq!(golden.len(), 47);
    assert_ne!(Identity::new([1; 32], AgeRecipient([3; 32])).fingerprint(), golden);
    assert_ne!(Identity::new([3; 32], AgeRecipient([2; 32])).fingerprint(), golden);
}

#[test]
fn a_signature_holds_for_its_bytes_its_domain_and_its_site() {
    let (keys, other) = (SiteKeys::generate().unwrap(), SiteKeys::generate().unwrap());
    let signature = keys.sign("test", b"bytes");
    assert!(keys.identity().verify("test", b"bytes", &signature).is_ok());
    assert!(keys.identity().verify("tesT", b"bytes", &signature).is_err());
    assert!(keys.identity().verify("test", b"byteS", &signature).is_err());
    assert!(other.identity().verify("test", b"bytes", &signature).is_err());
    for at in 0..64 {
        let mut bytes = signature.to_bytes();
        bytes[at] ^= 1;
        let forged = Signature::from_bytes(bytes);
        assert!(keys.identity().verify("test", b"bytes", &forged).is_err(), "byte {at}");
    }
    assert_eq!(signature.to_string().parse::<Signature>().unwrap(), signature);
    assert!("00".parse::<Signature>().is_err());
    assert!("\u{e9}".repeat(64).parse::<Signature>().is_err());
}

#[test]
fn age_recipients_round_trip() {
    let recipient = SiteKeys::generate().unwrap().identity().recipient();
    assert_eq!(recipient.to_string().parse::<AgeRecipient>().unwrap(), recipient);
    assert_eq!(recipient.to_age().unwrap().to_string(), recipient.to_string());
    assert!("age1pq1qqqq".parse::<AgeRecipient>().is_err());
    let mut typo = recipient.to_string();
    typo.truncate(40);
    assert!(typo.parse::<AgeRecipient>().is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,140}") {
        prop_assert!(text.parse::<Identity>().is_err());
        let (site, key) = (format!("grainhaul1{text}"), format!("age1{text}"));
        prop_assert!(site.parse::<Identity>().is_err());
        prop_assert!(key.parse::<AgeRecipient>().is_err());
    }
}
