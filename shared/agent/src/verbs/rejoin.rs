//! `rejoin`: this source gives way to another and becomes its replica.

use serde_json::json;
use site::Problem;
use site::location::Name;

use super::Context;
use super::switchover::not_running;
use crate::reach;

/// Flags of `rejoin`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Give up what this site acknowledged and the other one never had
    #[arg(long)]
    discard_local: bool,
}

/// Asks the running source.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let body = json!({ "discard_local": arguments.discard_local });
    let answer = reach::verb(&client, "rejoin", &body).await?;
    verb.printer.data("this site is a replica now and pulls what differs", &answer);
    Ok(())
}
