//! Flags of verbs that make a cut at which the application may be quiet.

use std::time::Duration;

use super::duration;
use crate::source::FreezeArguments;

/// See the module's text.
#[derive(Clone, Debug, clap::Args)]
pub struct FreezeFlags {
    /// Command (or fsfreeze:PATH) that quiesces the application before the cut
    #[arg(long, value_name = "COMMAND")]
    freeze: Option<String>,
    /// Command that ends it after the cut
    #[arg(long, value_name = "COMMAND")]
    thaw: Option<String>,
    /// Longest time that anything stays frozen
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    freeze_limit: Duration,
}

impl FreezeFlags {
    /// What the agent is told.
    pub fn arguments(&self) -> FreezeArguments {
        FreezeArguments {
            freeze: self.freeze.clone(),
            thaw: self.thaw.clone(),
            freeze_limit_s: self.freeze_limit.as_secs(),
        }
    }
}
