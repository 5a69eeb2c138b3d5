//! Random histories (promise 1): writes of all kinds, flushes, cuts, acknowledgements, time, crashes at
//! any operation, restarts. An oracle keeps what the volumes held at each cut that a peer may hold, and
//! every grain that was asked to be written since.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use disk::simulated::{Crash, Fault, OpKind, SplitMix64};
use grain::{CutId, CutReason, GrainSet, Run, VolumeId};

use super::*;
use crate::map::MapKind;

/// A cut that a peer may hold.
struct Held {
    content: Content,
    /// Grains that some write since, or under way at the cut, touches.
    issued: GrainSet,
    /// Grains that power cuts since made suspected.
    suspected: GrainSet,
}

#[derive(Default)]
struct Oracle {
    held: RefCell<BTreeMap<CutId, Held>>,
    /// Cuts whose records are not known to be durable: what they held.
    made: RefCell<BTreeMap<CutId, Held>>,
    under_way: RefCell<BTreeMap<u64, Run>>,
    next: Cell<u64>,
    /// A start after a power cut failed.
    untold: Cell<bool>,
    slots: GrainSet,
}

impl Oracle {
    fn issue(&self, run: Run) -> u64 {
        let number = self.next.replace(self.next.get() + 1);
        self.under_way.borrow_mut().insert(number, run);
        for held in self.held.borrow_mut().values_mut().chain(self.made.borrow_mut().values_mut()) {
            held.issued.insert_run(run);
        }
        number
    }

    fn cut_made(&self, cut: CutId, content: Content) {
        let issued = self.under_way.borrow().values().copied().collect();
        let held = Held { content, issued, suspected: GrainSet::new() };
        self.made.borrow_mut().insert(cut, held);
    }

    fn cut_published(&self, cut: CutId) {
        if let Some(held) = self.made.borrow_mut().remove(&cut) {
            self.held.borrow_mut().insert(cut, held);
        }
    }

    /// A new life of the process: nothing is under way any more. What was asked for may be in any
    /// epoch that was open meanwhile.
    fn restarted(&self) {
        self.under_way.borrow_mut().clear();
    }
}

/// Grains that histories write to: the ends of regions and volumes.
fn slots(geometry: &Geometry) -> GrainSet {
    let mut slots = GrainSet::new();
    for (volume, _) in geometry.iter() {
        let grains = geometry.grains(volume);
        let region = REGION / GRAIN;
        for at in (0..grains).step_by(region as usize).chain([grains - 1]) {
            for index in at.saturating_sub(2)..(at + 3).min(grains) {
                slots.insert(volume, index);
            }
        }
    }
    slots
}

struct Driver {
    site: Site,
    oracle: Rc<Oracle>,
    random: SplitMix64,
}

impl Driver {
    /// A range inside the slots, of any alignment.
    fn range(&mut self) -> (VolumeId, u64, u64) {
        let runs: Vec<Run> = self.oracle.slots.runs().collect();
        let run = pick(&mut self.random, &runs);
        let bytes = self.site.geometry.byte_range(run.volume, run.first, run.count);
        let len = bytes.end - bytes.start;
        let (from, to) = match self.random.below(3) {
            0 => (self.random.below(run.count) * GRAIN, len),
            _ => (self.random.below(len), len),
        };
        let most = (to - from).min(pick(&mut self.random, &[512, GRAIN, 2 * GRAIN, 3 * GRAIN]));
        (run.volume, bytes.start + from, 1 + self.random.below(most))
    }

    fn write(&mut self, source: &Rc<Source>) {
        let (volume, offset, len) = self.range();
        let touched = self.site.geometry.grain.touched(offset, len);
        let run = Run { volume, first: touched.start, count: touched.end - touched.start };
        let number = self.oracle.issue(run);
        let (source, oracle) = (source.clone(), self.oracle.clone());
        let data = vec![1 + self.random.below(255) as u8; len as usize];
        let (what, fua) = (self.random.below(6), self.random.below(5) == 0);
        tokio::task::spawn_local(async move {
            let zero = |punch| Change::Zero { len, punch, fast: false };
            let outcome = match what {
                0 => source.write(volume, offset, zero(true), fua).await,
                1 => source.write(volume, offset, zero(false), fua).await,
                2 => source.write(volume, offset, Change::Data(Bytes::from(data)), fua).await,
                _ => write(&source, volume.0, offset, data).await,
            };
            drop(outcome);
            oracle.under_way.borrow_mut().remove(&number);
        });
    }

    async fn cut(&mut self, source: &Rc<Source>) {
        let (source, site, oracle) = (source.clone(), self.site.clone(), self.oracle.clone());
        let waits = self.random.below(2) == 0;
        let publishes = self.random.below(4) > 0;
        let task = tokio::task::spawn_local(async move {
            let install = |cut| {
                oracle.cut_made(cut, site.content_now(&oracle.slots));
                Vec::new()
            };
            // The cut is published before anyone may merge it away.
            let one = source.lock_cuts().await;
            let install = |cut, _: &GrainSet| install(cut);
            let made = source.cut_locked(&one, CutReason::Cycle, install).await;
            let Ok(made) = made else { return };
            if publishes && publish(&source, made.cut.id).await.is_ok() {
                oracle.cut_published(made.cut.id);
            }
        });
        if waits {
            task.await.ok();
        }
    }

    async fn acknowledge(&mut self, source: &Rc<Source>) {
        let cuts = source.store().with(|s| s.peers[0].published.clone());
        if cuts.is_empty() {
            return;
        }
        let cut = pick(&mut self.random, &cuts);
        if source.acknowledged(PEER, cut).await.is_ok() {
            // The peer has gone on: nobody holds older ones.
            let lineage = source.store().with(|s| s.lineage.clone());
            let place = lineage.index_of(cut);
            self.oracle.held.borrow_mut().retain(|c, _| lineage.index_of(*c) >= place);
        }
    }

    /// One life of the process, up to `steps` steps or its crash.
    async fn live(&mut self, source: &Rc<Source>, steps: u64) {
        for _ in 0..steps {
            match self.random.below(20) {
                0..=10 => self.write(source),
                11 => drop(source.flush().await),
                12 | 13 => self.cut(source).await,
                14 => self.acknowledge(source).await,
                15 => drop(source.housekeep().await),
                16 => tokio::time::sleep(Duration::from_secs(self.random.below(8))).await,
                17 => {
                    let source = source.clone();
                    drop(tokio::task::spawn_local(async move { source.flush().await }));
                }
                _ => tokio::time::sleep(Duration::from_millis(self.random.below(20))).await,
            }
        }
    }

    /// After a start: what may differ from a cut that a peer holds is known, and after killed
    /// processes nothing else.
    async fn check(&self, source: &Rc<Source>) {
        let now = self.site.content(&self.oracle.slots).await;
        let suspected = source.suspected();
        let (lineage, acked) = source.store().with(|s| (s.lineage.clone(), s.peers[0].acked));
        // The record of an acknowledgement may be on disk though the answer was lost in the crash.
        let floor = acked.and_then(|cut| lineage.index_of(cut));
        self.oracle.held.borrow_mut().retain(|cut, _| lineage.index_of(*cut) >= floor);
        let mut all = self.oracle.held.take();
        for (cut, held) in &mut all {
            held.suspected.union_with(&suspected);
            let known = written_since(source, *cut).await.unwrap();
            let differ = differing(&held.content, &now);
            assert!(differ.is_subset(&known), "missed since {cut}: {differ:?} of {known:?}");
            let mut excess = known;
            excess.subtract(&held.issued);
            // A start that did not come to its end has told nobody what it suspected.
            let told = self.oracle.untold.get() || excess.is_subset(&held.suspected);
            assert!(told, "excess since {cut}: {excess:?}");
        }
        for (cut, held) in &all {
            let differ = differing(&held.content, &now);
            let shown = differ.is_subset(&source.dirty());
            assert!(shown, "the dirty map shown to clients lacks something since {cut}");
        }
        *self.oracle.held.borrow_mut() = all;
    }
}

/// Plays one history; how many grains power cuts made suspected.
fn play(seed: u64, crashes: &[Crash], faults: bool, exact: bool) -> u64 {
    let mut suspected = 0;
    let mut random = SplitMix64::new(seed);
    let mut site = run(Site::new(seed));
    site.settings.crash_excess_exact = exact;
    site.settings.layer_history_bytes = 1 << random.below(20);
    let oracle = Rc::new(Oracle { slots: slots(&site.geometry), ..Oracle::default() });
    let latency = Duration::ZERO..Duration::from_micros(1 + random.below(3000));
    site.machine.set_latency(latency);
    let mut driver = Driver { site: site.clone(), oracle: oracle.clone(), random: random.split() };
    for life in 0..5 {
        run(async {
            oracle.restarted();
            // What errors leave behind may be taken in twice.
            oracle.untold.set(oracle.untold.get() || faults);
            site.machine.clear_fault_hook();
            let mut source = None;
            if random.below(3) > 0 || life == 4 {
                // A start without a fault, checked before anything is written.
                let started = site.start().await.unwrap();
                suspected += started.suspected().len();
                driver.check(&started).await;
                source = Some(started);
            }
            if life == 4 {
                return;
            }
            let (at, kind) =
                (site.machine.operations() + random.below(250), pick(&mut random, crashes));
            let (machine, seed) = (site.machine.clone(), random.next_u64());
            let mut errors = SplitMix64::new(seed);
            let odds = if faults { 1 + errors.below(40) } else { 0 };
            let errors = RefCell::new(errors);
            site.machine.set_fault_hook(move |op| {
                if op.number == at {
                    machine.crash_seeded(kind, seed);
                }
                let ours = op.path.starts_with(dir()) && op.kind != OpKind::Read;
                match errors.borrow_mut().below(1000) < odds && ours {
                    true if op.kind == OpKind::Sync => Fault::Io,
                    true => Fault::NoSpace,
                    false => Fault::None,
                }
            });
            if source.is_none() {
                source = site.start().await.ok();
                oracle.untold.set(oracle.untold.get() || source.is_none());
            }
            if let Some(source) = source {
                for held in oracle.held.borrow_mut().values_mut() {
                    held.suspected.union_with(&source.suspected());
                }
                driver.live(&source, 60).await;
            }
        });
        // The process has ended by now, whether its time had come or not.
        site.machine.crash_seeded(pick(&mut random, crashes), random.next_u64());
    }
    suspected
}

#[test]
fn killed_processes_lose_no_bit_and_add_none_unless_layers_were_being_synced() {
    let exact = (0..60).filter(|seed| play(*seed, &[Crash::Kill], false, false) == 0).count();
    assert!(exact > 40, "{exact} of 60 histories added nothing");
}

#[test]
fn power_cuts_lose_no_bit() {
    let suspected: u64 = (0..60).map(|seed| play(seed, &[Crash::PowerCut], false, false)).sum();
    assert!(suspected > 0, "no history tests what a power cut adds");
}

#[test]
fn kills_and_power_cuts_in_turn_lose_no_bit() {
    for seed in 1000..1080 {
        play(seed, &[Crash::Kill, Crash::PowerCut], false, false);
    }
}

#[test]
fn exact_bits_survive_power_cuts_without_excess() {
    for seed in 2000..2040 {
        let suspected = play(seed, &[Crash::Kill, Crash::PowerCut], false, true);
        assert_eq!(suspected, 0, "seed {seed}");
    }
}

#[test]
fn failing_metadata_loses_no_bit_at_power_cuts() {
    for seed in 3000..3060 {
        play(seed, &[Crash::PowerCut], true, false);
    }
}

#[test]
fn a_file_is_used_again_only_after_the_record_that_frees_it() {
    run(async {
        let site = Site::new(4000).await;
        let source = site.start().await.unwrap();
        let pool = source.tracker.pool();
        let (at, _) = pool.create(MapKind::Layer).await.unwrap();
        // Free in memory alone: a crash would find it named by what is on the disk.
        source.store().change(|s| s.layers.free.push(at));
        let (other, _) = pool.create(MapKind::Layer).await.unwrap();
        assert_ne!(other.file, at.file);
        source.store().save().await.unwrap();
        let (again, _) = pool.create(MapKind::Layer).await.unwrap();
        assert_eq!(again.file, at.file);
    });
}
