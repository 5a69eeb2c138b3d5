//! An envelope that a passphrase opens. The first byte chooses: raw bytes, or edits of a good envelope.
//!
//! A changed envelope never opens to another key than the one that was sealed, and one that asks for more
//! work than is granted is refused before any is done. What is granted is 2^20 rounds and 1 GiB; inputs that
//! ask for more than 2^8 of that are passed over, because they are only slow.

use std::cell::OnceCell;

use wire::{Envelope, Error, Opener, Passphrase};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "passphrase",
    run,
    seeds,
    // 2^8 rounds of scrypt take 256 KiB.
    allocation: Allocation { constant_bytes: 2 << 20, per_byte: 128 },
};

/// Sealed once, for the passphrase below, with 2^2 rounds.
const GOLDEN: &[u8] = include_bytes!("passphrase/envelope.age");
const WORDS: &str = "correct horse battery staple";
const KEY: [u8; 32] = [0x5a; 32];
/// Rounds that a run grants, as a power of two, and that the product grants.
const QUICK: u64 = 8;
const GRANTED: u64 = Passphrase::MAX_WORK_LOG2 as u64;

thread_local! {
    static PASSPHRASE: OnceCell<Passphrase> = const { OnceCell::new() };
}

fn passphrase() -> Passphrase {
    let new = || Passphrase::new(WORDS).expect("a passphrase");
    PASSPHRASE.with(|cell| cell.get_or_init(new).clone())
}

/// The work that the stanzas of an envelope ask for, as powers of two.
fn work(envelope: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(envelope);
    let stanzas = text.lines().filter_map(|line| line.split_once("-> scrypt "));
    stanzas.filter_map(|(_, rest)| rest.split(' ').nth(1)?.parse().ok()).collect()
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let envelope = match input.u8() % 2 {
        0 => input.rest().to_vec(),
        _ => {
            let mut envelope = GOLDEN.to_vec();
            edits::apply(&mut input, &mut envelope);
            envelope
        }
    };
    let work = work(&envelope);
    if work.iter().any(|asked| (QUICK + 1..=GRANTED).contains(asked)) {
        return;
    }
    let opened = Envelope::open(&envelope, &[Opener::Passphrase(&passphrase())]);
    match opened {
        Ok(key) => assert_eq!(key[..], KEY, "another key than was sealed"),
        Err(Error::WorkFactor { asked, limit }) => {
            assert!(asked > limit, "{asked} rounds refused, {limit} granted");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if envelope == GOLDEN {
        let info = Envelope::inspect(&envelope).expect("a good envelope");
        assert!(info.for_passphrase && !info.for_keys);
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let edit = |name: &str, edit: Edit| (name.to_owned(), [vec![1], edit.encode()].concat());
    let work_at = GOLDEN.windows(3).position(|w| w == b" 2\n").map_or(0, |at| at as u16 + 1);
    vec![
        ("golden".into(), [&[0][..], GOLDEN].concat()),
        edit("work-less", Edit::Flip { at: work_at, mask: 3 }),
        edit("work-more", Edit::Insert { at: work_at, len: 1, byte: b'9' }),
        edit("salt", Edit::Flip { at: work_at - 5, mask: 1 }),
        edit("kind", Edit::Flip { at: 9, mask: 3 }),
        edit("short", Edit::Truncate { at: 120 }),
        edit("payload", Edit::Flip { at: GOLDEN.len() as u16 - 3, mask: 1 }),
    ]
}
