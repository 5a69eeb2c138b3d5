//! A compact stored form of which grains a segment holds.
//!
//! Runs in order, neighbours joined, distances as variable-length numbers: a segment of a contiguous
//! dump costs a few bytes, one of single scattered grains about three bytes a grain. Layout: number of
//! runs, then for each: volume (difference to the one before), first (distance from the end of the
//! run before, or from 0 in a new volume), count.

use grain::{Geometry, GrainSet, Run, VolumeId};

use crate::fields::{BadField, Fields, put_varint};
use crate::record::check_run;

/// The stored form of a set.
pub(crate) fn encode(set: &GrainSet) -> Vec<u8> {
    let runs: Vec<Run> = set.runs().collect();
    let mut out = Vec::with_capacity(1 + runs.len() * 4);
    put_varint(&mut out, runs.len() as u64);
    let (mut volume, mut end) = (0, 0);
    for run in runs {
        let step = run.volume.0 - volume;
        if step > 0 {
            (volume, end) = (run.volume.0, 0);
        }
        put_varint(&mut out, u64::from(step));
        put_varint(&mut out, run.first - end);
        put_varint(&mut out, run.count);
        end = run.end();
    }
    out
}

/// Reads the stored form, every run checked against the geometry.
pub(crate) fn decode(bytes: &[u8], geometry: &Geometry) -> Result<GrainSet, BadField> {
    let mut fields = Fields::new(bytes, 0);
    let mut set = GrainSet::new();
    let (mut volume, mut end) = (0u16, 0u64);
    // The loop is bounded by the bytes that are there: a run takes at least three of them.
    for _ in 0..fields.varint("run count")? {
        let bad = fields.bad("run", "outside its volume");
        let step = fields.varint("volume step")?;
        if step > 0 {
            volume = u16::try_from(step).ok().and_then(|s| volume.checked_add(s)).ok_or(bad)?;
            end = 0;
        }
        let first = end.checked_add(fields.varint("distance")?).ok_or(bad)?;
        let run = Run { volume: VolumeId(volume), first, count: fields.varint("count")? };
        check_run(&run, geometry).map_err(|()| bad)?;
        set.insert_run(run);
        end = run.end();
    }
    fields.end("runs")?;
    Ok(set)
}

#[cfg(test)]
mod tests {
    use grain::{GrainSize, VolumeShape};
    use proptest::prelude::*;

    use super::*;

    fn geometry() -> Geometry {
        let volume = |alias: &str, bytes| VolumeShape { alias: alias.into(), bytes };
        let volumes = vec![volume("a", 1 << 30), volume("b", 1 << 40), volume("c", 70_000)];
        Geometry { grain: GrainSize::DEFAULT, volumes }
    }

    #[test]
    fn a_large_run_is_small() {
        let full = GrainSet::full(&geometry());
        let bytes = encode(&full);
        assert!(bytes.len() < 20, "{}", bytes.len());
        assert!(decode(&bytes, &geometry()) == Ok(full));
        assert!(decode(&encode(&GrainSet::new()), &geometry()) == Ok(GrainSet::new()));
    }

    #[test]
    fn runs_outside_are_refused() {
        for bytes in [
            &[1, 0, 0, 0][..],
            &[1, 3, 0, 1],
            &[1, 2, 0, 3],
            &[1, 0, 0xff, 0xff, 0xff, 0xff, 0x7f, 1],
            &[2, 0, 0, 1],
            &[1, 0, 0, 1, 0],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(decode(bytes, &geometry()).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn sets_round_trip(runs in prop::collection::vec((0u16..2, 0u64..16000, 1u64..300), 0..50)) {
            let mut set = GrainSet::new();
            for (volume, first, count) in runs {
                set.insert_run(Run { volume: VolumeId(volume), first, count });
            }
            prop_assert!(decode(&encode(&set), &geometry()) == Ok(set));
        }

        #[test]
        fn random_bytes_do_not_panic(bytes: Vec<u8>) {
            if let Ok(set) = decode(&bytes, &geometry()) {
                prop_assert!(set.is_subset(&GrainSet::full(&geometry())));
            }
        }
    }
}
