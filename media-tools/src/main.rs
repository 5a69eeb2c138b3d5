//! `media-tools`: what is on shipped disks, and is it whole. See README.md.

mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use site::options::GlobalOptions;
use site::runtime::{OnPanic, install_panic_hook};
use site::{Exit, Problem};

/// Why not the system's: `docs/decisions/0092-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Inspects, verifies and extracts Grainhaul media sets.
#[derive(Parser)]
#[command(name = "media-tools", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// What is on these disks; needs no key
    List(verbs::list::Arguments),
    /// What a set holds
    Inspect(verbs::inspect::Arguments),
    /// Whether a set is whole: files and signature, with a key every record
    Verify(verbs::verify::Arguments),
    /// Write the raw volumes out
    Extract(verbs::extract::Arguments),
    /// What was put aside before it was overwritten (`verify --repair`, `rejoin --keep-overwritten`)
    Kept(verbs::kept::Arguments),
    /// Make an escrow key
    Keygen(verbs::keygen::Arguments),
}

fn main() -> ExitCode {
    install_panic_hook("media-tools", "The media were only read.", OnPanic::Exit);
    let arguments = Arguments::parse();
    let global = arguments.global.clone();
    site::program::run(&global.clone(), "error", |ctx, shutdown, printer| async move {
        let verb = verbs::Context { ctx, global, printer };
        let work = async {
            match arguments.verb {
                Verb::List(a) => verbs::list::run(verb, a).await,
                Verb::Inspect(a) => verbs::inspect::run(verb, a).await,
                Verb::Verify(a) => verbs::verify::run(verb, a).await,
                Verb::Extract(a) => verbs::extract::run(verb, a).await,
                Verb::Kept(a) => verbs::kept::run(verb, a).await,
                Verb::Keygen(a) => verbs::keygen::run(verb, a).await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.wait() => {
                Err(Problem::new("interrupted", "interrupted", Exit::RETRY)
                    .safe("The media were only read."))
            }
            outcome = work => outcome,
        }
    })
}
