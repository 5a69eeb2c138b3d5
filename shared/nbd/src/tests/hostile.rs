//! Bytes that no honest client or server sends: they must end in an error or a closed connection,
//! never in a panic, a hang or a large allocation.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::client::negotiate::Agreed;
use crate::client::replies::{Next, Pending, take_reply};
use crate::encode::Style;
use crate::request::Header;

/// Everything an honest client says in one connection.
fn honest_client(extended: bool) -> Vec<u8> {
    let mut script = 3_u32.to_be_bytes().to_vec();
    let mut option = |code: u32, data: &[u8]| {
        script.extend_from_slice(b"IHAVEOPT");
        script.extend_from_slice(&code.to_be_bytes());
        script.extend_from_slice(&(data.len() as u32).to_be_bytes());
        script.extend_from_slice(data);
    };
    let base = [&named("first", &1_u32.to_be_bytes())[..], &named(BASE_ALLOCATION, &[])].concat();
    option(option::LIST, &[]);
    option(if extended { 11 } else { 8 }, &[]);
    option(option::LIST_META_CONTEXT, &base);
    option(option::SET_META_CONTEXT, &base);
    option(option::INFO, &named("first", &[0, 2, 0, 1, 0, 3]));
    option(option::GO, &named("first", &[0, 1, 0, 3]));
    for (cookie, command) in [1_u16, 0, 3, 4, 5, 6, 7].into_iter().enumerate() {
        let len = if command == 3 { 0 } else { 600 };
        let mut request = compact(0, command, cookie as u64, 0, len);
        if extended {
            request[..4].copy_from_slice(&0x21e4_1c71_u32.to_be_bytes());
            request[5] = if command == 1 { 32 } else { 0 };
            request.splice(24..24, [0; 4]);
        }
        script.extend_from_slice(&request);
        if command == 1 {
            script.extend_from_slice(&[0x5a; 600]);
        }
    }
    script
}

/// Sends `script` to a server and waits until both directions have ended. Returns how many bytes
/// came back.
fn survive(script: &[u8]) -> usize {
    let export = Rc::new(MemoryExport::with_description(description()));
    let server = server_of(export, Limits::default());
    run(async {
        let (ours, theirs) = tokio::io::duplex(8 << 10);
        let (mut reader, mut writer) = tokio::io::split(ours);
        let served = server.serve(Stream::Pipe(theirs), None);
        let sent = async {
            // The server may hang up early.
            drop(writer.write_all(script).await);
            drop(writer.shutdown().await);
        };
        let read = async {
            let mut answer = Vec::new();
            reader.read_to_end(&mut answer).await.map_or(0, |_| answer.len())
        };
        let ((), (), count) = tokio::join!(served, sent, read);
        assert!(count < 4 << 20, "{count} bytes for {} bytes", script.len());
        count
    })
}

#[test]
fn the_honest_scripts_are_understood() {
    for extended in [false, true] {
        assert!(survive(&honest_client(extended)) > 1000, "the last request was answered");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_survived() {
    for extended in [false, true] {
        let script = honest_client(extended);
        for at in 0..script.len() {
            let mut flipped = script.clone();
            flipped[at] ^= 1 << (at % 8);
            survive(&flipped);
        }
    }
}

#[test]
fn a_script_cut_anywhere_is_survived() {
    let script = honest_client(true);
    for len in 0..script.len() {
        survive(&script[..len]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn random_bytes_are_survived(
        prefix in 0_usize..3,
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let honest = honest_client(false);
        // Nothing, the flags, or the whole option phase before the noise.
        let options = honest.len() - 7 * 28 - 600;
        let start = &honest[..[0, 4, options][prefix]];
        survive(&[start, &bytes].concat());
    }

    #[test]
    fn mutated_scripts_are_survived(
        extended: bool,
        changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cut in any::<usize>(),
        repeat in any::<usize>(),
    ) {
        let mut script = honest_client(extended);
        for (at, byte) in changes {
            let at = at % script.len();
            script[at] = byte;
        }
        let (cut, repeat) = (cut % script.len(), repeat % script.len());
        let spliced = [&script[..cut], &script[repeat..]].concat();
        survive(&spliced);
    }

    #[test]
    fn headers_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        for style in [Style::Simple, Style::Structured, Style::Extended] {
            // Only a right magic at a right length passes.
            let passed = Header::parse(style, &bytes).is_ok();
            let magic = if style == Style::Extended { 0x21e4_1c71_u32 } else { REQUEST_MAGIC };
            let right = bytes.len() >= style.request_len() && bytes[..4] == magic.to_be_bytes();
            prop_assert_eq!(passed, right);
        }
    }

    #[test]
    fn a_client_survives_any_reply(
        style in 0_usize..3,
        kind in 0_u16..8,
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        flips in proptest::collection::vec((0_usize..64, 0_u8..8), 0..4),
    ) {
        let style = [Style::Simple, Style::Structured, Style::Extended][style];
        let mut bytes = reply_head(style, kind, noise.len());
        bytes.extend_from_slice(&noise);
        for (at, bit) in flips {
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        }
        let contexts = BTreeMap::from([(0, BASE_ALLOCATION.to_owned())]);
        let agreed = Agreed { size_bytes: SIZE, flags: 1, style, contexts };
        let mut pending = BTreeMap::from([(1, Pending::new(0, 0, 512)), (2, Pending::new(7, 0, 512))]);
        let mut input = BytesMut::from(&bytes[..]);
        loop {
            let before = input.len();
            match take_reply(&mut input, &agreed, &mut pending) {
                Ok(Next::Complete(cookie)) => {
                    drop(pending.remove(&cookie).map(Pending::finish));
                }
                Ok(Next::More) => prop_assert!(input.len() < before, "no progress"),
                Ok(Next::Need(count)) => {
                    prop_assert!(count <= 18 << 20, "{} bytes of memory", count);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}

/// The head of a reply to cookie 1.
fn reply_head(style: Style, kind: u16, payload_len: usize) -> Vec<u8> {
    let magic = match style {
        Style::Simple => 0x6744_6698_u32,
        Style::Structured => 0x668e_33ef,
        Style::Extended => 0x6e8a_278c,
    };
    let mut head = magic.to_be_bytes().to_vec();
    head.extend_from_slice(&[0, 0]);
    head.extend_from_slice(&(if style == Style::Simple { 0 } else { kind }).to_be_bytes());
    head.extend_from_slice(&(1 + u64::from(kind == 5 || kind == 6)).to_be_bytes());
    match style {
        Style::Simple => {}
        Style::Structured => head.extend_from_slice(&(payload_len as u32).to_be_bytes()),
        Style::Extended => {
            head.extend_from_slice(&[0; 8]);
            head.extend_from_slice(&(payload_len as u64).to_be_bytes());
        }
    }
    head
}
