//! The greeting over a pipe: hostile first frames, and what is kept behind a good one.

use proptest::prelude::*;
use tokio::io::duplex;

use super::*;

fn terms() -> Terms {
    let relationship = RelationshipId::new(1, [1; 10]);
    Terms { relationship, protocol: 2..=4, software: "test\u{7} 1.0".into() }
}

fn bytes_of(frames: Vec<Frame>) -> Vec<u8> {
    let mut encoder = Encoder::new(Compress::Off);
    for frame in frames {
        encoder.push(frame).unwrap();
    }
    encoder.seal();
    let len = bytes::Buf::remaining(&encoder);
    bytes::Buf::copy_to_bytes(&mut encoder, len).to_vec()
}

/// What a listener makes of a first message.
async fn listen_to(bytes: &[u8]) -> Result<Greeted, Error> {
    let (mut ours, mut theirs) = duplex(1 << 16);
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    as_listener(&mut ours, &terms()).await
}

fn hello() -> Hello {
    let relationship = terms().relationship;
    Hello { protocol_min: 1, protocol_max: 3, relationship, software: "x".repeat(100) }
}

#[tokio::test]
async fn both_sides_agree() {
    let (mut ours, mut theirs) = duplex(1 << 16);
    let dialler = async {
        let terms = Terms { protocol: 4..=9, ..terms() };
        as_dialer(&mut theirs, &terms).await.unwrap()
    };
    let listener = async {
        let greeted = as_listener(&mut ours, &terms()).await.unwrap();
        welcome(&mut ours, greeted.protocol, &terms()).await.unwrap();
        greeted
    };
    let (dialled, listened) = tokio::join!(dialler, listener);
    assert_eq!((dialled.protocol, listened.protocol), (4, 4));
    assert_eq!(dialled.software, "test  1.0", "no control characters");
}

#[tokio::test]
async fn bytes_behind_the_hello_are_kept() {
    let next = Frame::control(20, &b"early"[..]);
    let bytes = bytes_of(vec![frame_of(kind::HELLO, &hello()).unwrap(), next.clone()]);
    let mut greeted = listen_to(&bytes).await.unwrap();
    assert_eq!((greeted.protocol, greeted.software.len()), (3, 64));
    assert_eq!(greeted.decoder.decode(&mut greeted.input).unwrap(), Some(next));
}

#[tokio::test]
async fn wrong_first_frames_are_named() {
    let welcome = Welcome { protocol: 3, software: String::new() };
    let wrong_kind = bytes_of(vec![frame_of(kind::WELCOME, &welcome).unwrap()]);
    assert!(matches!(listen_to(&wrong_kind).await, Err(Error::Protocol(_))));
    let short = bytes_of(vec![Frame::control(kind::HELLO, &b"abc"[..])]);
    assert!(matches!(listen_to(&short).await, Err(Error::Message { .. })));
    let large = bytes_of(vec![Frame::control(kind::HELLO, vec![0; 5000])]);
    assert!(matches!(listen_to(&large).await, Err(Error::Frame { field: "control length", .. })));
    assert!(matches!(listen_to(&large[..10]).await, Err(Error::Cut(_))));
    // A range that ends before it begins has nothing in common with ours.
    let backward = Hello { protocol_min: 9, protocol_max: 3, ..hello() };
    let bytes = bytes_of(vec![frame_of(kind::HELLO, &backward).unwrap()]);
    let error = listen_to(&bytes).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Refused { code: refusal::VERSION, .. }), "{error}");
}

#[tokio::test]
async fn a_listener_that_chooses_what_was_not_offered_is_refused() {
    let (mut ours, mut theirs) = duplex(1 << 16);
    let answer = Welcome { protocol: 9, software: String::new() };
    theirs.write_all(&bytes_of(vec![frame_of(kind::WELCOME, &answer).unwrap()])).await.unwrap();
    let error = as_dialer(&mut ours, &terms()).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_mutated_hello_is_refused_or_says_the_same_relationship(
        at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(vec![frame_of(kind::HELLO, &hello()).unwrap()]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        bytes.truncate(cut.index(bytes.len() + 1).max(at + 1));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        if let Ok(greeted) = runtime.block_on(listen_to(&bytes)) {
            prop_assert!((2..=3).contains(&greeted.protocol));
        }
    }
}
