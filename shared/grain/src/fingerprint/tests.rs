//! Known answers, and the plan against a chunk-by-chunk walk.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{Content, Geometry, GrainData, GrainSet, GrainSize, Run, VolumeId, VolumeShape};

fn geometry(sizes: &[u64]) -> Geometry {
    let volume = |(i, bytes): (usize, &u64)| VolumeShape { alias: format!("v{i}"), bytes: *bytes };
    let volumes = sizes.iter().enumerate().map(volume).collect();
    Geometry { grain: GrainSize::MIN, volumes }
}

#[test]
fn fletcher_has_the_published_values() {
    assert_eq!(fletcher32(b"abcde"), 0xf04f_c729);
    assert_eq!(fletcher32(b"abcdef"), 0x5650_2d2a);
    assert_eq!(fletcher32(b"abcdefgh"), 0xebe1_9591);
    assert_eq!(fletcher32(b""), 0);
    // Long enough for several reductions: n words of 1 sum to n and n(n+1)/2, modulo 65535.
    let ones: Vec<u8> = [1, 0].repeat(100_000);
    let (low, high) = (100_000u64 % 65_535, 100_000u64 * 100_001 / 2 % 65_535);
    assert_eq!(u64::from(fletcher32(&ones)), high << 16 | low);
    assert_eq!(fletcher32(&[0xff; 20_000]), 0, "which is why the SHA-1 counts, too");
}

#[test]
fn chunks_have_known_values() {
    assert_eq!(chunk_value(&[0; 4096]), 0xe688_6719);
    assert_eq!(chunk_value(&[0xff; 4096]), 0x2934_ca39);
    let pattern: Vec<u8> = (0..4096u32).map(|i| (i * 7) as u8).collect();
    assert_eq!(chunk_value(&pattern), 0x5dba_fc03 + 0xc315_ed5f);
}

#[test]
fn samples_are_about_a_thousand_whatever_the_size() {
    for (bytes, least, most) in [
        (512, 1, 1),
        (62 << 20, 992, 992),
        (1 << 30, 960, 1000),
        (100 << 40, 960, 1001),
        (1 << 60, 960, 1001),
    ] {
        for seed in 0..20 {
            let plan = FingerprintPlan::new(&geometry(&[bytes]), [seed; 16]);
            let samples = plan.chunks().div_ceil(16);
            assert!((least..=most).contains(&samples), "{bytes} bytes: {samples} samples");
        }
    }
}

#[test]
fn generations_cover_different_places() {
    let geometry = geometry(&[1 << 40]);
    let starts: BTreeSet<u64> = (0..50)
        .filter_map(|seed| FingerprintPlan::new(&geometry, [seed; 16]).volume(VolumeId(0)).copied())
        .map(|plan| plan.start())
        .collect();
    assert!(starts.len() > 45, "{} starts of 50 generations", starts.len());
    let plan = FingerprintPlan::new(&geometry, [1; 16]);
    assert_eq!(plan, FingerprintPlan::new(&geometry, plan.seed()));
}

#[test]
fn the_stored_form_is_fixed_and_checked() {
    let fingerprint = Fingerprint { seed: [7; 16], chunks: 0x0102, sum: 0x0a0b_0c0d };
    let bytes = fingerprint.to_bytes();
    let mut golden = vec![1];
    golden.extend([7; 16]);
    golden.extend([2, 1, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0]);
    assert_eq!(bytes.to_vec(), golden);
    assert_eq!(Fingerprint::from_bytes(&bytes), Ok(fingerprint));
    for len in 0..bytes.len() {
        assert!(Fingerprint::from_bytes(&bytes[..len]).is_err());
    }
    golden.push(0);
    assert!(Fingerprint::from_bytes(&golden).is_err());
    golden.pop();
    golden[0] = 2;
    assert!(Fingerprint::from_bytes(&golden).is_err());
    for bit in 8..bytes.len() * 8 {
        let mut bad = bytes;
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(Fingerprint::from_bytes(&bad), Ok(fingerprint));
    }
}

#[test]
fn what_samples_can_miss() {
    assert_eq!(miss_probability(0, 100, 5), 1.0);
    assert_eq!(miss_probability(10, 100, 0), 1.0);
    assert_eq!(miss_probability(1, 100, 100), 0.0);
    assert_eq!(miss_probability(10, 0, 0), 1.0);
    assert!((miss_probability(2, 10, 5) - 0.25).abs() < 1e-12);
    // One wrong grain in 2^40 with a thousand samples: 1 - 1000/2^40, not rounded to 1.
    let miss = miss_probability(1000, 1 << 40, 1);
    assert!((1.0 - miss - 1000.0 / (1u64 << 40) as f64).abs() < 1e-15);
}

/// Bytes of a volume that differ from chunk to chunk, some chunks zero.
fn content(bytes: u64) -> Vec<u8> {
    let byte =
        |i: u64| if (i / 4096).is_multiple_of(3) { 0 } else { (i / 4096 * 31 + i % 251) as u8 };
    (0..bytes).map(byte).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn ranges_in_any_order_give_the_same_fingerprint(
        bytes in 1..400_000u64, seed: [u8; 16], step in 1..9u64, period in 16..40u64,
    ) {
        // A plan with gaps, although the volume is small.
        let sparse = VolumePlan::with_gaps(bytes, u64::from(seed[0]) % period * 4096, period * 4096);
        let plan = FingerprintPlan::of(seed, vec![sparse]);
        let (volume, data) = (VolumeId(0), content(bytes));
        let mut walked = FingerprintSum::new();
        for at in (0..bytes).step_by(4096) {
            if at >= sparse.start() && (at - sparse.start()) % sparse.period() < SAMPLE_BYTES {
                walked.add_chunk(&data[at as usize..(at + 4096).min(bytes) as usize]);
            }
        }
        let mut sum = FingerprintSum::new();
        let pieces: Vec<u64> = (0..bytes).step_by(step as usize * 4096).collect();
        for at in pieces.iter().rev() {
            let end = (at + step * 4096).min(bytes);
            let piece = &data[*at as usize..end as usize];
            match piece.iter().all(|b| *b == 0) {
                true => plan.add_zeros(&mut sum, volume, *at, end - at),
                false => plan.add(&mut sum, volume, *at, piece),
            }
        }
        prop_assert_eq!(sum, walked);
        prop_assert_eq!(sum.chunks(), plan.chunks());
        prop_assert_eq!(plan.finish(&sum).map(|f| f.sum), Some(walked.value()));
    }

    #[test]
    fn zeros_count_as_if_they_were_fed(
        bytes in 1..900_000u64, start in 0..300u64, period in 16..99u64,
        offset in 0..1_000_000u64, len in 0..1_000_000u64,
    ) {
        let sparse = VolumePlan::with_gaps(bytes, start % period * 4096, period * 4096);
        let plan = FingerprintPlan::of([0; 16], vec![sparse]);
        let (mut fed, mut counted) = (FingerprintSum::new(), FingerprintSum::new());
        let zeros = vec![0; bytes.saturating_sub(offset).min(len) as usize];
        plan.add(&mut fed, VolumeId(0), offset, &zeros);
        plan.add_zeros(&mut counted, VolumeId(0), offset, len);
        prop_assert_eq!(fed, counted);
    }

    #[test]
    fn picks_are_clean_different_and_ordered(
        sizes in prop::collection::vec(1..300u64, 1..4),
        runs in prop::collection::vec((0..3u16, 0..300u64, 1..40u64), 0..12),
        count in 0..60usize,
        random in prop::collection::vec(any::<u8>(), 480),
    ) {
        let geometry = geometry(&sizes.iter().map(|n| n * 4096).collect::<Vec<_>>());
        let run = |(volume, first, count)| Run { volume: VolumeId(volume), first, count };
        let dirty: GrainSet = runs.into_iter().map(run).collect();
        let picks = pick_clean_grains(&geometry, &dirty, count, &random);
        let all = geometry.iter().flat_map(|(v, _)| (0..geometry.grains(v)).map(move |g| (v, g)));
        let clean: BTreeSet<_> = all.filter(|(v, g)| !dirty.contains(*v, *g)).collect();
        prop_assert_eq!(picks.len(), count.min(clean.len()));
        prop_assert!(picks.windows(2).all(|pair| pair[0] < pair[1]));
        prop_assert!(picks.iter().all(|pick| clean.contains(pick)));
    }
}

#[test]
fn picks_reach_every_clean_grain_alike() {
    let geometry = geometry(&[10 * 4096]);
    let mut dirty = GrainSet::new();
    dirty.insert_run(Run { volume: VolumeId(0), first: 3, count: 4 });
    let mut hits = [0u32; 10];
    for n in 0..3000u32 {
        let random = blake3::hash(&n.to_le_bytes());
        for (_, grain) in pick_clean_grains(&geometry, &dirty, 2, random.as_bytes()) {
            hits[grain as usize] += 1;
        }
    }
    // 6000 picks of 6 grains; 900 to 1100 is more than three standard deviations either way.
    let fair = |n: usize| if (3..7).contains(&n) { 0..=0 } else { 900..=1100 };
    for (grain, hits) in hits.into_iter().enumerate() {
        assert!(fair(grain).contains(&hits), "grain {grain}: {hits} picks");
    }
}

#[test]
fn all_sites_sample_a_cut_at_the_same_places() {
    let geometry = geometry(&[1 << 40, 9000]);
    let plan = |byte| FingerprintPlan::of_cut(&geometry, crate::CutId::from_bytes([byte; 16]));
    assert_eq!(plan(1), plan(1));
    assert_ne!(plan(1), plan(2));
}

#[test]
fn a_fingerprint_is_kept_as_text_and_bad_text_is_refused() {
    let kept = Fingerprint { seed: [0xab; 16], chunks: 7, sum: u64::MAX };
    let text = serde_json::to_string(&kept).unwrap();
    assert_eq!(serde_json::from_str::<Fingerprint>(&text).unwrap(), kept);
    for bad in ["", "0", "zz", "01ff", &format!("{kept}00"), &kept.to_string().to_uppercase()] {
        assert!(Fingerprint::try_from(bad.to_owned()).is_err(), "{bad}");
    }
}

#[test]
fn grains_add_up_to_what_their_bytes_do() {
    let geometry = geometry(&[9 * 4096 + 100]);
    let plan = FingerprintPlan::new(&geometry, [1; 16]);
    let bytes: Vec<u8> = (0..9 * 4096 + 100).map(|i| (i / 4096 % 3 * i) as u8).collect();
    let (mut whole, mut parts) = (FingerprintSum::new(), FingerprintSum::new());
    plan.add(&mut whole, VolumeId(0), 0, &bytes);
    for first in (0..10).rev() {
        let run = Run { volume: VolumeId(0), first, count: 1 };
        let bytes = &bytes[first as usize * 4096..bytes.len().min((first as usize + 1) * 4096)];
        let content = match bytes.iter().all(|b| *b == 0) {
            true => Content::Zero,
            false => Content::Data(bytes.to_vec().into()),
        };
        plan.add_grains(&geometry, &mut parts, &GrainData { run, content });
        assert_eq!(plan.finish(&parts).is_some(), first == 0);
    }
    assert_eq!(parts, whole);
}
