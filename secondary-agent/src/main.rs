//! `secondary-agent`: the site that receives the data. See README.md.

mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use site::Problem;
use site::options::GlobalOptions;
use site::runtime::{OnPanic, install_panic_hook};

/// Why not the system's: `docs/decisions/0092-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Loads shipped media, proves them, and follows the primary over mutual TLS.
#[derive(Parser)]
#[command(name = "secondary-agent", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print this site's identity; make its keys on first use
    Identity(verbs::identity::Arguments),
    /// Make the replica of a relationship from its ticket
    Init(verbs::init::Arguments),
    /// Follow the primary: pull what changed, again and again
    Serve(verbs::serve::Arguments),
    /// Load shipped media
    Load(verbs::load::Arguments),
    /// Show the relationship's state
    Status(verbs::status::Arguments),
    /// Show what the next step will move, and why
    Plan(verbs::plan::Arguments),
}

fn main() -> ExitCode {
    install_panic_hook(
        "secondary-agent",
        "The replica is at its last committed cut.",
        OnPanic::Exit,
    );
    let arguments = Arguments::parse();
    let global = arguments.global.clone();
    site::program::run(&global.clone(), "warn", |ctx, shutdown, printer| async move {
        let state = global.state_dir().map_err(|e| Problem::from(&e))?;
        let verb = verbs::Context { ctx, state, printer, shutdown };
        match arguments.verb {
            Verb::Identity(a) => verbs::identity::run(verb, a).await,
            Verb::Init(a) => verbs::init::run(verb, a).await,
            Verb::Serve(a) => verbs::serve::run(verb, a).await,
            Verb::Load(a) => verbs::load::run(verb, a).await,
            Verb::Status(a) => verbs::status::run(verb, a).await,
            Verb::Plan(a) => verbs::plan::run(verb, a).await,
        }
    })
}
