//! Frames of a link. The first byte says in what pieces the stream arrives; the frames must not depend on
//! that, and what was decoded must survive being encoded again.

use bytes::BytesMut;
use wire::frame::{Compress, Decoder, Encoder, Frame, MAX_PAYLOAD_BYTES, flags};

use crate::{Allocation, Target};

/// This target.
pub const TARGET: Target = Target {
    name: "frame",
    run,
    seeds,
    // A header is enough to make room for the payload that it announces (8 MiB at most), compressed one
    // more; a link accounts for that before it reads on (`Decoder::pending`), and reads headers of that
    // size only from a peer that has proven its key. The target holds two decoders.
    allocation: Allocation { constant_bytes: 4 * MAX_PAYLOAD_BYTES + (1 << 20), per_byte: 64 },
};

/// Frames that were decoded, and whether the stream went on making sense.
fn decode(data: &[u8], piece: usize) -> (Vec<Frame>, bool) {
    let (mut decoder, mut input, mut frames) = (Decoder::new(), BytesMut::new(), Vec::new());
    let mut held = 0;
    for part in data.chunks(piece) {
        input.extend_from_slice(part);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= MAX_PAYLOAD_BYTES);
                    held += frame.payload.len();
                    // What a link would have made wait for its queue.
                    if held > MAX_PAYLOAD_BYTES {
                        return (frames, true);
                    }
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(decoder.decode(&mut input).is_err(), "it recovered from nonsense");
                    return (frames, false);
                }
            }
        }
    }
    (frames, true)
}

fn run(data: &[u8]) {
    let (piece, rest) = data.split_first().unwrap_or((&0, &[]));
    let whole = decode(rest, rest.len().max(1));
    let pieces = decode(rest, usize::from(*piece) + 1);
    assert_eq!(whole, pieces, "frames depend on how they arrive");
    let Some(frame) = whole.0.into_iter().next() else { return };
    let again = Frame { flags: frame.flags & !flags::COMPRESS, ..frame };
    let bytes = encode(again.clone(), Compress::Off);
    assert_eq!(decode(&bytes, bytes.len()), (vec![again], true));
}

fn encode(frame: Frame, compress: Compress) -> Vec<u8> {
    let mut encoder = Encoder::new(compress);
    encoder.push(frame).expect("a decoded frame can be encoded");
    encoder.seal();
    let mut out = Vec::new();
    while bytes::Buf::has_remaining(&encoder) {
        let part = bytes::Buf::chunk(&encoder).to_vec();
        bytes::Buf::advance(&mut encoder, part.len());
        out.extend(part);
    }
    out
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let frame = |flags, control: &[u8], payload: Vec<u8>| {
        let control = bytes::Bytes::copy_from_slice(control);
        encode(Frame { kind: 16, flags, control, payload: payload.into() }, Compress::Level(1))
    };
    let small = frame(0, b"control", vec![1, 2, 3]);
    let packed = frame(flags::COMPRESS, b"control", vec![b'x'; 3000]);
    let mut huge = small.clone();
    huge[12..20].copy_from_slice(&[0, 0, 0x80, 0, 0, 0, 0x80, 0]);
    vec![
        ("small".into(), [vec![0], small.clone()].concat()),
        ("compressed".into(), [vec![6], packed.clone()].concat()),
        ("several".into(), [vec![16], small.clone(), packed, small].concat()),
        ("announced".into(), [vec![255], huge].concat()),
        ("empty".into(), [vec![3], frame(0x1200, b"", Vec::new())].concat()),
    ]
}
