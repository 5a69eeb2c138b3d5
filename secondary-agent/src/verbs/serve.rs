//! `serve`: the daemon of the replica.

use std::time::Duration;

use agent::replica::{ReplicaAgent, ReplicaOptions};
use replication::replica::FollowSettings;
use site::Problem;
use site::amount::{parse_duration, parse_size};
use site::location::Name;

use super::Context;

/// Flags of `serve`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Return when in step; a refusal has its own exit code
    #[arg(long)]
    once: bool,
    /// Compare digests of all grains with the primary and pull what differs; this names the replica
    /// as the one that is overwritten
    #[arg(long)]
    compare: bool,
    /// Pull what is on media that were not loaded yet
    #[arg(long)]
    pull_unloaded: bool,
    /// A consistent replica goes on without grains that the primary cannot read; it is inconsistent
    /// until they come
    #[arg(long)]
    accept_unreadable: bool,
    /// Time between cycles once in step
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    interval: Duration,
    /// Data written meanwhile that still counts as in step
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    in_step: u64,
    /// Samples compared at the first attach after a start or load
    #[arg(long, value_name = "N", default_value_t = 1000)]
    samples: u32,
    /// The journal may take so much space; 20 MiB at the least
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    journal_max: u64,
    /// Space kept for layers that are no longer needed: they make a primary that was rolled back a delta
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    layer_history: u64,
    /// A catch-up too large for the journal goes straight into the volumes (inconsistent until done)
    #[arg(long)]
    direct: bool,
    /// Longest pause between attempts to reach the primary
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    max_pause: Duration,
    /// Go on with volumes that were changed while nobody watched; compare them with the primary
    #[arg(long)]
    accept_touched: bool,
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|e| e.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// Follows the primary until asked to stop, or with `--once` until in step.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let options = ReplicaOptions {
        journal_bytes: Some(arguments.journal_max),
        layer_history_bytes: arguments.layer_history,
        allow_direct: arguments.direct,
        accept_touched: arguments.accept_touched,
        follow: FollowSettings {
            once: arguments.once,
            compare: arguments.compare,
            pull_unloaded: arguments.pull_unloaded,
            accept_unreadable: arguments.accept_unreadable,
            interval: arguments.interval,
            samples: arguments.samples,
            in_step_bytes: arguments.in_step,
            ..FollowSettings::default()
        },
        max_pause: arguments.max_pause,
    };
    let agent = ReplicaAgent::start(&verb.ctx, &verb.state, &arguments.name, options).await?;
    let printer = verb.printer.clone();
    agent.show_verdicts(move |lines| lines.iter().for_each(|line| printer.note(line)));
    let printer = verb.printer.clone();
    let name = arguments.name.to_string();
    agent.serve(verb.shutdown, || printer.note(&format!("{name} follows its primary"))).await?;
    if arguments.once {
        let status = agent.status();
        let cut = status.position.map(|p| p.cut).unwrap_or_default();
        let link_bytes: u64 = status.peers.iter().map(|p| p.link_bytes).sum();
        let json = serde_json::json!({ "in_step": cut, "link_bytes": link_bytes });
        verb.printer.data(&cut, &json);
    }
    Ok(())
}
