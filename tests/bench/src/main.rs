//! Side-by-side measurements: Grainhaul and peers that do a part of the same job, in one run.
//!
//! Contenders take turns within a round and the order turns from round to round, so that noise of
//! the machine hits all alike; what counts is the ratio of medians. Absolute figures are worth
//! little beyond the machine they were taken on. Nothing here passes or fails by speed.

mod burst;
mod catchup;
mod contest;
mod fio;
mod history;
mod interference;
mod journal;
mod machine;
mod media;
mod mirror;
mod nbd;
mod options;
mod process;
mod product;
mod promote;
mod qemu;
mod report;
mod round_trip;
mod tracking;

use std::process::ExitCode;

use contest::Case;
use options::Options;

/// One bench: its name, what it measures, and how.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Options) -> Result<Vec<Case>, String>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "nbd",
        about: "requests on an export, against nbdkit and qemu-nbd",
        run: nbd::run,
    },
    Bench {
        name: "tracking",
        about: "what tracking costs, and a dump beside the application",
        run: tracking::run,
    },
    Bench { name: "dump", about: "a full dump to one directory, against cp", run: media::dump },
    Bench { name: "load", about: "a load from one directory, against cp", run: media::load },
    Bench {
        name: "catchup",
        about: "few changes in a large volume, against rsync",
        run: catchup::run,
    },
    Bench {
        name: "mirror",
        about: "writes that stream to a replica, against QEMU's mirror",
        run: mirror::run,
    },
    Bench {
        name: "burst",
        about: "how far an async replica falls behind a burst, and for how long",
        run: burst::run,
    },
    Bench {
        name: "journal",
        about: "a catch-up through the journal, against one straight into the volumes",
        run: journal::run,
    },
    Bench {
        name: "history",
        about: "what a history costs, and how soon it can be looked at, 1 GiB and 1 TiB",
        run: history::run,
    },
    Bench {
        name: "promote",
        about: "from the order until the volumes are offered, 1 GiB and 1 TiB",
        run: promote::run,
    },
    Bench {
        name: "interference",
        about: "what the application notices of a catch-up, giving way and not",
        run: interference::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(words) => {
            eprintln!("bench: {words}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
    let Some(options) = Options::parse(arguments, &names)? else {
        print!("{}", options::help());
        for bench in BENCHES {
            println!("  {:<14}{}", bench.name, bench.about);
        }
        return Ok(());
    };
    for bench in BENCHES.iter().filter(|bench| options.wants(bench.name)) {
        let cases = (bench.run)(&options).map_err(|e| format!("{}: {e}", bench.name))?;
        let report = report::Report::new(bench.name, &options, cases);
        if options.json {
            println!("{}", report.json()?);
        } else {
            println!("{}", report.text()?);
        }
        if options.save {
            let path = report.save()?;
            eprintln!("kept in {path}");
        }
    }
    Ok(())
}
