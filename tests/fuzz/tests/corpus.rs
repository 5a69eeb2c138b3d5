//! Replays the corpus of every target, tries changes of it from a seeded generator, and holds each run to
//! the target's bound of memory. One test, because the allocator counts the whole process.

use disk::simulated::SplitMix64;
use fuzz::allocation::{Counting, peak_bytes};
use fuzz::{TARGETS, Target, corpus, mutate};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Changed inputs for each target; those that start a server or write files are dearer.
const CHANGED: usize = 2000;
const CHANGED_DEAR: usize = 400;

#[test]
fn every_target_holds_on_its_corpus_and_on_changes_of_it() {
    for (number, target) in TARGETS.iter().enumerate() {
        let inputs = corpus::inputs(target).expect("each target has a corpus in the tree");
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        // What lives as long as the thread is made before it is measured.
        (target.run)(&inputs[0].1);
        let mut most = Most::default();
        for (name, bytes) in &inputs {
            most.run(target, name, bytes);
        }
        let dear =
            ["control", "history", "journal", "media_set", "envelope"].contains(&target.name);
        let mut random = SplitMix64::new(number as u64);
        for n in 0..if dear { CHANGED_DEAR } else { CHANGED } {
            let (_, bytes) = &inputs[n % inputs.len()];
            let (_, other) = &inputs[(random.next_u64() % inputs.len() as u64) as usize];
            let changed = mutate::mutated(bytes, other, &mut random);
            most.run(target, &format!("change {n}"), &changed);
        }
        println!("{}: {} inputs, at most {} bytes held", target.name, inputs.len(), most.bytes);
    }
}

#[derive(Default)]
struct Most {
    bytes: usize,
}

impl Most {
    fn run(&mut self, target: &Target, name: &str, bytes: &[u8]) {
        let caught = || std::panic::catch_unwind(|| (target.run)(bytes));
        let mut outcome = Ok(());
        let peak = peak_bytes(|| outcome = caught());
        if let Err(panic) = outcome {
            let path = std::env::temp_dir().join(format!("fuzz-{}", target.name));
            std::fs::write(&path, bytes).expect("the input is kept");
            println!("{}, {name}: the input is in {}", target.name, path.display());
            std::panic::resume_unwind(panic);
        }
        let limit = target.allocation.limit_bytes(bytes.len());
        assert!(peak <= limit, "{}, {name}: {peak} bytes held, {limit} allowed", target.name);
        self.bytes = self.bytes.max(peak);
    }
}

#[test]
fn the_seeds_of_every_target_are_in_its_corpus() {
    for target in TARGETS {
        let there = corpus::inputs(target).expect("a corpus");
        for (name, _) in (target.seeds)() {
            assert!(there.iter().any(|(file, _)| *file == name), "{}/{name}", target.name);
        }
    }
}
