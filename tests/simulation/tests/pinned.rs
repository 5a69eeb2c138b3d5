//! Histories that found a fault of the product, as plans of their own: a seed would draw another plan
//! as soon as the simulator learns something new.

use std::collections::BTreeSet;
use std::time::Duration;

use disk::simulated::SplitMix64;
use simulation::plan::{Plan, Scale, Site, Step};
use simulation::run::{catch_panics, play};
use simulation::shape::{GRAIN, Shape};
use simulation::steps::{Act, Shipment};
use simulation::weather::{LinkPlan, Mishap};

/// A quiet world with two volumes and slow disks.
fn shape() -> Shape {
    Shape {
        volumes: vec![25 * GRAIN, 12 * GRAIN + 100],
        clients: 2,
        requests: 500,
        pause_us: 3_000,
        longest: 3 * GRAIN,
        latency_us: [500, 500],
        now_chance: 128,
        buffer_bytes: [GRAIN, 8 * GRAIN],
        side_bytes: [0, 0],
        preserve: 0,
        allow_direct: true,
        media: 1,
        sealed: false,
        level: None,
        dump_rate: 0,
        ..Shape::draw(&mut SplitMix64::new(1))
    }
}

fn plan(shape: Shape, acts: &[(u64, Act)]) -> Plan {
    let step = |(number, (after_us, act)): (usize, &(u64, Act))| Step {
        number: number as u32,
        after: Duration::from_micros(*after_us),
        seed: number as u64,
        act: act.clone(),
    };
    let steps = acts.iter().enumerate().map(step).collect();
    Plan { seed: 1, scale: Scale::Whole, shape, steps, without: BTreeSet::new() }
}

fn clean(plan: &Plan) {
    catch_panics();
    let outcome = play(plan, false);
    assert_eq!(outcome.violation, None, "{plan}");
}

/// A stop sealed the replica's volumes while a load went on writing them: the next start took them for
/// touched by others, and refused.
#[test]
fn a_replica_stops_while_media_are_loaded() {
    let stop = Act::Stop { site: Site::Replica, down: Duration::from_millis(5) };
    let shape = Shape { latency_us: [1, 2_000], ..shape() };
    for after in (0..40_000).step_by(2_000) {
        let acts = [
            (0, Act::Await),
            (50_000, Act::Dump),
            (0, Act::Await),
            (0, Act::Ship(Shipment::Whole)),
            (0, stop.clone()),
            (after, Act::Load { leaves: 0 }),
            (40_000, Act::Await),
        ];
        clean(&plan(shape.clone(), &acts));
    }
}

/// A comparison of an empty replica broke off, with newer grains in the base than those of a set that was
/// loaded then; what the load had overwritten still counted as arrived, and was never pulled.
#[test]
fn media_are_loaded_after_a_direct_catch_up_broke_off() {
    for (after_bytes, pull_unloaded) in
        [14_000, 30_000, 60_000].into_iter().flat_map(|bytes| [(bytes, false), (bytes, true)])
    {
        let broken = Act::Connect {
            link: LinkPlan { delay_us: 100, rate: 0, mishap: Mishap::Break, after_bytes },
            once: true,
            compare: !pull_unloaded,
            pull_unloaded,
            older_stays: false,
        };
        // Where the replica gives up waiting, half of the set was loaded before.
        let first = if pull_unloaded { Act::Load { leaves: 1 } } else { Act::Cut };
        let acts = [
            (0, Act::Await),
            (50_000, Act::Dump),
            (0, Act::Await),
            (60_000, Act::Ship(Shipment::Whole)),
            (0, first),
            (0, Act::Await),
            (0, broken),
            (2_000_000, Act::Load { leaves: 0 }),
            (0, Act::Await),
            (0, Act::Probe),
            (0, Act::Probe),
        ];
        for seed in 0..4 {
            let mut plan = plan(Shape { media: 2, ..shape() }, &acts);
            plan.steps.iter_mut().for_each(|step| step.seed += seed * 100);
            clean(&plan);
        }
    }
}

/// A sync of the replica's volumes failed during a load; the stop sealed what a power cut did not leave, and the
/// next start took the volumes for touched by others. The plan is one that this generator draws.
#[test]
fn a_replica_stops_after_a_sync_of_its_volumes_failed() {
    let keep = [0, 1, 3, 9, 11, 13, 22, 27];
    let without = (0..=40).filter(|step| !keep.contains(step)).collect();
    clean(&Plan::in_cycles(702_866, Scale::Whole).without(&without));
}

/// A stream that had overflowed, and dropped a write, went on once enough of the others was confirmed. The plan is
/// one that this generator draws.
#[test]
fn a_stream_that_dropped_a_write_is_at_its_end() {
    let without = [2, 5, 7, 8, 10, 11, 12, 13, 14].into_iter().collect();
    clean(&Plan::of(4403, Scale::Small).without(&without));
}

/// Zeros over zeros were not kept, since they change nothing; after a crash what had come later in their epoch was
/// brought into the volumes again, over itself, and was taken for what had been there before.
#[test]
fn a_point_is_what_it_was_after_a_crash_over_zeros() {
    clean(&Plan::of(971_013_244, Scale::Small).without(&[2].into_iter().collect()));
}

/// Somebody looked while a commit was being written: the look took the commit's number, and what came after the
/// commit was taken for what came before the look.
#[test]
fn a_look_during_a_commit_stands_still() {
    let without = [0, 7, 8, 11, 14].into_iter().collect();
    clean(&Plan::of(971_145_468, Scale::Small).without(&without));
}
