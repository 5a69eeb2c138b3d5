//! `points`: what one can go back to.

use std::time::Duration;

use serde_json::json;
use site::Problem;
use site::amount::human_duration;
use site::location::Name;
use site::printer::{Align, Table};

use super::Context;
use super::switchover::not_running;
use crate::past::{PointsAnswer, wall_clock};
use crate::reach;

/// Flags of `points`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// Every point; else the older ones are thinned to one a minute, an hour, a day
    #[arg(long)]
    all: bool,
}

/// Asks the running replica.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    let answer = reach::verb(&client, "points", &json!({ "all": arguments.all })).await?;
    let found: PointsAnswer =
        serde_json::from_value(answer.clone()).map_err(|e| Problem::bug(e.to_string()))?;
    if found.points.is_empty() {
        verb.printer.note(
            "no point yet: `serve --retain 24h` keeps them, from the first cut on; \
             `export --at latest` shows what is here now",
        );
    }
    let mut table = Table::new(&[
        ("time", Align::Left),
        ("age", Align::Right),
        ("cut", Align::Left),
        ("bookmark", Align::Left),
    ]);
    for point in &found.points {
        let age = found.now_unix_ms.saturating_sub(point.unix_ms);
        let label = point.label.clone().unwrap_or_default();
        let age = human_duration(Duration::from_millis(age));
        table.row([wall_clock(point.unix_ms), age, point.cut.clone(), label]);
    }
    verb.printer.table(&table, &answer);
    let hidden = found.total.saturating_sub(found.points.len() as u64);
    if hidden > 0 {
        verb.printer.note(&format!("{hidden} more points lie between these; --all shows them"));
    }
    Ok(())
}
