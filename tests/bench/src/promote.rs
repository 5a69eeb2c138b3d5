//! The bench `promote`: the source is gone; how long from the order to promote until the volumes are offered
//! at the other site, for a small volume and for a large sparse one.
//!
//! A promotion happens once, so each turn makes a pair of its own: data, a dump, a load, a stream of some more,
//! and the source is killed. What the replica has not brought into its base by then is applied as part of it.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::contest::{Case, Unit};
use crate::fio::{self, Pattern, Target};
use crate::history::greets;
use crate::options::Options;
use crate::process;
use crate::product::Pair;

const SIZES: [(&str, u64); 2] = [("1 GiB", 1 << 30), ("1 TiB sparse", 1 << 40)];
/// In the volume before it is dumped.
const DATA_BYTES: u64 = 64 << 20;
/// Written before the source is killed.
const LAST_BYTES: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(2);

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    let names = SIZES.map(|(name, _)| name);
    let case = Case::new("promote until the volume is offered", Unit::Seconds, &[]);
    let mut case = case.compete(&names, options.rounds, |index, round| {
        let dir = options.work_dir()?;
        turn(dir.path(), SIZES[index].1, round)
    })?;
    if let (Some(small), Some(large)) = (case.median(names[0]), case.median(names[1])) {
        case.notes.push(format!("1 TiB / 1 GiB: {:.2}; 1.0 is no cost of the size", large / small));
    }
    Ok(vec![case])
}

fn turn(dir: &Path, size_bytes: u64, round: usize) -> Result<f64, String> {
    let pair = Pair::sparse(dir, size_bytes)?;
    let source = pair.serve()?;
    let writes =
        Pattern { kind: "randwrite", block_bytes: 64 << 10, depth: 8, from_byte: 0, size_bytes };
    fio::write_bytes(Target::Nbd(&pair.socket()), writes, DATA_BYTES, round)?;
    pair.seed()?;
    let _replica = pair.serve_replica()?;
    pair.set_mode("async")?;
    pair.wait_until_confirmed(PATIENCE)?;
    fio::write_bytes(Target::Nbd(&pair.socket()), writes, LAST_BYTES, round + 100)?;
    drop(source);
    let gone = || Ok(pair.replica_status()?["peers"][0]["connected"] != true);
    process::wait_until("that the replica notices", PATIENCE, PAUSE, gone)?;
    process::settle(dir)?;

    let start = Instant::now();
    process::run(&mut pair.promote())?;
    let socket = pair.replica_socket();
    process::wait_until("an NBD greeting", PATIENCE, PAUSE, || Ok(greets(&socket)))?;
    let took = start.elapsed().as_secs_f64();

    // It is offered in earnest.
    let write = Pattern { block_bytes: 4096, depth: 1, ..writes };
    fio::write_bytes(Target::Nbd(&socket), write, 4096, round)?;
    Ok(took)
}
