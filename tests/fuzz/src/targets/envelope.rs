//! Envelopes of a set key. The first byte chooses: raw bytes, or edits of a good envelope.
//!
//! A changed envelope never opens to another key than the one that was sealed. Passphrases are left out: trying one costs
//! scrypt's memory and time, which `wire` bounds by a work factor.

use wire::{Envelope, EscrowKey, Opener};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "envelope",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 2 << 20, per_byte: 128 },
};

const GOLDEN: &[u8] = include_bytes!("../../../../shared/media/tests/golden/v1/medium1/KEY.age");

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
    let shown = Envelope::inspect(&envelope);
    let (site, escrow) = (stage::keys(), EscrowKey::generate());
    let opened = Envelope::open(&envelope, &[Opener::Key(&escrow), Opener::Site(&site)]);
    let Ok(sealed) = Envelope::open(GOLDEN, &[Opener::Site(&site)]) else {
        panic!("the golden envelope does not open");
    };
    if let Ok(key) = &opened {
        assert_eq!(key[..], sealed[..], "another key than was sealed");
    }
    assert!(shown.is_ok() || opened.is_err(), "an envelope of no form opened");
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let edit = |name: &str, edit: Edit| (name.to_owned(), [vec![1], edit.encode()].concat());
    vec![
        ("golden".into(), [&[0][..], GOLDEN].concat()),
        edit("edited-flip", Edit::Flip { at: 60, mask: 1 }),
        edit("edited-count", Edit::Flip { at: 8, mask: 3 }),
        edit("edited-length", Edit::Odd { at: 10, which: 2, width: 1 }),
        edit("edited-short", Edit::Truncate { at: 200 }),
        edit("edited-lines", Edit::Insert { at: 100, len: 200, byte: b'\n' }),
    ]
}
