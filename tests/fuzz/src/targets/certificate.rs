//! What a stranger shows before it has proven anything: its certificate at a link, and the PEM files of NBD
//! over TCP. The first byte chooses: raw bytes as a certificate, edits of a good one, raw bytes as the
//! authority of a server, or its certificate or key.
//!
//! A changed certificate may show another key; it never shows none and a key, and reading it twice is the
//! same. What is pinned afterwards, and that the handshake is signed with it, is TLS's part.

use wire::tls::{key_of, pki_server_config};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "certificate",
    run,
    seeds,
    allocation: Allocation { constant_bytes: 2 << 20, per_byte: 256 },
};

/// A certificate as a site shows it, and its key; made once, with a key that belongs to nobody.
const GOOD: &[u8] = include_bytes!("certificate/site.der");
const GOOD_KEY: &[u8] = include_bytes!("certificate/site.key.pem");

fn pem(der: &[u8]) -> Vec<u8> {
    let body = data_encoding::BASE64.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").into_bytes()
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.u8() % 5 {
        0 => show(input.rest()),
        1 => {
            let mut der = GOOD.to_vec();
            edits::apply(&mut input, &mut der);
            show(&der);
        }
        2 => serve(input.rest(), &pem(GOOD), GOOD_KEY),
        3 => serve(&pem(GOOD), input.rest(), GOOD_KEY),
        _ => serve(&pem(GOOD), &pem(GOOD), input.rest()),
    }
}

fn show(der: &[u8]) {
    let certificate = der.to_vec().into();
    let key = key_of(&certificate);
    assert_eq!(key, key_of(&certificate));
    if let Some(key) = key {
        assert!(der.windows(32).any(|part| part == key), "a key from nowhere");
    }
    if der == GOOD {
        assert!(key.is_some(), "a good certificate shows its key");
    }
    serve(&pem(der), &pem(der), GOOD_KEY);
}

/// A server is made, or an error names the file.
fn serve(authority: &[u8], certificate: &[u8], key: &[u8]) {
    if let Err(error) = pki_server_config(authority, certificate, key) {
        assert!(!error.to_string().is_empty());
    }
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let edit = |name: &str, edit: Edit| (name.to_owned(), [vec![1], edit.encode()].concat());
    let with = |name: &str, mode: u8, bytes: &[u8]| (name.to_owned(), [&[mode], bytes].concat());
    vec![
        with("good", 0, GOOD),
        with("trailing", 0, &[GOOD, b"x"].concat()),
        with("authority", 2, &pem(GOOD)),
        with("chain", 3, &pem(GOOD).repeat(3)),
        with("key", 4, GOOD_KEY),
        with(
            "key-of-nothing",
            4,
            b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
        ),
        edit("edited-length", Edit::Odd { at: 1, which: 2, width: 1 }),
        edit("edited-flip", Edit::Flip { at: 60, mask: 1 }),
        edit("edited-short", Edit::Truncate { at: 100 }),
        edit("edited-longer", Edit::Insert { at: 40, len: 200, byte: 0x30 }),
    ]
}
