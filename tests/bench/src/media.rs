//! The benches `dump` and `load`: one medium, sealed, not compressed, against a plain copy of the
//! same volume with `cp --sparse=never` and a sync. The volume is in the page cache for both.

use std::path::Path;
use std::process::Command;

use crate::contest::{Case, OURS, Unit};
use crate::nbd::{fill, make_sparse};
use crate::options::Options;
use crate::process;
use crate::product::Pair;

const CP: &str = "cp";

/// Measures a full dump.
pub fn dump(options: &Options) -> Result<Vec<Case>, String> {
    let dir = options.work_dir()?;
    let source = dir.path().join("source.raw");
    fill(&source, options.volume_mib << 20)?;
    let ours = if options.peers_only {
        None
    } else {
        let replica = dir.path().join("replica.raw");
        make_sparse(&replica, options.volume_mib << 20)?;
        let pair = Pair::init(dir.path(), &source, &replica)?;
        let server = pair.serve()?;
        Some((pair, server))
    };
    let names = contenders(ours.is_some());
    let target = dir.path().join("target");
    let case = Case::new("full dump", Unit::MegabytesPerSecond, &[(CP, 0.9)]);
    let case = case.compete(&names, options.rounds, |index, _| {
        process::settle(dir.path())?;
        let seconds = match &ours {
            Some((pair, _)) if names[index] == OURS => {
                std::fs::create_dir(&target).map_err(|e| format!("target: {e}"))?;
                let seconds = process::timed(&mut pair.dump(&target))?;
                std::fs::remove_dir_all(&target).map_err(|e| format!("target: {e}"))?;
                seconds
            }
            _ => copy(&source, &target)?,
        };
        Ok(rate(options, seconds))
    })?;
    Ok(vec![case])
}

/// Measures a load onto a fresh file.
pub fn load(options: &Options) -> Result<Vec<Case>, String> {
    let dir = options.work_dir()?;
    let source = dir.path().join("source.raw");
    let replica = dir.path().join("replica.raw");
    let medium = dir.path().join("medium");
    fill(&source, options.volume_mib << 20)?;
    let ours = if options.peers_only {
        None
    } else {
        make_sparse(&replica, options.volume_mib << 20)?;
        let pair = Pair::init(dir.path(), &source, &replica)?;
        std::fs::create_dir(&medium).map_err(|e| format!("medium: {e}"))?;
        let server = pair.serve()?;
        process::run(&mut pair.dump(&medium))?;
        server.stop()?;
        Some(pair)
    };
    let names = contenders(ours.is_some());
    let target = dir.path().join("target");
    let case = Case::new("load", Unit::MegabytesPerSecond, &[(CP, 0.9)]);
    let case = case.compete(&names, options.rounds, |index, _| {
        process::settle(dir.path())?;
        let seconds = match &ours {
            Some(pair) if names[index] == OURS => {
                make_sparse(&replica, options.volume_mib << 20)?;
                pair.init_replica(&replica)?;
                process::timed(&mut pair.load(&medium))?
            }
            _ => copy(&source, &target)?,
        };
        Ok(rate(options, seconds))
    })?;
    if ours.is_some() {
        process::run(Command::new("cmp").arg(&source).arg(&replica))
            .map_err(|e| format!("the loaded volume differs from the source: {e}"))?;
    }
    Ok(vec![case])
}

fn contenders(with_ours: bool) -> Vec<&'static str> {
    if with_ours { vec![OURS, CP] } else { vec![CP] }
}

fn rate(options: &Options, seconds: f64) -> f64 {
    (options.volume_mib << 20) as f64 / 1e6 / seconds
}

/// Copies a file and makes the copy durable; the seconds that it took. The copy is removed.
fn copy(source: &Path, target: &Path) -> Result<f64, String> {
    let mut cp = Command::new("cp");
    cp.args(["--sparse=never", "--reflink=never"]).arg(source).arg(target);
    let seconds = process::timed(&mut cp)? + process::timed(Command::new("sync").arg(target))?;
    std::fs::remove_file(target).map_err(|e| format!("target: {e}"))?;
    Ok(seconds)
}
