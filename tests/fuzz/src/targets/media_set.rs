//! A media set: directory, segments, part directories, hashes and label, each as a file among the good
//! files of a small set. The first byte chooses the set (the golden sealed one, or one without sealing that
//! is made here), the second the file, the third what is mended after the edits: nothing, checksums, or,
//! in the set made here, the directory's seal and signature, so that its inner parser is reached.
//!
//! What is handed out without a forged signature holds the bytes that were put in.

use std::cell::OnceCell;
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use disk::simulated::SimMachine;
use grain::{Content, CutId, GrainData, RelationshipId, Run, SetId, VolumeId};
use media::{CutFacts, FinishInfo, KeySource, SetPlan, SetView, SetWriter, SignedSet};

use crate::edits::{self, Edit};
use crate::input::Input;
use crate::{Allocation, Target, stage};

/// This target.
pub const TARGET: Target = Target {
    name: "media_set",
    run,
    seeds,
    // The scene's own files (30 KiB), what is read of them, and the grains that come out (1 MiB).
    allocation: Allocation { constant_bytes: 12 << 20, per_byte: 256 },
};

type Files = Vec<(PathBuf, Vec<u8>)>;

thread_local! {
    static PLAIN: OnceCell<Files> = const { OnceCell::new() };
}

macro_rules! golden {
    ($($name:literal),*) => {
        vec![$((
            PathBuf::from(concat!("/", $name)),
            include_bytes!(concat!("../../../../shared/media/tests/golden/v1/", $name)).to_vec(),
        )),*]
    };
}

fn sealed() -> Files {
    golden!(
        "medium1/DIRECTORY.ghd",
        "medium1/HASHES.b3",
        "medium1/KEY.age",
        "medium1/LABEL.json",
        "medium1/PART-001.ghp",
        "medium1/segment-00000001.ghs",
        "medium2/DIRECTORY.ghd",
        "medium2/LABEL.json",
        "medium2/PART-002.ghp",
        "medium2/segment-00000002.ghs"
    )
}

fn plan() -> SetPlan {
    SetPlan {
        set: SetId::from_bytes([1; 16]),
        relationship: RelationshipId::from_bytes([2; 16]),
        relationship_name: "fuzz".into(),
        geometry: stage::geometry(),
        cut: CutFacts { cut: CutId::from_bytes([3; 16]), unix_ms: 4, lineage: vec![5, 6, 7] },
        basis: None,
        media: vec!["/medium1".into(), "/medium2".into()],
        segment_bytes: 64 << 10,
        queue_bytes: 1 << 20,
        level: Some(1),
        sealing: None,
        recipient_names: Vec::new(),
        keys: Rc::new(stage::keys()),
        ticket: "a ticket".into(),
    }
}

fn noise() -> Vec<u8> {
    let mut noise = vec![0; 12_288];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

/// What both sets hold: of volume 0 text, noise, then zeros; of volume 1 one byte over and over.
fn expected(run: &Run) -> Vec<u8> {
    let mut volume: Vec<u8> = match run.volume.0 {
        0 => b"golden ".iter().copied().cycle().take(8192).chain(noise()).collect(),
        _ => vec![0x5a; 10_000],
    };
    let whole = if run.volume.0 == 0 { 1 << 20 } else { 10_000 };
    volume.resize(whole, 0);
    let (from, to) = ((run.first * 4096) as usize, (run.end() * 4096) as usize);
    volume[from.min(whole)..to.min(whole)].to_vec()
}

fn plain() -> Files {
    let make = async {
        let machine = SimMachine::new(5);
        let writer = SetWriter::create(&machine.context(), plan()).await.expect("a writer");
        for (volume, first, count, zero) in
            [(0, 0, 2, false), (0, 2, 3, false), (0, 5, 251, true), (1, 0, 3, false)]
        {
            let run = Run { volume: VolumeId(volume), first, count };
            let data = || Content::Data(Bytes::from(expected(&run)));
            let content = if zero { Content::Zero } else { data() };
            writer.push(GrainData { run, content }).await.expect("a push");
        }
        writer.finish(FinishInfo::default()).await.expect("a set");
        let files = machine.files("/").into_iter();
        let read = |path: PathBuf| (path.clone(), machine.content(&path).expect("a file").to_vec());
        files.map(|(path, _)| read(path)).collect()
    };
    PLAIN.with(|cell| cell.get_or_init(|| stage::run(make)).clone())
}

fn put_crc(file: &mut [u8], range: std::ops::Range<usize>) {
    if let Some((head, crc)) = file.get_mut(range).and_then(|part| part.split_last_chunk_mut::<4>())
    {
        *crc = crc32c::crc32c(head).to_le_bytes();
    }
}

/// Lets the checksums of headers and trailer fit.
fn mend_checksums(name: &str, file: &mut [u8]) {
    let len = file.len();
    match name.rsplit('.').next() {
        Some("ghs") => {
            put_crc(file, 0..128);
            put_crc(file, len.saturating_sub(128)..len);
        }
        Some("ghp") => put_crc(file, 0..80),
        Some("ghd") => put_crc(file, 0..96),
        _ => {}
    }
}

/// Lets lengths, seal and signature of an unsealed directory fit its content.
fn mend_directory(file: &mut [u8]) {
    const HEADER: usize = 96;
    const TAIL: usize = 16 + 64;
    if file.len() < HEADER + TAIL {
        return;
    }
    let field = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes"));
    let signed = file.len() - 64;
    let manifest = (field(64) as usize).min(signed - HEADER - 16);
    let body_at = HEADER + manifest;
    file[64..72].copy_from_slice(&(manifest as u64).to_le_bytes());
    file[72..80].copy_from_slice(&((signed - body_at) as u64).to_le_bytes());
    put_crc(file, 0..HEADER);
    let mut key = blake3::Hasher::new_derive_key("grainhaul 2026 media unsealed checksum v1");
    key.update(&file[16..32]).update(&[3]).update(&0u64.to_le_bytes()).update(&file[32..64]);
    let mut nonce = [0; 12];
    nonce[0] = 5;
    let mut tag = blake3::Hasher::new_keyed(key.finalize().as_bytes());
    tag.update(&nonce).update(&(HEADER as u64).to_le_bytes()).update(&file[..HEADER]);
    tag.update(&file[body_at..signed - 16]);
    tag.finalize_xof().fill(&mut file[signed - 16..signed]);
    let signature = stage::keys().sign("media directory", &file[..signed]);
    file[signed..].copy_from_slice(&signature.to_bytes());
}

fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut files = if input.u8().is_multiple_of(2) { sealed() } else { plain() };
    let (which, mend) = (usize::from(input.u8()) % files.len(), input.u8() % 3);
    let (path, file) = &mut files[which];
    edits::apply(&mut input, file);
    let name = path.to_string_lossy().into_owned();
    mend_checksums(&name, if mend == 0 { &mut [] } else { file });
    let forged = mend == 2 && name.ends_with(".ghd");
    if forged {
        mend_directory(file);
    }
    // A forged directory stands on one medium only, so that it alone is believed.
    let dirs = if forged { vec![path.parent().expect("a folder").to_owned()] } else { both() };
    stage::run(read(files, dirs, forged));
}

fn both() -> Vec<PathBuf> {
    vec!["/medium1".into(), "/medium2".into()]
}

async fn read(files: Files, dirs: Vec<PathBuf>, forged: bool) {
    let machine = SimMachine::new(5);
    files.iter().for_each(|(path, bytes)| machine.plug_in(path, bytes));
    let ctx = machine.context();
    let Ok(signed) = SignedSet::open(&ctx, &dirs, None).await else { return };
    drop(signed.check_files(&|_| ()).await);
    let keys = [KeySource::Site(Rc::new(stage::keys()))];
    let Ok(view) = SetView::unlock(signed, &keys).await else { return };
    drop(view.segments().await);
    let proof = view.extract(|found| {
        if !forged {
            let wanted = expected(&found.data.run);
            match &found.data.content {
                Content::Data(bytes) => assert_eq!(bytes[..], wanted, "not what was put in"),
                Content::Zero => assert!(wanted.iter().all(|b| *b == 0), "not zeros"),
            }
        }
        std::future::ready(Ok::<(), std::convert::Infallible>(()))
    });
    let Ok(proof) = proof.await;
    assert!(proof.proven.fits(&view.facts().geometry), "grains outside the volumes");
}

fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (set, files) in [(0u8, sealed()), (1, plain())] {
        for (which, (path, _)) in files.iter().enumerate() {
            let file = path.to_string_lossy().trim_start_matches('/').replace(['/', '.'], "-");
            let mut edit = |name: &str, mend: u8, edit: Edit| {
                let bytes = [vec![set, which as u8, mend], edit.encode()].concat();
                found.push((format!("{set}-{file}-{name}"), bytes));
            };
            edit("flip", 0, Edit::Flip { at: 300, mask: 4 });
            edit("short", 0, Edit::Truncate { at: 350 });
            if file.ends_with("ghs") || file.ends_with("ghp") {
                edit("fits-header", 1, Edit::Put { at: 64, value: u64::MAX });
                edit("frame", 0, Edit::Odd { at: 140, which: 2, width: 1 });
            }
            if file.ends_with("ghd") {
                edit("fits-manifest", 1, Edit::Put { at: 64, value: u64::MAX });
                edit("forged-same", 2, Edit::Flip { at: 300, mask: 0 });
                edit("forged-manifest", 2, Edit::Odd { at: 98, which: 2, width: 0 });
                edit("forged-body", 2, Edit::Odd { at: 1200, which: 2, width: 0 });
            }
        }
    }
    found
}
