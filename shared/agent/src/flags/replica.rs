//! Flags of `serve` that say what a site does as the replica.

use std::path::PathBuf;
use std::time::Duration;

use replication::replica::{FollowSettings, Retain};

use super::{Shared, duration, rate, size};
use crate::replica::ReplicaOptions;

/// See the module's text.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplicaFlags {
    /// Return when in step; a refusal has its own exit code
    #[arg(long)]
    once: bool,
    /// Compare digests of all grains with the source and pull what differs; this names the replica
    /// as the one that is overwritten
    #[arg(long)]
    compare: bool,
    /// Pull what is on media that were not loaded yet
    #[arg(long)]
    pull_unloaded: bool,
    /// A consistent replica goes on without grains that the source cannot read; it is inconsistent
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
    /// A catch-up too large for the journal goes straight into the volumes (inconsistent until done)
    #[arg(long)]
    direct: bool,
    /// Longest pause between attempts to reach the source
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    max_pause: Duration,
    /// Verify by itself when the newest verification is older than this, e.g. 7d [default: never]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    verify_every: Option<Duration>,
    /// What such a verification reads a second at most, at each site [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate, requires = "verify_every")]
    verify_rate: Option<u64>,
    /// Keep what is overwritten for at least so long, e.g. 24h: every cut is a point that one can go
    /// back to [default: nothing is kept]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    retain: Option<Duration>,
    /// What that may take; the oldest points go first
    #[arg(long, value_name = "SIZE", default_value = "20GiB", value_parser = size, requires = "retain")]
    retain_bytes: u64,
    /// Where it is kept [default: with the state]
    #[arg(long, value_name = "DIR")]
    history_dir: Option<PathBuf>,
}

impl ReplicaFlags {
    /// Whether the process ends when the replica is in step.
    pub fn once(&self) -> bool {
        self.once
    }

    /// The options of the role.
    pub fn options(&self, shared: &Shared) -> ReplicaOptions {
        ReplicaOptions {
            journal_bytes: Some(self.journal_max),
            layer_history_bytes: shared.layer_history,
            apply_at_start: true,
            allow_direct: self.direct,
            accept_touched: shared.accept_touched,
            follow: FollowSettings {
                once: self.once,
                compare: self.compare,
                pull_unloaded: self.pull_unloaded,
                accept_unreadable: self.accept_unreadable,
                interval: self.interval,
                samples: self.samples,
                in_step_bytes: self.in_step,
                ..FollowSettings::default()
            },
            max_pause: self.max_pause,
            compress: shared.compress,
            listen: shared.listen.clone(),
            verify_every: self.verify_every,
            verify_rate_bytes: self.verify_rate.unwrap_or(0),
            retain: match self.retain {
                Some(age) => Retain::Up { bytes: self.retain_bytes, age },
                None => Retain::Nothing,
            },
            history_dir: self.history_dir.clone(),
        }
    }
}
