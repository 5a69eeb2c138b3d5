//! `verify`: digests of everything, compared between the sites at the replica's cut.

use std::time::Duration;

use serde_json::{Value, json};
use site::amount::human_bytes;
use site::location::Name;
use site::printer::Table;
use site::{Printer, Problem};

use super::Context;
use super::switchover::not_running;
use crate::flags::rate;
use crate::reach;
use crate::verified::{VerifiedStatus, VerifyArguments, VerifyProgress};

/// How often the agent is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Flags of `verify`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Bytes a second read at each site at most, e.g. 50MiB [default: no limit]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<u64>,
    /// Take the source's bytes for what differs; the replica's are kept aside first
    #[arg(long)]
    repair: bool,
    /// End the verification under way
    #[arg(long, conflicts_with_all = ["rate", "repair"])]
    stop: bool,
}

/// Asks the running agent, and waits for what comes of it.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    if arguments.stop {
        let answer = reach::verb(&client, "verify-stop", &json!({})).await?;
        let text = match answer.get("stopped").and_then(Value::as_bool) {
            Some(true) => "the verification ends",
            _ => "no verification is under way",
        };
        verb.printer.data(text, &answer);
        return Ok(());
    }
    let repair = arguments.repair;
    let asked = VerifyArguments { rate_bytes: arguments.rate.unwrap_or(0), repair };
    let begun = reach::verb(&client, "verify", &json!(asked)).await?;
    let number = begun.get("number").and_then(Value::as_u64);
    let grain = reach::published(&client).await?.grain_bytes;
    let shown = verb.printer.progress("verify", Some(0));
    let ended = loop {
        tokio::select! {
            biased;
            () = verb.shutdown.wait() => {
                shown.finish("goes on");
                verb.printer.note("the agent goes on with it; `status` shows what it found");
                return Ok(());
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let now = reach::verb(&client, "verify-progress", &json!({})).await?;
        let now: VerifyProgress =
            serde_json::from_value(now).map_err(|e| Problem::bug(e.to_string()))?;
        if Some(u64::from(now.number)) != number || !now.is_running() {
            break now;
        }
        let bytes = |grains: u64| grains.saturating_mul(grain);
        let extra = [(now.doing.as_str(), human_bytes(now.read_bytes))];
        shown.update(bytes(now.done_grains), Some(bytes(now.total_grains)), &extra);
    };
    shown.finish(if ended.result.is_some() { "done" } else { "ended" });
    match (ended.result, ended.problem) {
        (Some(result), _) => {
            show(&verb.printer, &result, repair);
            result.problem().map_or(Ok(()), Err)
        }
        (None, Some(problem)) => Err(problem),
        (None, None) => Err(Problem::bug("the verification ended without a word")),
    }
}

fn show(printer: &Printer, found: &VerifiedStatus, repair: bool) {
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("cut", found.cut.clone());
    let share = found.share * 100.0;
    row("proven equal", format!("{share:.2} % of {} grains", found.total_grains));
    row("compared", format!("{} grains", found.compared_grains));
    let others = [
        ("written meanwhile", found.written_grains),
        ("missing at the replica", found.missing_grains),
        ("unreadable at the source", found.unreadable_at_source_grains),
    ];
    for (name, grains) in others.into_iter().filter(|(_, grains)| *grains > 0) {
        row(name, format!("{grains} grains, not compared"));
    }
    row("different", format!("{} grains", found.different_grains));
    if found.unreadable_grains > 0 {
        row("", format!("{} of them cannot be read at the replica", found.unreadable_grains));
    }
    for place in &found.places {
        row("", place.clone());
    }
    if let Some(path) = &found.kept {
        row("repaired", format!("{} grains", found.repaired_grains));
        row("kept at the replica", path.clone());
    }
    printer.table(&table, &json!(found));
    if repair && found.kept.is_some() {
        printer.note(
            "which side was right cannot be known here: the source's bytes were taken by your word",
        );
    }
}
