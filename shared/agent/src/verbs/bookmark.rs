//! `bookmark`: a name for an instant, to which one can go back at every replica that keeps a history.

use std::time::Duration;

use serde_json::json;
use site::location::Name;
use site::printer::{Align, Table};
use site::{Exit, Problem};

use super::Context;
use super::switchover::not_running;
use crate::flags::{FreezeFlags, duration};
use crate::reach;
use crate::source::{BookmarkAnswer, BookmarkArguments};

/// Flags of `bookmark`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// What to call it
    label: String,
    /// How long replicas that are kept in cycles are waited for
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    freeze: FreezeFlags,
}

/// Asks the running source.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let asked = BookmarkArguments {
        label: arguments.label.clone(),
        wait_ms: arguments.wait.as_millis() as u64,
        freeze: arguments.freeze.arguments(),
    };
    let answer = reach::verb(&client, "bookmark", &json!(asked)).await?;
    let made: BookmarkAnswer =
        serde_json::from_value(answer.clone()).map_err(|e| Problem::bug(e.to_string()))?;
    let mut table = Table::new(&[("replica", Align::Left), ("cut", Align::Left)]);
    for peer in &made.peers {
        let cut = peer.cut.clone().unwrap_or_else(|| "NOT MADE in time".to_owned());
        table.row([peer.fingerprint.clone(), cut]);
    }
    verb.printer.table(&table, &answer);
    if !made.quiet {
        return Err(Problem::new(
            "thawed-early",
            "the application was thawed before every cut was made",
            Exit::OPERATOR,
        )
        .safe("The bookmark is there, as any instant is; the application was not quiet at it.")
        .todo("Raise --freeze-limit, or keep the replica in sync or async mode, and try again."));
    }
    let late = made.peers.iter().filter(|peer| peer.cut.is_none()).count();
    if late > 0 {
        let what = format!("{late} replicas did not take the bookmark in time");
        return Err(Problem::new("bookmark-late", what, Exit::OPERATOR)
            .safe("Nothing was changed there; the others have it.")
            .todo("Wait for their catch-up (status), or raise --wait, and try again."));
    }
    verb.printer.note("`points` at a replica that keeps a history (serve --retain) lists it");
    Ok(())
}
