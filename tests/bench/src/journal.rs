//! The bench `journal`: what it costs that a catch-up goes through the journal, so that the replica stays a
//! point in time all the while. Compared with is our own catch-up straight into the volumes (`--direct` with a
//! journal that is too small for it), which is inconsistent until it ends.

use crate::contest::{Case, Unit};
use crate::fio::{self, Pattern, Target};
use crate::options::Options;
use crate::process;
use crate::product::Pair;

const JOURNAL: &str = "journal";
const DIRECT: &str = "direct";

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    if options.peers_only {
        return Ok(Vec::new());
    }
    let dir = options.work_dir()?;
    let size_bytes = options.volume_mib << 20;
    let pair = Pair::sparse(dir.path(), size_bytes)?;
    let _source = pair.serve()?;
    pair.seed()?;
    let dirty = size_bytes / 4;
    let mut cases = Vec::new();
    for (what, block_bytes) in [("64 KiB, scattered", 64 << 10), ("1 MiB pieces", 1 << 20)] {
        let name = format!("catch-up of {} MB written in {what}", dirty / 1_000_000);
        let writes = Pattern { kind: "randwrite", block_bytes, depth: 8, from_byte: 0, size_bytes };
        let case = Case::new(name, Unit::Seconds, &[]);
        let mut case = case.compete(&[JOURNAL, DIRECT], options.rounds, |index, round| {
            fio::write_bytes(Target::Nbd(&pair.socket()), writes, dirty, round)?;
            process::settle(dir.path())?;
            let mut catch_up = pair.catch_up();
            if index == 1 {
                catch_up.args(["--direct", "--journal-max", "20MiB"]);
            }
            process::timed(&mut catch_up)
        })?;
        if let (Some(journal), Some(direct)) = (case.median(JOURNAL), case.median(DIRECT)) {
            case.notes.push(format!("journal / direct: {:.2} of the time", journal / direct));
        }
        cases.push(case);
    }
    Ok(cases)
}
