//! Flags of `serve`, the same for both agents: either site can take either role.

mod freeze;
mod replica;
mod source;

use std::net::SocketAddr;
use std::time::Duration;

use disk::Context;
use site::Problem;
use site::amount::{parse_duration, parse_rate, parse_size};
use wire::frame::Compress;

use crate::serve::SiteOptions;

pub use freeze::FreezeFlags;
pub use replica::ReplicaFlags;
pub use source::SourceFlags;

/// All of them.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeFlags {
    #[command(flatten)]
    shared: Shared,
    #[command(flatten, next_help_heading = "As the source")]
    source: SourceFlags,
    #[command(flatten, next_help_heading = "As the replica")]
    replica: ReplicaFlags,
}

/// What holds in either role.
#[derive(Clone, Debug, clap::Args)]
pub struct Shared {
    /// Where the other site dials in
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<SocketAddr>,
    /// Compress what travels: off, auto (where the link is slower than that), or a zstd level from 1 to 19
    #[arg(long, value_name = "HOW", default_value = "auto")]
    compress: Compress,
    /// Space kept for layers that are no longer needed: they make a site that was rolled back a delta
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    layer_history: u64,
    /// Go on with volumes that were changed while nobody watched: at the source all of it counts as
    /// changed, a replica has to be compared
    #[arg(long)]
    accept_touched: bool,
}

/// A size, for clap.
pub fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|e| e.to_string())
}

/// A rate, for clap.
pub fn rate(text: &str) -> Result<u64, String> {
    parse_rate(text).map_err(|e| e.to_string())
}

/// A rate, or `off`, which is 0: no limit.
pub fn rate_or_off(text: &str) -> Result<u64, String> {
    if text == "off" { Ok(0) } else { rate(text) }
}

/// A time, for clap.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

impl ServeFlags {
    /// Whether the process ends when the replica is in step.
    pub fn once(&self) -> bool {
        self.replica.once()
    }

    /// The options of both roles.
    pub async fn options(&self, ctx: &Context) -> Result<SiteOptions, Problem> {
        let source = self.source.options(ctx, &self.shared).await?;
        let replica = self.replica.options(&self.shared);
        Ok(SiteOptions { source, replica })
    }
}
