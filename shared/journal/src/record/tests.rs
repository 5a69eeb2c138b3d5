//! Parsers of journal bytes: what was written comes back, every flipped bit is noticed, and nothing
//! that can be thrown at them makes them panic.

use proptest::prelude::*;

use super::*;
use crate::layout::{HeaderFound, Mark, Previous, Progress, SegmentHeader};

const NONCE: Nonce = [7; 16];

fn record() -> RecordHeader {
    RecordHeader {
        kind: Kind::CopyData,
        flags: 0,
        session: SessionId::from_bytes([1; 16]),
        cut: CutId::from_bytes([2; 16]),
        sequence: 3,
        run: Run { volume: VolumeId(4), first: 5, count: 6 },
        payload: 4096,
        offset: 16_384,
        durable: 16_384,
        newest_commit: 9,
        digest: [10; 32],
    }
}

fn segment() -> SegmentHeader {
    SegmentHeader {
        number: 12,
        nonce: NONCE,
        previous: Previous { number: 11, nonce: [3; 16], end: 40_000 },
        bytes: 65_536,
        progress: Progress { applied: 4, low: 9, newest: 6 },
        geometry: [5; 32],
    }
}

fn mark() -> Mark {
    let progress = Progress { applied: 1, low: 2, newest: 3 };
    Mark { generation: 8, durable: 20_000, progress, next: [0; 16] }
}

#[test]
fn what_was_written_comes_back() {
    let header = record();
    assert_eq!(RecordHeader::decode(&header.encode(&NONCE), &NONCE, 16_384), Some(header));
    assert_eq!(SegmentHeader::decode(&segment().encode()), HeaderFound::Good(segment()));
    assert_eq!(Mark::decode(&mark().encode(&NONCE), &NONCE), Some(mark()));
    for code in 0..=255 {
        assert_eq!(Kind::from_code(code).code(), code);
    }
}

#[test]
fn counters_that_no_journal_reaches_do_not_check() {
    let most = (1 << 62) - 1;
    for (number, possible) in [(most, true), (most + 1, false), (u64::MAX, false)] {
        let progress = segment().progress;
        let turned = [
            Progress { applied: number, ..progress },
            Progress { low: number, ..progress },
            Progress { newest: number, ..progress },
        ];
        let headers = turned.map(|progress| SegmentHeader { progress, ..segment() });
        for header in headers.into_iter().chain([SegmentHeader { number, ..segment() }]) {
            let found = SegmentHeader::decode(&header.encode());
            let expected = if possible { HeaderFound::Good(header) } else { HeaderFound::Bad };
            assert_eq!(found, expected);
        }
        for progress in turned {
            let mark = Mark { progress, ..mark() };
            let found = Mark::decode(&mark.encode(&NONCE), &NONCE);
            assert_eq!(found, possible.then_some(mark));
        }
        let decoded = |header: RecordHeader| {
            RecordHeader::decode(&header.encode(&NONCE), &NONCE, header.offset)
        };
        let header = RecordHeader { newest_commit: number, ..record() };
        assert_eq!(decoded(header), possible.then_some(header));
        let header = RecordHeader { kind: Kind::Commit, sequence: number, ..record() };
        assert_eq!(decoded(header), possible.then_some(header));
        // Of a copy record it is the caller's.
        let header = RecordHeader { sequence: number, ..record() };
        assert_eq!(decoded(header), Some(header));
    }
}

#[test]
fn another_place_or_nonce_is_no_record() {
    let bytes = record().encode(&NONCE);
    assert_eq!(RecordHeader::decode(&bytes, &NONCE, 16_400), None);
    assert_eq!(RecordHeader::decode(&bytes, &[8; 16], 16_384), None);
    assert_eq!(Mark::decode(&mark().encode(&NONCE), &[8; 16]), None);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (header, own, first) = (record().encode(&NONCE), mark().encode(&NONCE), segment().encode());
    for bit in 0..header.len() * 8 {
        let mut bytes = header.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(RecordHeader::decode(&bytes, &NONCE, 16_384), None, "bit {bit}");
    }
    for bit in 0..own.len() * 8 {
        let mut bytes = own.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(Mark::decode(&bytes, &NONCE), None, "bit {bit}");
    }
    for bit in 0..first.len() * 8 {
        let mut bytes = first.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::Bad, "bit {bit}");
    }
}

#[test]
fn a_newer_version_is_told_apart_from_damage() {
    let mut bytes = segment().encode();
    bytes[8] = 2;
    bytes[12..16].fill(0);
    let crc = crate::codec::crc_of(&[&bytes]).to_le_bytes();
    bytes[12..16].copy_from_slice(&crc);
    assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::Version(2));
}

#[test]
fn the_bytes_of_version_1_stay() {
    let digest = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..16].to_owned();
    let shape = [
        digest(&record().encode(&NONCE)),
        digest(&segment().encode()),
        digest(&mark().encode(&NONCE)),
        digest(&commit().encode()),
    ];
    assert_eq!(shape, GOLDEN);
}

const GOLDEN: [&str; 4] =
    ["f8214741fffc1b94", "4ac953679d1c68f0", "c97baead651da43e", "0130d568002c713d"];

fn commit() -> CommitPayload {
    let session = SessionId::from_bytes([1; 16]);
    let one = Adopted { session, records: 2, grains: 3, manifests: 1, disjoint: true };
    CommitPayload { sessions: vec![one, one], body: b"body".to_vec() }
}

#[test]
fn a_commit_of_another_length_is_refused() {
    let bytes = commit().encode();
    assert_eq!(CommitPayload::decode(&bytes), Some(commit()));
    for len in 0..bytes.len() {
        assert_eq!(CommitPayload::decode(&bytes[..len]), None);
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(CommitPayload::decode(&longer), None);
    let vast = [0xff; 64];
    assert_eq!(CommitPayload::decode(&vast), None);
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let never = RecordHeader::decode(&bytes, &NONCE, 0);
        prop_assert_eq!(never, None);
        prop_assert_eq!(Mark::decode(&bytes, &NONCE), None);
        prop_assert_eq!(SegmentHeader::decode(&bytes), HeaderFound::Bad);
        if let Some(payload) = CommitPayload::decode(&bytes) {
            prop_assert_eq!(payload.encode().len(), bytes.len());
        }
        let sessions = decode_abort(&bytes);
        prop_assert_eq!(sessions.is_some(), bytes.len() % 16 == 0);
    }

    #[test]
    fn mutated_commits_do_no_harm(at in 0..92usize, byte in any::<u8>(), cut in 0..92usize) {
        let mut bytes = commit().encode();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        if let Some(payload) = CommitPayload::decode(&bytes) {
            prop_assert!(payload.sessions.len() <= 2);
        }
    }
}
