//! Envelopes: each kind of recipient, strangers, damage in every region, and work that is refused.

use proptest::prelude::*;

use super::*;
use crate::{EscrowKey, SiteKeys};

const KEY: [u8; 32] = [0x5a; 32];

fn weak(text: &str) -> Passphrase {
    Passphrase::new(text).unwrap().with_work(4)
}

#[test]
fn each_recipient_opens_it_and_nobody_else() {
    let (site, stranger) = (SiteKeys::generate().unwrap(), SiteKeys::generate().unwrap());
    let (escrow, other) = (EscrowKey::generate(), EscrowKey::generate());
    let recipients = [
        Recipient::Site(site.identity()),
        Recipient::Key(escrow.recipient().unwrap()),
        Recipient::Passphrase(weak("correct horse")),
        Recipient::Passphrase(weak("battery staple")),
    ];
    let sealed = Envelope::seal(&KEY, &recipients).unwrap();
    let info = Envelope::inspect(&sealed).unwrap();
    assert_eq!(info, EnvelopeInfo { for_keys: true, for_passphrase: true });
    let opens = |opener: Opener<'_>| Envelope::open(&sealed, &[opener]).map(|key| *key);
    assert_eq!(opens(Opener::Site(&site)).unwrap(), KEY);
    assert_eq!(opens(Opener::Key(&escrow)).unwrap(), KEY);
    assert_eq!(opens(Opener::Passphrase(&weak("correct horse"))).unwrap(), KEY);
    assert_eq!(opens(Opener::Passphrase(&weak("battery staple"))).unwrap(), KEY);
    for stranger in
        [Opener::Site(&stranger), Opener::Key(&other), Opener::Passphrase(&weak("wrong"))]
    {
        let error = opens(stranger).unwrap_err();
        assert!(matches!(error, Error::NoKey { tried: 1 }), "{error}");
    }
    assert!(matches!(Envelope::open(&sealed, &[]), Err(Error::NoKey { tried: 0 })));
}

#[test]
fn the_stock_age_opens_the_inner_file() {
    let escrow = EscrowKey::generate();
    let sealed = Envelope::seal(&KEY, &[Recipient::Key(escrow.recipient().unwrap())]).unwrap();
    assert_eq!(age::decrypt(escrow.age(), &sealed[14..]).unwrap(), KEY);
    let again = EscrowKey::from_file_bytes(&escrow.to_file_bytes()).unwrap();
    assert_eq!(*Envelope::open(&sealed, &[Opener::Key(&again)]).unwrap(), KEY);
    assert!(EscrowKey::from_file_bytes(b"# nothing\n\n").is_err());
    assert!(EscrowKey::from_file_bytes(b"AGE-SECRET-KEY-1QQQ").is_err());
}

#[test]
fn too_many_and_no_recipients_are_refused() {
    assert!(Envelope::seal(&KEY, &[]).is_err());
    let one = Recipient::Key(EscrowKey::generate().recipient().unwrap());
    let sealed = Envelope::seal(&KEY, &vec![one.clone(); Envelope::MAX_KEYS]).unwrap();
    assert!(sealed.len() < Envelope::MAX_BYTES / 4, "{}", sealed.len());
    assert!(Envelope::seal(&KEY, &vec![one; Envelope::MAX_KEYS + 1]).is_err());
    let passphrases = vec![Recipient::Passphrase(weak("x")); Envelope::MAX_PASSPHRASES + 1];
    assert!(Envelope::seal(&KEY, &passphrases).is_err());
    assert!(Passphrase::new("").is_err());
}

#[test]
fn excessive_scrypt_work_is_refused_before_it_is_done() {
    let recipients = [Recipient::Passphrase(weak("secret"))];
    let sealed = Envelope::seal(&KEY, &recipients).unwrap();
    // `-> scrypt SALT 4` becomes a demand for 2^21 rounds, i.e. 2 GiB.
    let at = sealed.windows(3).position(|w| w == b" 4\n").unwrap();
    let mut hostile = sealed[..at].to_vec();
    hostile.extend_from_slice(b" 21\n");
    hostile.extend_from_slice(&sealed[at + 3..]);
    let len = hostile.len() as u32 - 14;
    hostile[10..14].copy_from_slice(&len.to_le_bytes());
    let error = Envelope::open(&hostile, &[Opener::Passphrase(&weak("secret"))]).unwrap_err();
    assert!(matches!(error, Error::WorkFactor { asked: 21, limit: 20 }), "{error}");
    // The same file marked as one for keys is not even tried.
    let mut disguised = sealed;
    disguised[9] = KIND_KEYS;
    let key = EscrowKey::generate();
    assert!(Envelope::open(&disguised, &[Opener::Key(&key)]).is_err());
}

#[test]
fn a_flipped_bit_anywhere_never_yields_another_key() {
    let escrow = EscrowKey::generate();
    let sealed = Envelope::seal(&KEY, &[Recipient::Key(escrow.recipient().unwrap())]).unwrap();
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1 << bit;
            let opened = Envelope::open(&damaged, &[Opener::Key(&escrow)]);
            assert!(opened.is_err(), "byte {at} bit {bit} went unnoticed");
        }
    }
    for cut in 0..sealed.len() {
        assert!(Envelope::open(&sealed[..cut], &[Opener::Key(&escrow)]).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_wrong_number_of_key_bytes_is_refused() {
    let escrow = EscrowKey::generate();
    let recipient = escrow.age().to_public();
    for len in [0, 31, 33, 100_000] {
        let blob = age::encrypt(&recipient, &vec![1; len]).unwrap();
        let sealed = assemble(&[(KIND_KEYS, blob)]);
        assert!(Envelope::open(&sealed, &[Opener::Key(&escrow)]).is_err(), "{len}");
    }
}

#[test]
fn many_lines_are_refused_before_age_parses_them() {
    let mut blob = b"age-encryption.org/v1\n".to_vec();
    blob.extend(b"-> X\n\n".repeat(9000));
    let error = Envelope::inspect(&assemble(&[(KIND_KEYS, blob)])).unwrap_err().to_string();
    assert!(error.contains("too many lines"), "{error}");
}

#[test]
fn recipients_are_read_from_text() {
    let keys = SiteKeys::generate().unwrap();
    let site = keys.identity().to_string().parse().unwrap();
    assert!(matches!(site, Recipient::Site(identity) if identity == keys.identity()));
    let key = keys.identity().recipient().to_string().parse().unwrap();
    assert!(matches!(key, Recipient::Key(_)));
    assert!("ssh-ed25519 AAAA".parse::<Recipient>().is_err());
}

proptest! {
    #[test]
    fn random_bytes_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
        let key = EscrowKey::generate();
        if magic {
            bytes.splice(0..0, *MAGIC);
        }
        prop_assert!(Envelope::open(&bytes, &[Opener::Key(&key)]).is_err());
    }
}
