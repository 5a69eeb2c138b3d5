//! The kill loop: pairs of sites as real processes on a real xfs, with limits as small as the flags allow,
//! over a link that a proxy cuts, stalls and throttles. Round after round an application writes, a process
//! or both are killed with SIGKILL, started again, and judged: is what was flushed there, is a replica that
//! calls itself consistent as the source was at one instant, are both equal after a catch-up, is the journal
//! within its limit.
//!
//! `cargo test` plays a few rounds of it, `cargo xtask soak` hundreds. A seed fixes what is done, not when the
//! machine lets it happen: a pair that failed is tried again by its own seed, perhaps more than once. What
//! it stood on is then kept.

mod ground;
mod pair;
mod tally;
mod weather;

use std::time::Instant;

use crate::Random;

use ground::Ground;
use pair::Pair;
pub use tally::Tally;

/// What to play.
#[derive(Clone, Copy, Debug)]
pub struct KillLoop {
    /// Everything that is drawn comes from it.
    pub seed: u64,
    /// Rounds in total; each has at least one kill.
    pub rounds: u64,
    /// Play one pair only, the one of this seed, for so many rounds.
    pub only_pair: Option<u64>,
}

/// Rounds that a pair lives: at least so many, and up to [`MORE_ROUNDS`] more.
const LEAST_ROUNDS: u64 = 4;
const MORE_ROUNDS: u64 = 13;

impl KillLoop {
    /// Plays, and tells on standard output what it does.
    ///
    /// # Panics
    /// When something does not hold; the seeds are printed before.
    pub fn run(&self) -> Tally {
        let begun = Instant::now();
        let ground = Ground::xfs();
        let mut random = Random::new(self.seed);
        let mut tally = Tally::default();
        println!("kill loop: seed {}, {} rounds", self.seed, self.rounds);
        while tally.rounds < self.rounds {
            let own = self.only_pair.unwrap_or_else(|| random.bits());
            let most = LEAST_ROUNDS + random.below(MORE_ROUNDS);
            let life = match self.only_pair {
                Some(_) => self.rounds,
                None => most.min(self.rounds - tally.rounds),
            };
            tally.pairs += 1;
            println!("pair {} (seed {own}), {life} rounds", tally.pairs);
            let folder = ground.root().join(format!("pair-{}", tally.pairs));
            let mut pair = Pair::new(&folder, own, &mut tally);
            pair.seed(&mut tally);
            for _ in 1..life {
                pair.round(&mut tally);
            }
            pair.end(&mut tally);
            drop(pair);
            std::fs::remove_dir_all(&folder)
                .unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
            println!("  {} rounds in {} s", tally.rounds, begun.elapsed().as_secs());
        }
        tally
    }
}
