//! `primary-agent`: the site where the data is born. See README.md.

mod verbs;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use site::Problem;
use site::options::GlobalOptions;
use site::runtime::{OnPanic, install_panic_hook};

/// Why not the system's: `docs/decisions/0092-mimalloc.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves volumes over NBD, records every change, and dumps point-in-time copies for a remote site.
#[derive(Parser)]
#[command(name = "primary-agent", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: GlobalOptions,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print this site's identity; make its keys on first use
    Identity(agent::verbs::identity::Arguments),
    /// Make a relationship and its ticket
    Init(verbs::init::Arguments),
    /// Serve the volumes and record changes until stopped
    Serve(Box<agent::verbs::serve::Arguments>),
    /// Copy the volumes onto media while applications write
    Dump(verbs::dump::Arguments),
    /// Show the relationship's state
    Status(agent::verbs::status::Arguments),
    /// Show what the next step will move, and why
    Plan(agent::verbs::plan::Arguments),
    /// Show, take in, or forget replicas
    Peer(agent::verbs::peer::Arguments),
    /// Pull from another source from here on: one that was promoted
    Follow(agent::verbs::follow::Arguments),
    /// Show or set how a peer is kept: sync, async, cycle
    Mode(agent::verbs::mode::Arguments),
    /// Show or set how fast dumps, catch-ups and verifications read at the source
    Pace(agent::verbs::pace::Arguments),
    /// Compare digests of everything between the sites; report what differs
    Verify(agent::verbs::verify::Arguments),
    /// Hand the role over to the other site, planned, with nothing lost
    Switchover(agent::verbs::switchover::Arguments),
    /// Name an instant, to go back to at the replicas
    Bookmark(agent::verbs::bookmark::Arguments),
    /// List what one can go back to
    Points(agent::verbs::points::Arguments),
    /// Offer the replica as it was, over NBD, while the mirroring goes on
    Export(agent::verbs::export::Arguments),
    /// Make this replica the source, because the source is gone
    Promote(agent::verbs::promote::Arguments),
    /// Make this source a replica of the other one, which was promoted
    Rejoin(agent::verbs::rejoin::Arguments),
}

fn main() -> ExitCode {
    install_panic_hook(
        "primary-agent",
        "What was flushed is on the disk, and every change is recorded.",
        OnPanic::Exit,
    );
    let arguments = Arguments::parse();
    let global = arguments.global.clone();
    site::program::run(&global.clone(), "warn", |ctx, shutdown, printer| async move {
        let state = global.state_dir().map_err(|e| Problem::from(&e))?;
        let verb = verbs::Context { ctx, state, printer, shutdown };
        match arguments.verb {
            Verb::Identity(a) => agent::verbs::identity::run(verb, a).await,
            Verb::Init(a) => verbs::init::run(verb, a).await,
            Verb::Serve(a) => agent::verbs::serve::run(verb, *a).await,
            Verb::Dump(a) => verbs::dump::run(verb, a).await,
            Verb::Status(a) => agent::verbs::status::run(verb, a).await,
            Verb::Plan(a) => agent::verbs::plan::run(verb, a).await,
            Verb::Peer(a) => agent::verbs::peer::run(verb, a).await,
            Verb::Follow(a) => agent::verbs::follow::run(verb, a).await,
            Verb::Mode(a) => agent::verbs::mode::run(verb, a).await,
            Verb::Pace(a) => agent::verbs::pace::run(verb, a).await,
            Verb::Verify(a) => agent::verbs::verify::run(verb, a).await,
            Verb::Switchover(a) => agent::verbs::switchover::run(verb, a).await,
            Verb::Bookmark(a) => agent::verbs::bookmark::run(verb, a).await,
            Verb::Points(a) => agent::verbs::points::run(verb, a).await,
            Verb::Export(a) => agent::verbs::export::run(verb, a).await,
            Verb::Promote(a) => agent::verbs::promote::run(verb, a).await,
            Verb::Rejoin(a) => agent::verbs::rejoin::run(verb, a).await,
        }
    })
}
