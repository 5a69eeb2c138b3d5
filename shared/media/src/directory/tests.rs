//! The directory: round trip, signature, and hostile content.

use grain::{GrainSize, Run, VolumeId, VolumeShape};
use proptest::prelude::*;

use super::*;

const SALT: [u8; 32] = [6; 32];

fn keys() -> &'static SiteKeys {
    // Made once: generating and signing are slow beside the rest.
    thread_local! {
        static KEYS: &'static SiteKeys = Box::leak(Box::new(SiteKeys::generate().unwrap()));
    }
    KEYS.with(|keys| *keys)
}

fn key() -> SetKey {
    SetKey::new([5; 32])
}

fn directory() -> Directory {
    let volumes = vec![VolumeShape { alias: "disk".into(), bytes: 1 << 30 }];
    let geometry = Geometry { grain: GrainSize::DEFAULT, volumes };
    let cut = CutFacts { cut: CutId::from_bytes([1; 16]), unix_ms: 5, lineage: vec![1, 2] };
    let mut facts = SetFacts::new(geometry, cut, Some(CutId::from_bytes([2; 16])));
    facts.fingerprint = Fingerprint { chunks: 8, sum: 7, ..facts.fingerprint };
    let segment = |number: u64| {
        let mut grains = GrainSet::new();
        grains.insert_run(Run { volume: VolumeId(0), first: number * 100, count: 50 });
        SegmentFacts {
            number,
            medium: 1 + (number % 2) as u16,
            file_len: 1000,
            file_hash: [number as u8; 32],
            salt: [9; 32],
            stripe: Stripe::default(),
            index_offset: 500,
            index_len: 372,
            index_digest: [3; 32],
            records: 4,
            data_grains: 50,
            grains: runs::encode(&grains),
            sum: RootSum::new().to_bytes(),
            fingerprint: FingerprintSum::new(),
        }
    };
    let manifest = Manifest {
        set: SetId::from_bytes([4; 16]),
        relationship: RelationshipId::from_bytes([5; 16]),
        source: keys().identity(),
        media: 2,
        generation: 0,
        created_unix_ms: 1,
        signed_unix_ms: 2,
        files: vec![ManifestFile { medium: 1, name: "KEY.age".into(), len: 3, hash: [1; 32] }],
    };
    Directory { manifest, facts, segments: (1..4).map(segment).collect() }
}

fn encoded(directory: &Directory, sealed: bool) -> Vec<u8> {
    directory.encode(sealed.then(key).as_ref(), &SALT, keys()).unwrap()
}

#[test]
fn a_directory_round_trips_and_only_its_key_opens_it() {
    for sealed in [true, false] {
        let file = encoded(&directory(), sealed);
        let signed = SignedDirectory::decode(&file).ok().unwrap();
        assert_eq!((&signed.manifest, signed.sealed), (&directory().manifest, sealed));
        assert_eq!(signed.open(sealed.then(key).as_ref()), Some(Ok(directory())));
        assert_eq!(signed.open(Some(&SetKey::new([0; 32]))), None);
        let visible = file.windows(4).any(|window| window == b"disk");
        assert_eq!(visible, !sealed, "the aliases of volumes are content");
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let file = encoded(&directory(), true);
    let mut bad = file.clone();
    for bit in (0..file.len() * 8).step_by(5) {
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(SignedDirectory::decode(&bad).is_err(), "bit {bit}");
        bad[bit / 8] ^= 1 << (bit % 8);
    }
    for len in (0..file.len()).step_by(7) {
        assert!(SignedDirectory::decode(&file[..len]).is_err(), "cut to {len}");
    }
    assert!(SignedDirectory::decode(&[&file[..], b"x"].concat()).is_err());
}

#[test]
fn another_signer_under_the_sources_name_is_refused() {
    let forger = SiteKeys::generate().unwrap();
    let file = directory().encode(Some(&key()), &SALT, &forger).unwrap();
    assert_eq!(SignedDirectory::decode(&file).err(), Some(DirectoryFault::Signature));
}

#[test]
fn a_signed_contradiction_is_refused() {
    let refuse = |change: &dyn Fn(&mut Directory)| {
        let mut bad = directory();
        change(&mut bad);
        let signed = SignedDirectory::decode(&encoded(&bad, true)).ok().unwrap();
        assert!(matches!(signed.open(Some(&key())), Some(Err(_))));
    };
    refuse(&|d| d.segments[1].number = 1);
    refuse(&|d| d.segments[1].medium = 3);
    refuse(&|d| d.segments[1].medium = 0);
    refuse(&|d| d.segments[1].grains = vec![1, 0, 0xff, 0xff, 0x7f, 1]);
    refuse(&|d| d.segments[1].sum = vec![0; 10]);
    refuse(&|d| d.facts.fingerprint.seed[0] ^= 1);
    refuse(&|d| d.facts.fingerprint.chunks = 1 << 40);
    refuse(&|d| d.facts.unreadable = vec![9]);
    refuse(&|d| d.facts.geometry.volumes.clear());
    refuse(&|d| {
        d.facts.geometry.grain = GrainSize::MIN;
        d.facts.geometry.volumes[0].bytes = 1 << 60;
    });
}

#[test]
fn hostile_lengths_are_refused_before_anything_is_read() {
    let file = encoded(&directory(), true);
    for at in [64, 72] {
        for len in [u64::MAX, u64::MAX / 2, file.len() as u64, 1 << 40] {
            let mut bad = file.clone();
            bad[at..at + 8].copy_from_slice(&len.to_le_bytes());
            put_crc(&mut bad[..HEADER_BYTES]);
            assert!(matches!(SignedDirectory::decode(&bad), Err(DirectoryFault::Field(_))));
        }
    }
}

proptest! {
    #[test]
    fn random_and_mutated_files_do_not_panic(
        mut noise in prop::collection::vec(any::<u8>(), 0..400),
        at: prop::sample::Index,
        value: u8,
    ) {
        prop_assert!(SignedDirectory::decode(&noise).is_err());
        if let Some(head) = noise.get_mut(..HEADER_BYTES) {
            head[..8].copy_from_slice(&MAGIC);
            head[8..12].copy_from_slice(&VERSION.to_le_bytes());
            put_crc(head);
            prop_assert!(SignedDirectory::decode(&noise).is_err());
        }
        let mut file = encoded(&directory(), false);
        let at = HEADER_BYTES + at.index(file.len() - HEADER_BYTES);
        let before = file[at];
        file[at] = value;
        prop_assert!(value == before || SignedDirectory::decode(&file).is_err());
    }

    #[test]
    fn mutated_bodies_under_a_good_signature_do_not_panic(at: prop::sample::Index, value: u8) {
        // The content behind the signature may come from a source that means ill.
        let file = encoded(&directory(), false);
        let mut signed = SignedDirectory::decode(&file).ok().unwrap();
        let body_len = signed.body.len() - crate::seal::TAG_BYTES;
        let at = at.index(body_len);
        signed.body[at] = value;
        let plain = signed.body[..body_len].to_vec();
        drop(signed.decode_body(&plain));
    }
}
