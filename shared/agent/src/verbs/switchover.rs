//! `switchover`: the role goes to the replica, planned, with nothing lost.

use std::time::Duration;

use serde_json::json;
use site::location::Name;
use site::{Exit, Problem};

use super::Context;
use crate::flags::duration;
use crate::reach;

/// Flags of `switchover`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Which replica, by the beginning of its fingerprint or identity, where several are connected
    peer: Option<String>,
    /// How long writes may wait for the replica's last catch-up; then the roles stay as they are
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    limit: Duration,
}

/// Asks the running source.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let limit_ms = arguments.limit.as_millis() as u64;
    let body = json!({ "limit_ms": limit_ms, "peer": arguments.peer });
    let answer = reach::verb(&client, "switchover", &body).await?;
    verb.printer.data("this site is the replica now; the other one serves", &answer);
    Ok(())
}

/// A verb that needs the agent.
pub(super) fn not_running(name: &Name) -> Problem {
    Problem::new("not-running", format!("no agent serves {name} here"), Exit::OPERATOR)
        .safe("Nothing was changed.")
        .todo("Start `serve` and try again when both sites have met.")
}
