//! Segment files of the journal. The first byte chooses: raw bytes as the only segment, or edits of one of
//! the segments of a good journal, with or without checksums that fit again.
//!
//! An opening ends with a journal or an error. What it found, it finds again at the next opening. Without
//! forged checksums every grain that is handed out holds the bytes that were put in.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::simulated::SimMachine;
use grain::{Content, CutId, GrainData, Run, SessionId, Span, SpanData, VolumeId};
use journal::{Config, Journal};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "journal",
    run,
    seeds,
    // The scene's segments are read and written anew in the simulated machine: 64 KiB each, a dozen at
    // most, twice while they are copied; a claimed payload may make room for 4 MiB.
    allocation: Allocation { constant_bytes: 24 << 20, per_byte: 256 },
};

const DIR: &str = "/journal";
const SEGMENT: u64 = 64 << 10;
const RECORDS_START: usize = 16384;
const RECORD_HEADER: usize = 128;

type Files = Vec<(PathBuf, Vec<u8>)>;

thread_local! {
    static GOOD: OnceCell<Files> = const { OnceCell::new() };
}

fn config() -> Config {
    let mut config = Config::new(DIR);
    config.segment_bytes = SEGMENT;
    config.max_bytes = 32 * SEGMENT;
    config.max_records = 1000;
    config
}

/// The bytes that every record of the scene holds for a grain.
fn grain_bytes(first: u64, count: u64) -> Bytes {
    (first..first + count).flat_map(|grain| [grain as u8 ^ 0x5a; 4096]).collect::<Vec<u8>>().into()
}

async fn append(journal: &Rc<Journal>, session: SessionId, sequence: u64, first: u64, count: u64) {
    let run = Run { volume: VolumeId(0), first, count };
    let data = grain_bytes(first, count);
    let digest = *blake3::hash(&data).as_bytes();
    let data = GrainData { run, content: Content::Data(data) };
    journal.append(session, sequence, &data, digest).await.expect("an append");
}

/// A write of a stream, with the bytes that every record has there.
async fn stream(journal: &Rc<Journal>, sequence: u64, start: u64, bytes: u64) {
    let span = Span { volume: VolumeId(0), start, bytes };
    let grains = stage::geometry().touched_by(span);
    let around = grain_bytes(grains.first, grains.count);
    let from = (start - grains.first * 4096) as usize;
    let data = around.slice(from..from + bytes as usize);
    let digest = *blake3::hash(&data).as_bytes();
    let data = SpanData { span, content: Content::Data(data) };
    journal.append_stream(sequence, &data, digest).await.expect("a write");
}

/// A journal with two commits in several segments, a session left open, one aborted, and a stream.
fn good() -> Files {
    let make = async {
        let machine = SimMachine::new(3);
        let opened = Journal::open(machine.context(), config(), stage::geometry()).await;
        let (journal, _) = opened.expect("a journal");
        for n in 1..=4u8 {
            let (session, cut) = (SessionId::from_bytes([n; 16]), CutId::from_bytes([n; 16]));
            journal.begin_session(session, cut).expect("a session");
            let first = u64::from(n) * 8;
            append(&journal, session, 0, first, 3).await;
            append(&journal, session, 1, first + 4, 2).await;
            let run = Run { volume: VolumeId(1), first: 0, count: 2 };
            let zero = GrainData { run, content: Content::Zero };
            journal.append(session, 2, &zero, [0; 32]).await.expect("an append");
            journal.sync().await.expect("a sync");
            match n {
                1 | 2 => drop(journal.commit(&[session], cut, Bytes::from_static(b"body")).await),
                3 => journal.abort(&[session]).await.expect("an abort"),
                _ => {}
            }
        }
        // A stream, of which one epoch has ended; a write in the middle of two grains.
        journal.begin_stream(CutId::from_bytes([5; 16])).await.expect("a stream");
        stream(&journal, 1, 4096 * 9 - 100, 300).await;
        let next = CutId::from_bytes([6; 16]);
        journal.commit(&[], next, Bytes::from_static(b"body")).await.expect("a commit");
        stream(&journal, 1, 4096 * 30, 17).await;
        stream(&journal, 2, 4096 * 12 + 5, 4096).await;
        journal.sync().await.expect("a sync");
        let files = machine.files(DIR).into_iter();
        let read = |path: PathBuf| (path.clone(), machine.content(&path).expect("a file").to_vec());
        files.map(|(path, _)| read(path)).collect()
    };
    GOOD.with(|cell| cell.get_or_init(|| stage::run(make)).clone())
}

fn crc(parts: &[&[u8]]) -> [u8; 4] {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)).to_le_bytes()
}

/// Makes the checksums of headers, marks and records fit what the bytes now say.
fn fix_checksums(file: &mut [u8]) {
    for at in [0, 4096] {
        if let Some(head) = file.get_mut(at..at + 256) {
            let sum = crc(&[&head[..12], &[0; 4], &head[16..]]);
            head[12..16].copy_from_slice(&sum);
        }
    }
    let Some(nonce) = file.get(24..40).map(<[u8]>::to_vec) else { return };
    for at in [8192, 12288] {
        if let Some(mark) = file.get_mut(at..at + 64) {
            let sum = crc(&[&nonce, &mark[..4], &[0; 4], &mark[8..]]);
            mark[4..8].copy_from_slice(&sum);
        }
    }
    let mut at = RECORDS_START;
    while let Some(head) = file.get_mut(at..at + RECORD_HEADER) {
        let is_record = head[..4] == *b"GHJR";
        if is_record {
            let sum = crc(&[&nonce, &head[..8], &[0; 4], &head[12..]]);
            head[8..12].copy_from_slice(&sum);
        }
        at += 16;
    }
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8() % 3;
    let mut files = good();
    if mode == 0 {
        files.truncate(1);
        let mut bytes = input.rest().to_vec();
        bytes.resize(SEGMENT as usize, 0);
        files[0].1 = bytes;
    } else {
        let which = usize::from(input.u8()) % files.len();
        let file = &mut files[which].1;
        // Places are of 16 bits: as many as a segment has.
        edits::apply(&mut input, file);
        if mode == 2 {
            fix_checksums(file);
        }
    }
    stage::run(open(files, mode == 1));
}

async fn open(files: Files, honest: bool) {
    let machine = SimMachine::new(3);
    files.iter().for_each(|(path, bytes)| machine.plug_in(path, bytes));
    let opened = Journal::open(machine.context(), config(), stage::geometry()).await;
    let Ok((journal, first)) = opened else { return };
    let geometry = stage::geometry();
    assert!(
        first.sessions.iter().all(|s| s.received.fits(&geometry)),
        "grains outside the volumes"
    );
    let whole = Run { volume: VolumeId(0), first: 0, count: 64 };
    for piece in journal.lookup(geometry.span_of(whole)) {
        let grains = piece.grains();
        let Ok(data) = piece.read().await else { continue };
        if let (true, Content::Data(bytes)) = (honest, data.content) {
            let around = grain_bytes(grains.first, grains.count);
            let from = (data.span.start - grains.first * 4096) as usize;
            assert_eq!(bytes, around[from..from + bytes.len()], "not what was put in");
        }
    }
    drop(journal);
    let again = Journal::open(machine.context(), config(), stage::geometry()).await;
    let (_journal, second) = again.expect("what was opened opens again");
    let names = |found: &journal::Recovered| {
        found.commits.iter().map(|commit| commit.number).collect::<Vec<_>>()
    };
    assert_eq!(names(&first), names(&second), "a commit came or went between two openings");
    let sessions = |found: &journal::Recovered| {
        found.sessions.iter().map(|s| (s.session, s.received.len())).collect::<Vec<_>>()
    };
    assert_eq!(sessions(&first), sessions(&second), "sessions differ between two openings");
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let edit = |name: &str, mode: u8, which: u8, edits: &[Edit]| {
        let edits = edits.iter().flat_map(|edit| edit.encode()).collect();
        (name.to_owned(), [vec![mode, which], edits].concat())
    };
    let record = RECORDS_START as u16;
    let head = good().swap_remove(0).1[..20_000].to_vec();
    vec![
        ("raw".into(), [vec![0], head].concat()),
        edit("whole", 1, 0, &[]),
        edit("flip-record", 1, 0, &[Edit::Flip { at: record + 20, mask: 1 }]),
        edit("flip-payload", 1, 0, &[Edit::Flip { at: record + 300, mask: 1 }]),
        edit("flip-mark", 1, 0, &[Edit::Flip { at: 8200, mask: 1 }]),
        edit(
            "flip-headers",
            1,
            0,
            &[Edit::Flip { at: 30, mask: 1 }, Edit::Flip { at: 4126, mask: 1 }],
        ),
        edit("short", 1, 0, &[Edit::Truncate { at: record + 100 }]),
        edit("fits-payload", 2, 0, &[Edit::Odd { at: record + 12, which: 7, width: 1 }]),
        edit("fits-run", 2, 0, &[Edit::Put { at: record + 56, value: u64::MAX }]),
        edit("fits-count", 2, 0, &[Edit::Put { at: record + 64, value: u64::MAX }]),
        edit("fits-kind", 2, 0, &[Edit::Flip { at: record + 4, mask: 7 }]),
        edit("fits-durable", 2, 0, &[Edit::Put { at: 8208, value: u64::MAX }]),
        edit("fits-number", 2, 0, &[Edit::Put { at: 16, value: u64::MAX }]),
        edit("fits-progress", 2, 0, &[Edit::Put { at: 80, value: u64::MAX }]),
        edit("fits-size", 2, 0, &[Edit::Put { at: 72, value: u64::MAX }]),
    ]
}
