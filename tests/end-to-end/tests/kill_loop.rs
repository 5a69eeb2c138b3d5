//! The kill loop in short: a few rounds of a fixed seed. `cargo xtask soak` plays hundreds.
//!
//! The seed is printed; `GRAINHAUL_SEED` and `GRAINHAUL_ROUNDS` set what is played, so that a failure can be
//! looked at again.

use end_to_end::KillLoop;

const ROUNDS: u64 = 24;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn kills_and_a_bad_link_lose_nothing() {
    let seed = number("GRAINHAUL_SEED").unwrap_or(1);
    let rounds = number("GRAINHAUL_ROUNDS").unwrap_or(ROUNDS);
    let tally = KillLoop { seed, rounds, only_pair: None }.run();
    print!("{tally}");
    assert_eq!(tally.rounds, rounds);
    assert!(tally.kills() >= rounds && tally.compared_bytes > 0, "{tally}");
}
