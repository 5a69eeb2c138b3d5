//! The greeting of a link, on both sides: the first frame after TLS, from a peer of which only the key is
//! known. The first byte chooses the side, and whether the rest is raw or the two halves of a message whose
//! frame is made here.
//!
//! Whatever comes, a greeting that succeeds is within the terms, and its text is fit for a terminal.

use bytes::Buf;
use grain::RelationshipId;
use tokio::io::{AsyncReadExt, join, sink};
use wire::Frame;
use wire::frame::{Compress, Encoder};
use wire::link::{Terms, greet_as_dialer, greet_as_listener};

use crate::input::Input;
use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "greeting",
    run,
    seeds,
    // A greeting's frame holds 4 KiB at most, whatever its header says.
    allocation: Allocation { constant_bytes: 1 << 20, per_byte: 8 },
};

const KINDS: [u16; 6] = [1, 2, 3, 4, 5, 16];

fn terms() -> Terms {
    let relationship = RelationshipId::from_bytes([1; 16]);
    Terms { relationship, protocol: 2..=4, software: "fuzz 1.0".into() }
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8();
    let bytes = match mode & 2 {
        0 => input.rest().to_vec(),
        _ => {
            let kind = KINDS[usize::from(input.u8()) % KINDS.len()];
            framed(kind, input.rest())
        }
    };
    stage::run(async {
        // In pieces, as a slow peer sends it.
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let mut stream = join(AsyncReadExt::chain(first, second), sink());
        let greeted = match mode & 1 {
            0 => greet_as_listener(&mut stream, &terms()).await,
            _ => greet_as_dialer(&mut stream, &terms()).await,
        };
        match greeted {
            Ok(greeting) => {
                assert!(terms().protocol.contains(&greeting.protocol), "not offered: {greeting:?}");
                assert!(greeting.software.chars().count() <= 64, "too long: {greeting:?}");
                assert!(!greeting.software.contains(char::is_control), "not fit: {greeting:?}");
            }
            Err(error) => {
                let words = error.to_string();
                assert!(words.len() < 8192 && !words.contains('\u{1b}'), "not fit: {words:?}");
            }
        }
    });
}

fn framed(kind: u16, control: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Compress::Off);
    let control = bytes::Bytes::copy_from_slice(control);
    if encoder.push(Frame::control(kind, control)).is_err() {
        return Vec::new();
    }
    encoder.seal();
    let len = encoder.remaining();
    encoder.copy_to_bytes(len).to_vec()
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let hello = |least: u16, most: u16, software: &str| {
        let hello = (least, most, terms().relationship, software);
        wire::codec::encode(&hello).expect("a hello")
    };
    let said = |number: u16, text: &str| wire::codec::encode(&(number, text)).expect("a message");
    let seed = |name: &str, mode: u8, kind: u8, message: &[u8]| {
        (name.to_owned(), [&[mode, kind], message].concat())
    };
    let raw = framed(1, &hello(1, 3, "grainhaul 0.1"));
    vec![
        ("raw-hello".into(), [vec![0], raw.clone()].concat()),
        ("raw-cut".into(), [&[0], &raw[..raw.len() - 3]].concat()),
        seed("hello", 2, 0, &hello(1, 3, "grainhaul 0.1")),
        seed("hello-backward", 2, 0, &hello(9, 3, "x")),
        seed("hello-newer", 2, 0, &hello(7, 9, "\u{1b}[2J")),
        seed("welcome", 3, 1, &said(3, "grainhaul \u{7}0.1")),
        seed("welcome-not-offered", 3, 1, &said(9, "x")),
        seed("close", 3, 2, &said(4, "\u{1b}[31mno")),
        seed("close-in-order", 3, 2, &said(0, "")),
    ]
}
