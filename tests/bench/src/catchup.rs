//! The bench `catchup`: a little is written all over a large sparse volume; how long until the copy
//! is the same again. Against `rsync --inplace` and, where it is there, `blocksync-fast`, both of
//! which read both volumes whole.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contest::{Case, OURS, Unit};
use crate::fio::{self, Pattern, Target};
use crate::nbd::make_sparse;
use crate::options::Options;
use crate::process::{self, Server};
use crate::product::Pair;

const RSYNC: &str = "rsync";
const BLOCKSYNC: &str = "blocksync-fast";

/// Names a built `blocksync-fast`.
const BLOCKSYNC_VARIABLE: &str = "GRAINHAUL_BLOCKSYNC_FAST";

/// Size of the writes between two catch-ups: one grain of the default size.
const WRITE_BYTES: u64 = 64 << 10;

/// One contender with its pair of volumes.
struct Contender {
    name: &'static str,
    source: PathBuf,
    copy: PathBuf,
    kind: Kind,
}

enum Kind {
    // The server is held so that it lives as long as the contender.
    Ours(Box<(Pair, Server)>),
    Rsync,
    Blocksync(PathBuf),
}

/// Runs the bench.
pub fn run(options: &Options) -> Result<Vec<Case>, String> {
    let dir = options.work_dir()?;
    let contenders = prepare(options, dir.path())?;
    let names: Vec<&str> = contenders.iter().map(|contender| contender.name).collect();
    let name = format!(
        "catch-up of {} % of {} GiB ({} MB)",
        options.dirty_percent,
        options.sparse_gib,
        options.dirty_bytes() / 1_000_000
    );
    let case = Case::new(name, Unit::Seconds, &[(RSYNC, 30.0), (BLOCKSYNC, 30.0)]);
    let case = case.compete(&names, options.rounds, |index, round| {
        let contender = &contenders[index];
        contender.dirty(options, round)?;
        process::settle(dir.path())?;
        contender.catch_up()
    })?;
    for contender in &contenders {
        process::run(Command::new("cmp").arg(&contender.source).arg(&contender.copy))
            .map_err(|e| format!("{}: the copy differs after the catch-up: {e}", contender.name))?;
    }
    Ok(vec![case])
}

fn prepare(options: &Options, dir: &Path) -> Result<Vec<Contender>, String> {
    let mut contenders = Vec::new();
    if !options.peers_only {
        let (source, copy) = volumes(options, dir, OURS)?;
        let pair = Pair::init(dir, &source, &copy)?;
        let server = pair.serve()?;
        pair.seed()?;
        process::run(&mut pair.catch_up())?;
        let kind = Kind::Ours(Box::new((pair, server)));
        contenders.push(Contender { name: OURS, source, copy, kind });
    }
    let (source, copy) = volumes(options, dir, RSYNC)?;
    contenders.push(Contender { name: RSYNC, source, copy, kind: Kind::Rsync });
    if let Some(program) = std::env::var_os(BLOCKSYNC_VARIABLE) {
        let (source, copy) = volumes(options, dir, BLOCKSYNC)?;
        let kind = Kind::Blocksync(program.into());
        contenders.push(Contender { name: BLOCKSYNC, source, copy, kind });
    }
    Ok(contenders)
}

/// A sparse source with some data in it, and a copy of it (for us an empty one: ours is seeded).
fn volumes(options: &Options, dir: &Path, name: &str) -> Result<(PathBuf, PathBuf), String> {
    let source = dir.join(format!("{name}.source"));
    let copy = dir.join(format!("{name}.copy"));
    let size_bytes = options.sparse_gib << 30;
    make_sparse(&source, size_bytes)?;
    let pattern =
        Pattern { kind: "randwrite", block_bytes: 1 << 20, depth: 1, from_byte: 0, size_bytes };
    fio::write_bytes(Target::File(&source), pattern, options.sparse_data_mib << 20, 0)?;
    if name == OURS {
        make_sparse(&copy, size_bytes)?;
    } else {
        let mut cp = Command::new("cp");
        process::run(cp.args(["--sparse=always", "--reflink=never"]).arg(&source).arg(&copy))?;
    }
    Ok((source, copy))
}

impl Contender {
    /// Writes all over the source, for us through the export.
    fn dirty(&self, options: &Options, round: usize) -> Result<(), String> {
        let size_bytes = options.sparse_gib << 30;
        let pattern = Pattern {
            kind: "randwrite",
            block_bytes: WRITE_BYTES,
            depth: 8,
            from_byte: 0,
            size_bytes,
        };
        let bytes = options.dirty_bytes().max(WRITE_BYTES);
        let seed = round + 1;
        match &self.kind {
            Kind::Ours(ours) => {
                fio::write_bytes(Target::Nbd(&ours.0.socket()), pattern, bytes, seed)
            }
            _ => fio::write_bytes(Target::File(&self.source), pattern, bytes, seed),
        }
    }

    /// Makes the copy the same again and durable; the seconds that it took.
    fn catch_up(&self) -> Result<f64, String> {
        let mut command = match &self.kind {
            Kind::Ours(ours) => return process::timed(&mut ours.0.catch_up()),
            Kind::Rsync => {
                let mut rsync = Command::new("rsync");
                rsync.args(["--inplace", "--no-whole-file", "--ignore-times"]);
                rsync.arg(&self.source).arg(&self.copy);
                rsync
            }
            Kind::Blocksync(program) => {
                let mut blocksync = Command::new(program);
                blocksync.arg("-s").arg(&self.source).arg("-d").arg(&self.copy).arg("--silent");
                blocksync
            }
        };
        Ok(process::timed(&mut command)? + process::timed(Command::new("sync").arg(&self.copy))?)
    }
}
