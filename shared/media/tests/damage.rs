//! Damage of every kind, in every region of every file: an error that names the file, or a list of
//! exactly the grains that are lost. Never wrong bytes, never a panic.

#![allow(clippy::unwrap_used, reason = "a test ends where its scene cannot be built")]

mod scene;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use disk::simulated::{SimMachine, Snapshot};
use grain::GrainSet;
use media::{Damage, Fault, IndexSource, MediaError, RootVerdict, SignedSet};
use scene::{Dice, Scene, run};

const SIZE: u64 = 160 << 10;

/// A finished set and its snapshot, so that each damage begins from a whole one.
struct Finished {
    machine: SimMachine,
    scene: Scene,
    whole: Snapshot,
}

impl Finished {
    fn new(media: usize, sealed: bool) -> Finished {
        let machine = SimMachine::new(11);
        let mut scene = Scene::new(machine.context(), "/mnt", media, SIZE, sealed);
        scene.segment_bytes = 64 << 10;
        run(scene.write(1)).unwrap();
        let whole = machine.snapshot();
        Finished { machine, scene, whole }
    }

    fn mend(&mut self) {
        self.machine.restore(&self.whole);
        self.scene.ctx = self.machine.context();
    }

    /// Every file of the set with its length.
    async fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        for dir in &self.scene.media {
            for entry in self.scene.ctx.storage.list(dir).await.unwrap() {
                files.push((dir.join(&entry.name), entry.len));
            }
        }
        files
    }

    async fn read(&self, path: &Path) -> Vec<u8> {
        self.scene.ctx.storage.read_all(path, 1 << 30).await.unwrap()
    }

    async fn put(&self, path: &Path, content: impl Into<Bytes>) {
        self.scene.ctx.storage.replace(path, content.into()).await.unwrap();
    }

    async fn segment(&self, which: usize) -> PathBuf {
        let view = self.scene.view(&self.scene.media).await.unwrap();
        view.segments().await[which].path.clone().unwrap()
    }

    /// The damage that a keyless check finds and that reading finds; both must know of a change to
    /// `path`. `Scene::check` compares all bytes and accounts for every grain.
    async fn assert_named(&self, path: &Path, what: &str) -> Vec<Damage> {
        let context = format!("{}: {what}", path.display());
        let names = |error: &MediaError| {
            assert!(error.to_string().contains(path.to_str().unwrap()), "{context}: {error}");
        };
        match SignedSet::open(&self.scene.ctx, &self.scene.media, None).await {
            Err(error) => names(&error),
            Ok(signed) => {
                let damage = signed.check_files(&|_| ()).await;
                assert!(damage.iter().any(|d| d.path == path), "{context}: {damage:?}");
            }
        }
        match self.scene.check(&self.scene.media).await {
            Err(error) => {
                names(&error);
                Vec::new()
            }
            Ok(proof) => {
                // The part directory is not read while indexes are whole, the hash list never.
                let read = !path.ends_with("HASHES.b3") && path.extension().unwrap() != "ghp";
                let named = proof.damage.iter().any(|d| d.path == path);
                assert!(named || !read, "{context}: {:?}", proof.damage);
                proof.damage
            }
        }
    }
}

fn lost(damage: &[Damage]) -> GrainSet {
    let mut grains = GrainSet::new();
    damage.iter().for_each(|found| grains.union_with(&found.grains));
    grains
}

/// Offsets that hit every region: the first and last kilobyte, and a sample between.
fn places(len: u64, dice: &mut Dice) -> Vec<u64> {
    let ends = (0..len.min(130)).chain(len.saturating_sub(130)..len).step_by(7);
    ends.chain((0..30).map(|_| dice.below(len))).collect()
}

#[test]
fn a_flipped_bit_anywhere_is_named() {
    for (media, sealed) in [(1, true), (2, false), (2, true)] {
        let mut set = Finished::new(media, sealed);
        let mut dice = Dice(99);
        run(async {
            for (path, len) in set.files().await {
                let segment = path.extension().is_some_and(|e| e == "ghs");
                for offset in places(len, &mut dice) {
                    let bit = dice.below(8) as u8;
                    set.machine.flip(&path, offset, bit).unwrap();
                    let damage = set.assert_named(&path, &format!("byte {offset} bit {bit}")).await;
                    if !segment {
                        assert!(lost(&damage).is_empty(), "{}: {damage:?}", path.display());
                    }
                    // One flip is in one record, or in none.
                    let hit = damage.iter().filter(|d| !d.grains.is_empty()).count();
                    assert!(hit <= 1, "{damage:?}");
                    set.mend();
                }
            }
        });
    }
}

#[test]
fn a_file_cut_off_anywhere_is_named_and_keeps_what_is_before_the_cut() {
    for sealed in [true, false] {
        let mut set = Finished::new(2, sealed);
        let mut dice = Dice(3);
        run(async {
            for (path, len) in set.files().await {
                let whole = set.read(&path).await;
                let mut cuts = vec![0, 1, 31, 63, 95, 127, 128, 129, len - 1, len - 64, len - 129];
                cuts.extend((0..12).map(|_| dice.below(len)));
                for cut in cuts.into_iter().filter(|cut| *cut < len) {
                    set.put(&path, whole[..cut as usize].to_vec()).await;
                    set.assert_named(&path, &format!("cut to {cut}")).await;
                    set.mend();
                }
                set.put(&path, [&whole[..], b"more"].concat()).await;
                set.assert_named(&path, "longer").await;
                set.mend();
            }
        });
    }
}

#[test]
fn a_torn_segment_loses_what_is_behind_the_tear_alone() {
    let mut set = Finished::new(1, true);
    run(async {
        let path = set.segment(0).await;
        let whole = set.read(&path).await;
        let mut previous = u64::MAX;
        for cut in (0..whole.len()).step_by(997) {
            set.put(&path, whole[..cut].to_vec()).await;
            let proof = set.scene.check(&set.scene.media).await.unwrap();
            let gone = lost(&proof.damage).len();
            assert!(gone <= previous, "a longer file lost more");
            previous = gone;
            set.mend();
        }
        assert_eq!(previous, 0, "only index and trailer were cut");
    });
}

#[test]
fn a_missing_file_is_named() {
    let mut set = Finished::new(2, true);
    run(async {
        for (path, _) in set.files().await {
            set.scene.ctx.storage.remove(&path).await.unwrap();
            set.assert_named(&path, "missing").await;
            set.mend();
        }
        for dir in set.scene.media.clone() {
            set.scene.ctx.storage.remove(&dir.join("DIRECTORY.ghd")).await.unwrap();
        }
        let error = set.scene.view(&set.scene.media).await.err().unwrap();
        assert!(matches!(error, MediaError::NoDirectory { .. }), "{error}");
        set.mend();
        let empty = PathBuf::from("/mnt/empty");
        set.scene.ctx.storage.create_dir(&empty).await.unwrap();
        let error = set.scene.view(&[empty]).await.err().unwrap();
        assert!(matches!(error, MediaError::NotAMedium(_)), "{error}");
    });
}

#[test]
fn a_lost_index_is_found_again() {
    for sealed in [true, false] {
        let mut set = Finished::new(1, sealed);
        run(async {
            let path = set.segment(1).await;
            let part = set.scene.media[0].join("PART-001.ghp");
            let whole = set.read(&path).await;
            let view = set.scene.view(&set.scene.media).await.unwrap();
            let facts = view.directory().segments[1].clone();
            let index = facts.index_offset;
            // Index damaged: the part directory has it, and without that a scan finds it.
            for (without_part, expected) in [(false, IndexSource::Part), (true, IndexSource::Scan)]
            {
                set.machine.flip(&path, index + 50, 3).unwrap();
                if without_part {
                    set.scene.ctx.storage.remove(&part).await.unwrap();
                }
                let proof = set.scene.check(&set.scene.media).await.unwrap();
                assert_eq!(proof.root, RootVerdict::Proven);
                assert_eq!(source(&proof.damage), expected);
                set.mend();
            }
            // Index and trailer cut off, part directory gone, header damaged.
            set.put(&path, whole[..index as usize].to_vec()).await;
            set.machine.flip(&path, 40, 3).unwrap();
            set.scene.ctx.storage.remove(&part).await.unwrap();
            let proof = set.scene.check(&set.scene.media).await.unwrap();
            assert_eq!(
                (source(&proof.damage), proof.root),
                (IndexSource::Scan, RootVerdict::Proven)
            );
            // And a record's header with it: the scan finds its way behind it. Without a seal nothing
            // proves the others.
            set.machine.flip(&path, 128 + 20, 0).unwrap();
            let proof = set.scene.check(&set.scene.media).await.unwrap();
            let gone = lost(&proof.damage).len();
            let all = facts.grain_set(&set.scene.geometry).unwrap().len();
            if sealed {
                assert_eq!(source(&proof.damage), IndexSource::PartialScan);
                assert!(gone > 0 && gone < all, "{gone} of {all}");
            } else {
                assert_eq!((source(&proof.damage), gone), (IndexSource::Nothing, all));
            }
            set.mend();
        });
    }
}

fn source(damage: &[Damage]) -> IndexSource {
    let found = damage.iter().find_map(|damage| match &damage.fault {
        Fault::Index { recovered_from, .. } => Some(*recovered_from),
        _ => None,
    });
    found.unwrap()
}

#[test]
fn swapped_and_foreign_segments_are_named() {
    let mut set = Finished::new(1, true);
    let mut other = Scene::new(set.scene.ctx.clone(), "/other", 1, SIZE, true);
    other.segment_bytes = set.scene.segment_bytes;
    run(async {
        other.write(2).await.unwrap();
        set.whole = set.machine.snapshot();
        let (one, two) = (set.segment(0).await, set.segment(1).await);
        let (bytes_one, bytes_two) = (set.read(&one).await, set.read(&two).await);
        // Two segments of the set change places.
        set.put(&one, bytes_two).await;
        set.put(&two, bytes_one.clone()).await;
        let proof = set.scene.check(&set.scene.media).await.unwrap();
        let faults: Vec<_> = proof.damage.iter().map(|d| d.fault.clone()).collect();
        assert_eq!(faults, [Fault::OtherSegment(2), Fault::OtherSegment(1)]);
        set.mend();
        // A segment of another set under the same name.
        let foreign = other.media[0].join(one.file_name().unwrap());
        let foreign = set.read(&foreign).await;
        set.put(&one, foreign).await;
        let proof = set.scene.check(&set.scene.media).await.unwrap();
        assert_eq!(proof.damage[0].fault, Fault::OtherSet(other.plan(2).set));
        set.mend();
        // The same set, the same number, written at another time: only the salt tells.
        let mut again = Scene::new(set.scene.ctx.clone(), "/again", 1, SIZE, true);
        (again.segment_bytes, again.keys) = (set.scene.segment_bytes, set.scene.keys.clone());
        again.write(1).await.unwrap();
        let older = set.read(&again.media[0].join(one.file_name().unwrap())).await;
        set.put(&one, older).await;
        let proof = set.scene.check(&set.scene.media).await.unwrap();
        assert_eq!(proof.damage[0].fault, Fault::OtherVersion);
        set.mend();
        // A whole medium of another set beside ours, and its directory on our disk.
        let both = [set.scene.media.clone(), other.media.clone()].concat();
        let error = set.scene.view(&both).await.err().unwrap();
        assert!(matches!(error, MediaError::OtherSet { .. }), "{error}");
        let theirs = set.read(&other.media[0].join("DIRECTORY.ghd")).await;
        set.put(&set.scene.media[0].join("DIRECTORY.ghd"), theirs).await;
        let error = set.scene.view(&set.scene.media).await.err().unwrap();
        assert!(matches!(error, MediaError::OtherSet { .. }), "{error}");
    });
}

#[test]
fn a_set_by_another_hand_is_refused() {
    let machine = SimMachine::new(1);
    let mut scene = Scene::new(machine.context(), "/mnt", 2, SIZE, true);
    run(async {
        scene.write(1).await.unwrap();
        // The forger has everything but the key of the source, even the peer's public key.
        let source = scene.keys.clone();
        scene.keys = std::rc::Rc::new(wire::SiteKeys::generate().unwrap());
        let forged = scene.view(&scene.media).await.err().unwrap();
        assert!(matches!(forged, MediaError::WrongSource { .. }), "{forged}");
        // One forged disk of the same set beside an honest one is found without a pin, too.
        let honest = scene.media[0].clone();
        scene.media = vec!["/forged/1".into(), "/forged/2".into()];
        scene.write(1).await.unwrap();
        let mixed = [honest, scene.media[1].clone()];
        scene.keys = source;
        let error = SignedSet::open(&scene.ctx, &mixed, None).await.err().unwrap();
        assert!(matches!(error, MediaError::WrongSource { .. }), "{error}");
    });
}

#[test]
fn without_encryption_a_forged_record_is_still_refused() {
    // Whoever changes content and mends every checksum on the way cannot mend the signature: the
    // segment of a second, differing set with the same salt would be needed. Here the whole segment
    // is replaced by one that is consistent in itself.
    let machine = SimMachine::new(1);
    let mut scene = Scene::new(machine.context(), "/mnt", 1, SIZE, false);
    scene.segment_bytes = 64 << 10;
    run(async {
        scene.write(1).await.unwrap();
        let honest = scene.media.clone();
        let volumes = scene.volumes.clone();
        scene.volumes[0][4096 * 3] ^= 1;
        scene.media = vec!["/forged".into()];
        scene.write(1).await.unwrap();
        let view = scene.view(&honest).await.unwrap();
        let segments = view.segments().await;
        for status in &segments {
            let name = status.path.as_ref().unwrap().file_name().unwrap();
            let forged = scene.ctx.storage.read_all(&scene.media[0].join(name), 1 << 30).await;
            let path = status.path.as_ref().unwrap();
            scene.ctx.storage.replace(path, forged.unwrap().into()).await.unwrap();
        }
        scene.volumes = volumes;
        let proof = scene.check(&honest).await.unwrap();
        assert!(proof.proven.is_empty());
        assert_eq!(proof.damage.len(), segments.len());
    });
}

#[test]
fn an_older_directory_of_the_same_set_is_named_stale() {
    let machine = SimMachine::new(1);
    let mut scene = Scene::new(machine.context(), "/mnt", 2, SIZE, true);
    scene.segment_bytes = 64 << 10;
    run(async {
        scene.write(1).await.unwrap();
        let path = scene.media[1].join("DIRECTORY.ghd");
        let old = scene.ctx.storage.read_all(&path, 1 << 30).await.unwrap();
        // Taken up again although it was finished: another generation.
        let (writer, done) = media::SetWriter::resume(&scene.ctx, scene.plan(1)).await.unwrap();
        assert!(done == GrainSet::full(&scene.geometry));
        writer.finish(media::FinishInfo::default()).await.unwrap();
        assert_eq!(scene.check(&scene.media).await.unwrap().damage, vec![]);
        scene.ctx.storage.replace(&path, old.into()).await.unwrap();
        let proof = scene.check(&scene.media).await.unwrap();
        assert_eq!(proof.root, RootVerdict::Proven);
        let [stale] = &proof.damage[..] else { panic!("{:?}", proof.damage) };
        assert_eq!((&stale.path, &stale.fault), (&path, &Fault::Stale));
        // Alone it is a set of its own generation, whose labels are not the signed ones.
        scene.media.remove(0);
        let proof = scene.check(&scene.media).await.unwrap();
        assert!(proof.damage.iter().any(|d| d.path.ends_with("LABEL.json")), "{:?}", proof.damage);
    });
}

#[test]
fn a_disk_that_cannot_read_a_sector_costs_one_record() {
    let set = Finished::new(1, true);
    run(async {
        let path = set.segment(0).await;
        let bad = path.clone();
        set.machine.set_fault_hook(move |op| {
            let hit = op.offset <= 3000 && op.offset + op.len > 3000 && op.offset >= 128;
            let read = op.kind == disk::simulated::OpKind::Read;
            if *op.path == *bad && read && hit {
                return disk::simulated::Fault::Io;
            }
            disk::simulated::Fault::None
        });
        let proof = set.scene.check(&set.scene.media).await.unwrap();
        let [only] = &proof.damage[..] else { panic!("{:?}", proof.damage) };
        assert!(matches!(only.fault, Fault::Unreadable(_)), "{only}");
        assert!(only.grains.len() < 42, "{only}");
    });
}
