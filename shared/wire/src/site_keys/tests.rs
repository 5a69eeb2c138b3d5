//! The key file: round trip, every flipped bit, and the stock `age` reading it.

use super::*;

#[test]
fn the_file_round_trips_and_is_an_age_identity_file() {
    let keys = SiteKeys::generate().unwrap();
    let bytes = keys.to_file_bytes();
    let again = SiteKeys::from_file_bytes(&bytes).unwrap();
    assert_eq!(again.identity(), keys.identity());
    let signature = again.sign("test", b"x");
    assert!(keys.identity().verify("test", b"x", &signature).is_ok());
    // What the age tool would do: skip comments, take the key.
    let file = age::IdentityFile::from_buffer(&bytes[..]).unwrap();
    assert_eq!(file.into_identities().map(|i| i.len()).unwrap(), 1);
    assert!(!format!("{keys:?}").contains("SECRET"));
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let bytes = SiteKeys::generate().unwrap().to_file_bytes();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            let error = SiteKeys::from_file_bytes(&damaged).unwrap_err();
            assert_eq!(error.class(), grain::ErrorClass::Corrupt, "{at}.{bit}: {error}");
        }
        assert!(SiteKeys::from_file_bytes(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(SiteKeys::from_file_bytes(&vec![b'#'; 5000]).is_err());
}

#[test]
fn keys_that_do_not_belong_together_are_refused() {
    let one = SiteKeys::generate().unwrap().to_file_bytes();
    let two = SiteKeys::generate().unwrap().to_file_bytes();
    let (one, two) = (std::str::from_utf8(&one).unwrap(), std::str::from_utf8(&two).unwrap());
    let line = |text: &str, n: usize| text.lines().nth(n).unwrap().to_owned();
    let lines = [line(one, 0), line(one, 1), line(one, 2), line(two, 3)];
    let body = lines.join("\n") + "\n";
    let file = format!("{body}{CHECK}{}\n", check_of(body.as_bytes()));
    let error = SiteKeys::from_file_bytes(file.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("does not belong to its keys"), "{error}");
}
