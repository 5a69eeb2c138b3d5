//! `plan`: what the next attach will move.

use agent::reach;
use agent::source::plan_of;
use serde_json::json;
use site::Problem;
use site::amount::human_bytes;
use site::location::Name;
use site::printer::Table;

use super::Context;

/// Flags of `plan`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
}

/// Shows the plan.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let plan = match reach::running(&verb.state, &arguments.name).await? {
        // Asked of the agent itself: the published status may be a moment old.
        Some(client) => {
            let answer = reach::verb(&client, "plan", &json!({})).await?;
            serde_json::from_value(answer).map_err(|e| Problem::bug(e.to_string()))?
        }
        None => plan_of(&reach::status(&verb.ctx, &verb.state, &arguments.name).await?),
    };
    let json = serde_json::to_value(&plan).unwrap_or_default();
    let mut table = Table::pairs();
    for step in &plan.steps {
        table.row(["peer".to_owned(), step.peer.clone()]);
        let rule = step.rule.clone().unwrap_or_else(|| "not attached yet".to_owned());
        table.row(["rule".to_owned(), rule]);
        table.row(["means".to_owned(), step.means.clone()]);
        let amount = format!("{} grains ({})", step.amount.grains, human_bytes(step.amount.bytes));
        table.row(["at most".to_owned(), amount]);
    }
    verb.printer.table(&table, &json);
    Ok(())
}
