//! What a crash at an instant may leave of a disk: bounded subsets of what was not synced.

use std::collections::BTreeSet;

use disk::simulated::{Crash, Keep, Snapshot, SplitMix64};

/// How many images are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Up to so many unsynced steps, each is kept alone and lost alone; of more, so many picks.
    pub singles: usize,
    /// Torn images.
    pub torn: u64,
    /// The first so many sequences' last actions only are looked at closely; all of them where this is
    /// `usize::MAX`.
    pub longest: usize,
}

impl Depth {
    /// All that the module's text says.
    pub const FULL: Depth = Depth { singles: 12, torn: 3, longest: 3 };
    /// What an ordinary test has time for.
    pub const BRIEF: Depth = Depth { singles: 2, torn: 1, longest: 3 };
}

/// A disk as a crash left it.
pub struct Image {
    /// The disk.
    pub disk: Snapshot,
    /// How it went down.
    pub kind: Crash,
    /// Equal for equal disks.
    pub digest: u64,
}

impl Image {
    fn new(disk: Snapshot, kind: Crash) -> Image {
        let digest = disk.digest();
        Image { disk, kind, digest }
    }

    /// The process was killed, and nothing else.
    pub fn killed(of: &Snapshot) -> Image {
        Image::new(of.clone(), Crash::Kill)
    }

    fn cut(of: &Snapshot, keep: &dyn Fn(u64) -> Keep) -> Image {
        Image::new(of.power_cut(keep), Crash::PowerCut)
    }
}

/// Everything was kept, nothing was, and torn ones.
pub fn broad(of: &Snapshot, depth: Depth) -> Vec<Image> {
    let mut images = vec![Image::cut(of, &|_| Keep::Lost), Image::cut(of, &|_| Keep::Whole)];
    if !of.unsynced().is_empty() {
        images.extend((0..depth.torn).map(|seed| torn(of, seed)));
    }
    images
}

/// Of each step some is kept, or nothing, or all.
pub fn torn(of: &Snapshot, seed: u64) -> Image {
    Image::cut(of, &|step| {
        let mut random = SplitMix64::new(seed << 32 ^ step);
        match random.below(3) {
            0 => Keep::Lost,
            1 => Keep::Whole,
            _ => Keep::Torn(random.next_u64()),
        }
    })
}

/// All images of one machine.
pub fn all(of: &Snapshot, depth: Depth) -> Vec<Image> {
    let mut images = vec![Image::killed(of)];
    images.extend(broad(of, depth));
    let steps: Vec<u64> = of.unsynced().into_iter().collect();
    if steps.len() > 1 {
        let mut random = SplitMix64::new(steps.len() as u64 ^ steps[0]);
        let few = steps.len() <= depth.singles;
        let picked: Vec<u64> = match few {
            true => steps,
            // The newest ones are what this instant brought; of the others a few.
            false => (0..depth.singles)
                .map(|n| match n % 2 {
                    0 => steps[steps.len() - 1 - n / 2],
                    _ => steps[random.below(steps.len() as u64) as usize],
                })
                .collect(),
        };
        for chosen in picked {
            let alone = |step| if step == chosen { Keep::Whole } else { Keep::Lost };
            let but = |step| if step == chosen { Keep::Lost } else { Keep::Whole };
            images.push(Image::cut(of, &alone));
            images.push(Image::cut(of, &but));
        }
    }
    let mut seen = BTreeSet::new();
    images.retain(|image| seen.insert(image.digest));
    images
}
