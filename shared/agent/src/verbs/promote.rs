//! `promote`: this replica becomes the source, because the source is gone.

use std::time::Duration;

use serde_json::json;
use site::amount::{human_bytes, human_duration};
use site::location::Name;
use site::printer::Table;
use site::{Printer, Problem};

use super::Context;
use crate::past::{When, wall_clock};
use crate::reach;
use crate::replica::{PromoteAnswer, PromoteArguments, ReplicaAgent, ReplicaOptions};

/// Flags of `promote`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Show what it would stand on and what would be lost; change nothing
    #[arg(long)]
    dry_run: bool,
    /// At an earlier point, which goes back what changed since: a time, a cut's id, a bookmark (see
    /// `points`) [default: everything that is here]
    #[arg(long, value_name = "WHEN", conflicts_with = "inconsistent")]
    at: Option<String>,
    /// Promote a copy that is no point in time; what it lacks is told to every other site
    #[arg(long)]
    inconsistent: bool,
}

/// Promotes, through the running agent or by itself.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let at = arguments.at.as_deref().filter(|at| *at != "latest");
    let at = at.map(|at| When::read(at, verb.ctx.unix_ms())).transpose()?;
    let (inconsistent, dry_run) = (arguments.inconsistent, arguments.dry_run);
    let asked = PromoteArguments { inconsistent, dry_run, at };
    let running = reach::running(&verb.state, &arguments.name).await?;
    let answer: PromoteAnswer = match &running {
        Some(client) => {
            let answer = reach::verb(client, "promote", &json!(asked)).await?;
            serde_json::from_value(answer).map_err(|e| Problem::bug(e.to_string()))?
        }
        None => {
            let options = ReplicaOptions { apply_at_start: false, ..Default::default() };
            let agent =
                ReplicaAgent::start(&verb.ctx, &verb.state, &arguments.name, options).await?;
            let answer = agent.promote_now(&asked).await;
            if !answer.as_ref().is_ok_and(|answer| answer.promoted) {
                agent.stop().await?;
            }
            answer?
        }
    };
    show(&verb.printer, &answer);
    if answer.promoted && running.is_none() {
        verb.printer.note(&format!(
            "{} is the source now; `serve {} --nbd unix:PATH` offers its volumes",
            arguments.name, arguments.name
        ));
    }
    Ok(())
}

fn show(printer: &Printer, answer: &PromoteAnswer) {
    let mut table = Table::pairs();
    let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
    row("cut", answer.cut.clone());
    if let Some(age) = answer.age_ms {
        row("age", human_duration(Duration::from_millis(age)));
    }
    if let Some(point) = &answer.point {
        let name = point.label.as_ref().unwrap_or(&point.cut);
        row("goes back to", format!("{name} of {}", wall_clock(point.unix_ms)));
        let (grains, bytes) = (answer.goes_back.grains, human_bytes(answer.goes_back.bytes));
        row("which changes", format!("{grains} grains ({bytes}), as writes"));
    }
    if answer.writes_after > 0 {
        row("and after it", format!("{} writes, in their order", answer.writes_after));
    }
    let copy = if answer.consistent { "a point in time" } else { "NO point in time" };
    row("copy", copy.to_owned());
    if answer.lacks.grains > 0 {
        let bytes = human_bytes(answer.lacks.bytes);
        row("may be wrong", format!("{} grains ({bytes})", answer.lacks.grains));
    }
    let unsent = human_bytes(answer.known_unsent_bytes);
    row("not here", format!("what was written at the source since then; it last told of {unsent}"));
    row("promoted", if answer.promoted { "yes" } else { "no" }.to_owned());
    printer.table(&table, &serde_json::to_value(answer).unwrap_or_default());
}
