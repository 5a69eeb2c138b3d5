//! Segment files of the undo log. The first byte chooses: raw bytes as the only segment, or edits of one of
//! the segments of a good history, with or without checksums that fit again.
//!
//! An opening ends with a history or an error. The points that it lists and what is withdrawn are the same
//! at the next opening. Without forged checksums all bytes that are handed out are those that were put in.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::simulated::SimMachine;
use grain::{Content, CutId, Span, SpanData, VolumeId};
use journal::history::{Config, History, Moment, Point};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "history",
    run,
    seeds,
    // The scene's segments in the simulated machine, some 50 KiB each, four at most, and what is read of
    // them; a claimed payload may make room for 1 MiB.
    allocation: Allocation { constant_bytes: 12 << 20, per_byte: 256 },
};

const DIR: &str = "/history";
const ID: [u8; 16] = [9; 16];
const RECORDS_START: usize = 16384;
const RECORD_HEADER: usize = 128;
const BLOCK: usize = 4096;

type Files = Vec<(PathBuf, Vec<u8>)>;

thread_local! {
    static GOOD: OnceCell<Files> = const { OnceCell::new() };
}

fn config() -> Config {
    Config { segment_bytes: 40 << 10, ..Config::new(DIR) }
}

/// The bytes that every record of the scene holds for a span.
fn span_bytes(span: Span) -> Bytes {
    (span.start..span.end()).map(|at| (at % 251) as u8 + 1).collect::<Vec<u8>>().into()
}

/// A history of three segments, with points, labels, withdrawals and looks.
fn good() -> Files {
    let make = async {
        let machine = SimMachine::new(3);
        let geometry = stage::geometry();
        let opened = History::open(&machine.context(), config(), &geometry, ID).await;
        let (history, _) = opened.expect("a history");
        for commit in 0..8u64 {
            let cut = CutId::from_bytes([commit as u8; 16]);
            let label = (commit % 3 == 0).then(|| format!("point {commit}"));
            let point = Point { commit, cut, unix_ms: commit, label };
            history.note_point(point).await.expect("a point");
            for split in 0..2 {
                let start = commit * 5000 + u64::from(split) * 2500;
                let span = Span { volume: VolumeId(0), start, bytes: 4000 };
                let data = SpanData { span, content: Content::Data(span_bytes(span)) };
                let zero = Span { volume: VolumeId(1), start: commit * 100, bytes: 1000 };
                let zero = SpanData { span: zero, content: Content::Zero };
                let moment = Moment { commit, split };
                history.capture(moment, vec![data, zero]).await.expect("a capture");
            }
            match commit {
                3 => history.withdraw_below(1).await.expect("a withdrawal"),
                6 => history.withdraw_from(6).await.expect("a withdrawal"),
                _ => {}
            }
        }
        let files = machine.files(DIR).into_iter();
        let read = |path: PathBuf| (path.clone(), machine.content(&path).expect("a file").to_vec());
        files.map(|(path, _)| read(path)).collect()
    };
    GOOD.with(|cell| cell.get_or_init(|| stage::run(make)).clone())
}

fn crc(parts: &[&[u8]]) -> [u8; 4] {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)).to_le_bytes()
}

/// Makes the checksums of headers, marks, records and indexes fit what the bytes now say.
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
        if head[..4] == *b"GHUR" {
            let sum = crc(&[&nonce, &head[..8], &[0; 4], &head[12..]]);
            head[8..12].copy_from_slice(&sum);
        }
        at += 16;
    }
    let mut blocks = 0u64;
    for block in file.chunks_exact_mut(BLOCK) {
        if block[..4] == *b"GHUI" {
            let sum = crc(&[&nonce, &block[..4], &[0; 4], &block[8..160]]);
            block[4..8].copy_from_slice(&sum);
        }
        if block[..4] == *b"GHUB" {
            let sum = crc(&[&nonce, &blocks.to_le_bytes(), &block[..4], &[0; 4], &block[8..]]);
            block[4..8].copy_from_slice(&sum);
            blocks += 1;
        }
    }
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mode = input.u8() % 3;
    let mut files = good();
    if mode == 0 {
        files.truncate(1);
        let mut bytes = input.rest().to_vec();
        bytes.resize(bytes.len().max(48 << 10), 0);
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
    let geometry = stage::geometry();
    let opened = History::open(&machine.context(), config(), &geometry, ID).await;
    let Ok((history, _)) = opened else { return };
    let told = |history: &Rc<History>| (history.points(), history.oldest());
    let first = told(&history);
    for point in &first.0 {
        let moment = Moment::after(point.commit);
        if let Ok(changed) = history.changed_since(moment).await {
            assert!(changed.fits(&geometry), "grains outside the volumes");
        }
        for (volume, shape) in geometry.iter() {
            let whole = Span { volume, start: 0, bytes: shape.bytes };
            let Ok(found) = history.lookup(moment, whole).await else { continue };
            for saved in found {
                let Ok(data) = saved.read().await else { continue };
                assert_eq!(data.span, saved.span());
                if let (true, Content::Data(bytes)) = (honest, data.content) {
                    assert_eq!(bytes, span_bytes(data.span), "not what was put in");
                }
            }
        }
    }
    drop(history);
    let again = History::open(&machine.context(), config(), &geometry, ID).await;
    let (history, opened) = again.expect("what was opened opens again");
    assert_eq!(first, told(&history), "points or border differ between two openings");
    assert!(opened.withdrawn.is_empty(), "withdrawn twice");
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let edit = |name: &str, mode: u8, which: u8, edits: &[Edit]| {
        let edits = edits.iter().flat_map(|edit| edit.encode()).collect();
        (name.to_owned(), [vec![mode, which], edits].concat())
    };
    let record = RECORDS_START as u16;
    let files = good();
    let last = files.len() as u8 - 1;
    let head = files[usize::from(last)].1[..20_000].to_vec();
    let index = files[0].1.chunks(BLOCK).position(|block| block[..4] == *b"GHUI");
    let index = index.map_or(0, |number| (number * BLOCK) as u16);
    vec![
        ("raw".into(), [vec![0], head].concat()),
        edit("whole", 1, 0, &[]),
        edit("flip-record", 1, last, &[Edit::Flip { at: record + 20, mask: 1 }]),
        edit("flip-payload", 1, 0, &[Edit::Flip { at: record + 400, mask: 1 }]),
        edit("flip-mark", 1, last, &[Edit::Flip { at: 8200, mask: 1 }]),
        edit(
            "flip-headers",
            1,
            last,
            &[Edit::Flip { at: 30, mask: 1 }, Edit::Flip { at: 4126, mask: 1 }],
        ),
        edit("flip-index", 1, 0, &[Edit::Flip { at: index + 20, mask: 1 }]),
        edit("flip-block", 1, 0, &[Edit::Flip { at: index + 4196, mask: 1 }]),
        edit("short", 1, last, &[Edit::Truncate { at: record + 100 }]),
        edit("fits-commit", 2, last, &[Edit::Put { at: record + 16, value: u64::MAX }]),
        edit("fits-start", 2, last, &[Edit::Put { at: record + 32, value: u64::MAX }]),
        edit("fits-bytes", 2, last, &[Edit::Put { at: record + 40, value: u64::MAX }]),
        edit("fits-kind", 2, last, &[Edit::Flip { at: record + 4, mask: 5 }]),
        edit("fits-durable", 2, last, &[Edit::Put { at: 8208, value: u64::MAX }]),
        edit("fits-number", 2, 0, &[Edit::Put { at: 16, value: u64::MAX }]),
        edit("fits-low", 2, last, &[Edit::Put { at: 120, value: 1 << 61 }]),
        edit("fits-entries", 2, 0, &[Edit::Put { at: index + 16, value: 101 }]),
        edit("fits-entry", 2, 0, &[Edit::Put { at: index + 4096 + 24, value: u64::MAX }]),
    ]
}
