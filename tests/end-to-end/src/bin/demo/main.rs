//! The main job, from a fresh volume to two equal sites, as `cargo xtask demo` runs it. No root and no
//! other tool needed.
//!
//! A primary serves two volumes as one consistency group: a file system, and a log that an application
//! writes all the time. They are dumped to two media, "shipped" (one gets a damaged segment), loaded at
//! a secondary, caught up over mutual TLS while the application goes on writing; then the writer stops,
//! the last changes follow, and both sites are compared byte for byte.

mod input;
mod site;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use end_to_end::{VolumeWriter, WriterOptions, allocated_bytes, compare};

use site::Sites;

const USAGE: &str = "usage: cargo xtask demo [--input IMAGE] [--keep] [--dir DIR]

  --input IMAGE  use a copy of this image instead of making one
  --keep         leave everything for a look
  --dir DIR      work there [default: a temporary directory]";

/// Bytes of the log volume.
const LOG_BYTES: u64 = 64 << 20;

struct Arguments {
    input: Option<PathBuf>,
    dir: Option<PathBuf>,
    keep: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments { input: None, dir: None, keep: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().map(PathBuf::from).ok_or_else(|| USAGE.to_owned());
        match word.as_str() {
            "--input" => found.input = Some(value()?),
            "--dir" => found.dir = Some(value()?),
            "--keep" => found.keep = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(found)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(words) => {
            eprintln!("{words}");
            return ExitCode::from(2);
        }
    };
    let temporary = tempfile::Builder::new().prefix("grainhaul-demo").tempdir();
    let Ok(temporary) = temporary else {
        eprintln!("no temporary directory can be made");
        return ExitCode::FAILURE;
    };
    let dir = arguments.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let outcome = std::fs::create_dir_all(&dir)
        .map_err(|e| e.to_string())
        .and_then(|()| demo(&dir, arguments.input.as_deref()));
    if arguments.keep {
        println!("\neverything is kept in {}", dir.display());
        drop(temporary.keep());
    }
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("the demo failed: {words}");
            ExitCode::FAILURE
        }
    }
}

fn step(text: &str) -> Instant {
    println!("* {text}");
    Instant::now()
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1048576.0)
}

fn demo(dir: &Path, input: Option<&Path>) -> Result<(), String> {
    let source = dir.join("primary-disk.img");
    step("making the volumes");
    let made = input::make(dir, &source, input)?;
    println!("  {made}");
    let log = dir.join("primary-log.img");
    end_to_end::sparse_image(&log, LOG_BYTES, 0, 0, 1);
    let volumes = [source, log];
    let copies = [dir.join("secondary-disk.img"), dir.join("secondary-log.img")];
    for (volume, copy) in volumes.iter().zip(&copies) {
        let bytes = std::fs::metadata(volume).map_err(|e| e.to_string())?.len();
        end_to_end::sparse_image(copy, bytes, 0, 0, 1);
    }
    let sizes: u64 =
        volumes.iter().filter_map(|v| std::fs::metadata(v).ok()).map(|m| m.len()).sum();

    step("establishing the pair: identities, ticket");
    let sites = Sites::init(dir, &volumes, &copies)?;
    let mut primary = sites.serve_primary()?;

    step("the application starts writing, and does not stop");
    let mut options = WriterOptions::new(sites.nbd_socket());
    options.export = "log".to_owned();
    options.span_bytes = LOG_BYTES;
    options.pause = Duration::from_millis(2);
    let writer = VolumeWriter::start(options);
    writer.wait_for_writes(50, Duration::from_secs(30));

    let begun = step("dumping to two media while it writes");
    let dumped = sites.dump()?;
    let dump_time = begun.elapsed();
    let allocated: u64 = volumes.iter().map(|v| allocated_bytes(v)).sum();

    step("shipping the media; one is damaged on the way");
    let damaged = sites.ship_and_damage()?;
    println!("  {damaged}");
    writer.wait_for_writes(200, Duration::from_secs(30));

    let begun = step("loading them at the secondary");
    let loaded = sites.load()?;
    let load_time = begun.elapsed();

    let begun = step("catching up over mutual TLS while the application writes");
    let first = sites.catch_up()?;
    let catch_up_time = begun.elapsed();

    step("the application stops; the last changes follow");
    let history = writer.stop();
    let last = sites.catch_up()?;
    let over_the_link = sites.link_bytes();

    step("comparing both sites byte for byte");
    for (left, right) in volumes.iter().zip(&copies) {
        if let Some(difference) = compare(left, right) {
            return Err(format!("{} differs: {difference:?}", left.display()));
        }
    }
    primary.terminate(Duration::from_secs(30));
    println!();
    let rows = [
        ("volumes", mib(sizes)),
        ("allocated", mib(allocated)),
        ("on the media", format!("{} in {dump_time:.1?}", mib(dumped))),
        ("loaded in", format!("{load_time:.1?}, {} grains damaged on the way", loaded)),
        ("written meanwhile", format!("{} writes", history.answered())),
        (
            "over the link",
            format!(
                "{} ({:.2} % of a full copy), first catch-up {catch_up_time:.1?}",
                mib(over_the_link),
                100.0 * over_the_link as f64 / sizes as f64
            ),
        ),
        ("cuts", format!("{first} then {last}")),
        ("grains repaired", format!("{loaded}")),
        ("both sites", "equal, byte for byte".to_owned()),
    ];
    for (name, value) in rows {
        println!("{name:<18} {value}");
    }
    Ok(())
}
