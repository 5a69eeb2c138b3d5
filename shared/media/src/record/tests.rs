//! Records: what goes in comes out, and nothing else ever does.

use bytes::Bytes;
use grain::{GrainSize, SetId, VolumeShape};
use proptest::prelude::*;

use super::*;
use crate::seal::{FileRole, SetKey};

const MARKER: [u8; 8] = *b"MARKERxy";

fn geometry() -> Geometry {
    let volumes = vec![VolumeShape { alias: "disk".into(), bytes: (1 << 20) + 1000 }];
    Geometry { grain: GrainSize::MIN, volumes }
}

fn sealer(sealed: bool) -> Sealer {
    let key = SetKey::new([3; 32]);
    let set = SetId::from_bytes([1; 16]);
    Sealer::new(sealed.then_some(&key), set, FileRole::Segment(1), &[2; 32])
}

fn run(first: u64, count: u64) -> Run {
    Run { volume: VolumeId(0), first, count }
}

fn data(first: u64, bytes: Vec<u8>) -> GrainData {
    let count = bytes.len().div_ceil(4096) as u64;
    GrainData { run: run(first, count), content: Content::Data(bytes.into()) }
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn build(data: &GrainData, sealed: bool) -> BuiltRecord {
    let (geometry, seed) = (geometry(), [7; 16]);
    let fingerprint = FingerprintPlan::new(&geometry, seed);
    let plan = RecordPlan { geometry, level: Some(1), fingerprint };
    build_record(data, &plan, &sealer(sealed), MARKER, 9)
}

fn open(frame: &[u8], sealed: bool) -> Result<VerifiedRecord, RecordFault> {
    let geometry = geometry();
    open_record(frame.to_vec(), &geometry, &sealer(sealed), MARKER, 128)?.verify(geometry.grain)
}

#[test]
fn each_encoding_round_trips() {
    let text: Vec<u8> = b"grain by grain ".iter().copied().cycle().take(40960).collect();
    let mut holes = noise(40960);
    holes[4096..12288].fill(0);
    for sealed in [true, false] {
        for (bytes, encoding, grains) in [
            (noise(40960), Encoding::Raw, 10),
            (text.clone(), Encoding::Zstd, 10),
            (holes.clone(), Encoding::Zstd, 8),
            (vec![0; 40960], Encoding::Zero, 0),
        ] {
            let data = data(5, bytes);
            let built = build(&data, sealed);
            assert_eq!((built.encoding, built.data_grains), (encoding, grains));
            let back = open(&built.frame, sealed).ok().unwrap();
            assert_eq!(back.sum, built.sum);
            match encoding {
                Encoding::Zero => assert_eq!(back.data.content, Content::Zero),
                _ => assert_eq!(back.data, data),
            }
        }
    }
}

#[test]
fn a_short_last_grain_and_a_huge_zero_run_fit() {
    let data = data(255, noise(4096 + 1000));
    let built = build(&data, true);
    assert_eq!(open(&built.frame, true).ok().unwrap().data, data);
    let zero = GrainData { run: run(0, 257), content: Content::Zero };
    let built = build(&zero, true);
    assert_eq!(built.frame.len(), FRAME_HEADER_BYTES + HEAD_BYTES + TAG_BYTES);
    assert_eq!(open(&built.frame, true).ok().unwrap().data, zero);
}

#[test]
fn the_root_sum_does_not_depend_on_the_encoding() {
    let bytes = [vec![0; 4096], noise(8192), vec![0; 4096]].concat();
    let whole = build(&data(0, bytes.clone()), true).sum;
    let mut parts = RootSum::new();
    for (i, grain) in bytes.chunks(4096).enumerate() {
        parts.add(&build(&data(i as u64, grain.to_vec()), false).sum);
    }
    assert_eq!(whole, parts);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    for sealed in [true, false] {
        let frame = build(&data(5, noise(100 * 40)), sealed).frame;
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&bad, sealed).is_err(), "bit {bit}");
        }
        for len in 0..frame.len() {
            assert!(open(&frame[..len], sealed).is_err(), "cut to {len}");
        }
    }
}

/// Seals a body as an honest writer would, whatever it says.
fn seal_body(body: &[u8], sealed: bool) -> Vec<u8> {
    let body_len = (body.len() + TAG_BYTES) as u32;
    let header = FrameHeader { kind: FrameKind::Record, number: 9, body_len }.encode(MARKER);
    let mut body = body.to_vec();
    let tag = sealer(sealed).seal(Domain::Record, 9, &header, &mut body);
    [&header[..], &body, &tag].concat()
}

fn plain_body(data: &GrainData) -> Vec<u8> {
    let frame = build(data, false).frame;
    frame[FRAME_HEADER_BYTES..frame.len() - TAG_BYTES].to_vec()
}

#[test]
fn hostile_lengths_under_a_good_seal_are_refused() {
    let body = plain_body(&data(5, noise(8192)));
    let change = |at: usize, value: &[u8]| {
        let mut bad = body.clone();
        bad[at..at + value.len()].copy_from_slice(value);
        match open(&seal_body(&bad, true), true) {
            Err(RecordFault::Field(bad)) => bad.field,
            _ => "accepted",
        }
    };
    assert!(open(&seal_body(&body, true), true).is_ok());
    assert_eq!(change(0, &[9]), "encoding");
    assert_eq!(change(2, &[1]), "run");
    assert_eq!(change(4, &u32::MAX.to_le_bytes()), "raw length");
    assert_eq!(change(8, &u64::MAX.to_le_bytes()), "run");
    assert_eq!(change(16, &u64::MAX.to_le_bytes()), "run");
    assert_eq!(change(16, &0u64.to_le_bytes()), "run");
    assert_eq!(change(16, &200u64.to_le_bytes()), "raw length");
    assert_eq!(change(24, &u32::MAX.to_le_bytes()), "payload length");
    assert_eq!(change(28, &[1]), "reserved");
}

#[test]
fn a_payload_that_is_not_what_its_digests_say_is_refused() {
    let mut body = plain_body(&data(5, noise(8192)));
    *body.last_mut().unwrap() ^= 1;
    assert!(matches!(open(&seal_body(&body, true), true), Err(RecordFault::Content)));
    // A zstd frame that unpacks to less, or to more, than it should, or is none.
    for (payload, raw_len) in [
        (zstd::bulk::compress(&[7; 4096], 1).unwrap(), 8192u32),
        (zstd::bulk::compress(&vec![7; 1 << 24], 1).unwrap(), 8192),
        (vec![0xff; 100], 8192),
    ] {
        let mut body = vec![Encoding::Zstd as u8, 0, 0, 0];
        body.extend(raw_len.to_le_bytes());
        body.extend(5u64.to_le_bytes());
        body.extend(2u64.to_le_bytes());
        body.extend((payload.len() as u32).to_le_bytes());
        body.extend([0; 4 + 64]);
        body.extend(payload);
        assert!(matches!(open(&seal_body(&body, true), true), Err(RecordFault::Content)));
    }
}

proptest! {
    #[test]
    fn random_and_mutated_bodies_do_not_panic(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at: prop::sample::Index,
        value: u8,
    ) {
        drop(open(&noise, true));
        drop(open(&seal_body(&noise, true), true));
        let original = data(5, b"grain".repeat(1000));
        let mut body = plain_body(&original);
        let at = at.index(body.len());
        body[at] = value;
        // An accepted body says what it says consistently: content matches digests.
        if let Ok(record) = open(&seal_body(&body, true), true)
            && let Content::Data(bytes) = record.data.content
        {
            let digests: Vec<_> =
                bytes.chunks(4096).map(|grain| *blake3::hash(grain).as_bytes()).collect();
            prop_assert_eq!(digests, record.digests);
        }
    }

    #[test]
    fn runs_round_trip(first in 0u64..200, count in 1usize..40, seed: u8) {
        let data = data(first, vec![seed; count * 4096]);
        let built = build(&data, seed % 2 == 0);
        let back = open(&built.frame, seed % 2 == 0).ok().unwrap();
        let zero = vec![0; count * 4096];
        let content = match back.data.content {
            Content::Data(bytes) => bytes,
            Content::Zero => Bytes::from(zero),
        };
        prop_assert_eq!(content, vec![seed; count * 4096]);
    }
}
