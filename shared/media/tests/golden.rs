//! Sets written by released versions stay readable, byte for byte. The files in `golden/` are never
//! made again; a new version of the format gets a folder of its own.

#![allow(clippy::unwrap_used, reason = "a test ends where its scene cannot be built")]

mod scene;

use std::path::PathBuf;
use std::rc::Rc;

use grain::{Content, GrainSize};
use media::{KeySource, RootVerdict, SetView, SignedSet};
use wire::SiteKeys;

const GOLDEN_FINGERPRINT: &str =
    "01f0cd828ecfd57bce14c987acb1ba04e8030100000000000092713a59ea000000";

#[test]
fn version_1_reads() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let peer = std::fs::read(dir.join("peer.key")).unwrap();
    let peer = Rc::new(SiteKeys::from_file_bytes(&peer).unwrap());
    let dirs = [dir.join("medium1"), dir.join("medium2")];
    scene::run(async {
        let ctx = disk::real::context();
        let signed = SignedSet::open(&ctx, &dirs, None).await.unwrap();
        assert_eq!(signed.check_files(&|_| ()).await, vec![]);
        let keys = [KeySource::Site(peer)];
        let view = SetView::unlock(signed, &keys).await.unwrap();
        let mut volumes = [vec![0xffu8; 1 << 20], vec![0xff; 10_000]];
        let proof = view
            .extract(|run| {
                let at = (run.data.run.first * GrainSize::MIN.bytes()) as usize;
                let volume = &mut volumes[run.data.run.volume.index()];
                match &run.data.content {
                    Content::Data(bytes) => volume[at..at + bytes.len()].copy_from_slice(bytes),
                    Content::Zero => {
                        let len = (run.data.run.count * GrainSize::MIN.bytes()) as usize;
                        volume[at..at + len].fill(0);
                    }
                }
                std::future::ready(Ok::<(), std::convert::Infallible>(()))
            })
            .await
            .unwrap();
        assert_eq!((proof.root, proof.damage), (RootVerdict::Proven, vec![]));
        let text: Vec<u8> = b"golden ".iter().copied().cycle().take(8192).collect();
        let mut noise = vec![0; 12_288];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(volumes[0][..8192], text);
        assert_eq!(volumes[0][8192..20_480], noise);
        assert!(volumes[0][20_480..].iter().all(|&b| b == 0));
        assert!(volumes[1].iter().all(|&b| b == 0x5a));
        let facts = view.facts();
        assert_eq!((facts.cut.unix_ms, &facts.cut.lineage), (4, &vec![5, 6, 7]));
        // Small volumes are sampled whole; the number is written down here, too.
        assert_eq!(proof.fingerprint, facts.fingerprint);
        assert_eq!(facts.fingerprint.to_string(), GOLDEN_FINGERPRINT);
    });
}
