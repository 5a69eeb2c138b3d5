//! Frames: round trips in any pieces, bounds, compression bombs, random and mutated bytes.

use bytes::{Buf, BytesMut};
use proptest::prelude::*;

use super::*;

fn frame(kind: u16, control: usize, payload: usize, flags: u16) -> Frame {
    let fill =
        |len: usize| (0..len).map(|i| (i / 7 + usize::from(kind)) as u8).collect::<Vec<u8>>();
    Frame { kind, flags, control: fill(control).into(), payload: fill(payload).into() }
}

fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut encoder = Encoder::new(Compress::Level(1));
    for frame in frames {
        encoder.push(frame.clone()).unwrap();
    }
    encoder.seal();
    let len = encoder.remaining();
    let bytes = encoder.copy_to_bytes(len).to_vec();
    assert_eq!((bytes.len(), encoder.remaining()), (len, 0));
    bytes
}

fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, Error> {
    let (mut decoder, mut input, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        input.extend_from_slice(piece);
        while let Some(frame) = decoder.decode(&mut input)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

#[test]
fn the_layout_is_as_documented() {
    let bytes = encode(&[Frame { kind: 0x1234, flags: 0x8100, ..frame(3, 2, 3, 0) }]);
    let hex = data_encoding::HEXLOWER.encode(&bytes);
    assert_eq!(
        hex,
        "4748341200810000020000000300000003000000\
                     0303030303"
    );
}

#[test]
fn frames_arrive_whole_in_any_pieces() {
    let frames = [
        frame(16, 0, 0, 0),
        frame(17, 5, 100, flags::COMPRESS),
        frame(18, 70_000, 300_000, flags::COMPRESS | 0x4200),
        frame(19, 0, 20_000, 0),
        frame(20, 1, 9_000, 0),
    ];
    let bytes = encode(&frames);
    assert!(bytes.len() < 250_000, "the compressible one was compressed: {}", bytes.len());
    for piece in [1, 7, 19, 20, 21, 4096, bytes.len()] {
        assert_eq!(decode(&bytes, piece).unwrap(), frames, "pieces of {piece}");
    }
}

#[test]
fn what_does_not_shrink_travels_raw() {
    let mut noise = vec![0u8; 100_000];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let frame =
        Frame { kind: 16, flags: flags::COMPRESS, control: Bytes::new(), payload: noise.into() };
    let bytes = encode(std::slice::from_ref(&frame));
    assert_eq!(bytes.len(), HEADER_BYTES + 100_000);
    assert_eq!(decode(&bytes, 1000).unwrap(), [frame]);
}

#[test]
fn senders_are_held_to_the_bounds() {
    let mut encoder = Encoder::new(Compress::Level(1));
    let max = frame(16, MAX_CONTROL_BYTES, MAX_PAYLOAD_BYTES, 0);
    assert!(max.weight() < MAX_WEIGHT);
    encoder.push(max).unwrap();
    for bad in [
        frame(16, MAX_CONTROL_BYTES + 1, 0, 0),
        frame(16, 0, MAX_PAYLOAD_BYTES + 1, 0),
        frame(16, 0, 0, flags::COMPRESSED),
        frame(16, 0, 0, 4),
    ] {
        assert!(encoder.push(bad).is_err());
    }
}

#[test]
fn each_header_field_is_checked_and_named() {
    let good = encode(&[frame(16, 10, 10, 0)]);
    let field = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        match decode(&bytes, 1000) {
            Err(Error::Frame { field, offset, .. }) => (field, offset),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(field(0, b"HG"), ("magic", 0));
    assert_eq!(field(4, &[4]), ("flags", 4));
    assert_eq!(field(6, &[1]), ("reserved", 6));
    assert_eq!(field(8, &(MAX_CONTROL_BYTES as u32 + 1).to_le_bytes()), ("control length", 8));
    assert_eq!(field(12, &(MAX_PAYLOAD_BYTES as u32 + 1).to_le_bytes()), ("payload length", 12));
    assert_eq!(field(12, &u32::MAX.to_le_bytes()), ("payload length", 12));
    assert_eq!(field(16, &11u32.to_le_bytes()), ("raw length", 16));
    // Marked as compressed, but not smaller than what shall come out.
    assert_eq!(field(4, &[2]), ("raw length", 16));
}

#[test]
fn a_bomb_does_not_go_off() {
    let packed = zstd::bulk::compress(&vec![0u8; 64 << 20], 1).unwrap();
    let bomb = |raw_bytes: u32| {
        let header = Header {
            kind: 16,
            flags: flags::COMPRESSED,
            control_bytes: 0,
            payload_bytes: packed.len() as u32,
            raw_bytes,
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&packed);
        bytes
    };
    let error = decode(&bomb(64 << 20), 1 << 20).unwrap_err();
    assert!(matches!(error, Error::Frame { field: "raw length", .. }), "{error}");
    let error = decode(&bomb(8 << 20), 1 << 20).unwrap_err();
    assert!(matches!(error, Error::Frame { field: "payload", .. }), "{error}");
}

#[test]
fn a_failed_decoder_stays_failed() {
    let mut decoder = Decoder::new();
    let mut input = BytesMut::from(&[0xffu8; 40][..]);
    assert!(decoder.decode(&mut input).is_err());
    let mut good = BytesMut::from(&encode(&[frame(16, 1, 1, 0)])[..]);
    assert!(decoder.decode(&mut good).is_err());
    assert!(!decoder.is_idle());
}

#[test]
fn before_the_greeting_only_small_frames_are_taken() {
    let mut decoder = Decoder::with_limits(Limits::GREETING);
    let mut large = BytesMut::from(&encode(&[frame(1, 5000, 0, 0)])[..]);
    assert!(decoder.decode(&mut large).is_err());
    let mut decoder = Decoder::with_limits(Limits::GREETING);
    let mut payload = BytesMut::from(&encode(&[frame(1, 0, 1, 0)])[..]);
    assert!(decoder.decode(&mut payload).is_err());
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    (16u16.., any::<bool>(), any::<u8>(), bytes(50), bytes(2000), 0usize..40).prop_map(
        |(kind, compress, free, control, payload, repeat)| Frame {
            kind,
            flags: u16::from(free) << 8 | if compress { flags::COMPRESS } else { 0 },
            control: control.into(),
            payload: payload.repeat(repeat).into(),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_frames_round_trip(frames in prop::collection::vec(any_frame(), 0..6), piece in 1usize..9000) {
        let bytes = encode(&frames);
        prop_assert_eq!(decode(&bytes, piece).unwrap(), frames);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
        if magic && bytes.len() > 8 {
            bytes[..2].copy_from_slice(&MAGIC);
            bytes[5..8].fill(0);
        }
        drop(decode(&bytes, 13));
    }

    #[test]
    fn mutated_streams_never_panic_and_stay_in_bounds(
        frames in prop::collection::vec(any_frame(), 1..4),
        at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encode(&frames);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        bytes.truncate(cut.index(bytes.len() + 1).max(at + 1));
        if let Ok(decoded) = decode(&bytes, 777) {
            prop_assert!(decoded.len() <= bytes.len() / HEADER_BYTES);
            prop_assert!(decoded.iter().all(|f| f.payload.len() <= MAX_PAYLOAD_BYTES));
        }
    }
}
