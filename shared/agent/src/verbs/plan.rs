//! `plan`: who would overwrite whom by which rule, and how much would move. Nothing moves.

use replication::state::Role;
use serde_json::Value;
use serde_json::json;
use site::Problem;
use site::amount::human_bytes;
use site::location::Name;
use site::printer::Table;

use super::Context;
use crate::problem::of_relationship;
use crate::replica::{ReplicaAgent, ReplicaOptions};
use crate::source::plan_of;
use crate::status::Plan;
use crate::{Relationship, reach};

/// Flags of `plan`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
}

/// Shows the plan.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let name = &arguments.name;
    let plan = match reach::running(&verb.state, name).await? {
        // Asked of the agent itself: the published status may be a moment old.
        Some(client) => reach::verb(&client, "plan", &json!({})).await?,
        None => at_rest(&verb, name).await?,
    };
    let table = match serde_json::from_value::<Plan>(plan.clone()) {
        Ok(plan) => of_source(&plan),
        Err(_) => of_replica(&plan),
    };
    verb.printer.table(&table, &plan);
    Ok(())
}

async fn at_rest(verb: &Context, name: &Name) -> Result<Value, Problem> {
    let found = Relationship::open(&verb.ctx, &verb.state, name).await;
    let role = found.map_err(|e| of_relationship(&e))?.store.with(|s| s.role);
    if role == Role::Source {
        return Ok(json!(plan_of(&reach::status(&verb.ctx, &verb.state, name).await?)));
    }
    // Nobody follows: this process asks the source itself, and lets go again.
    let options = ReplicaOptions::default();
    let agent = ReplicaAgent::start(&verb.ctx, &verb.state, name, options).await?;
    let asked = agent.ask().await;
    let plan = agent.plan();
    agent.stop().await?;
    asked?;
    Ok(plan)
}

fn of_source(plan: &Plan) -> Table {
    let mut table = Table::pairs();
    for step in &plan.steps {
        table.row(["peer".to_owned(), step.peer.clone()]);
        let rule = step.rule.clone().unwrap_or_else(|| "not attached yet".to_owned());
        table.row(["rule".to_owned(), rule]);
        table.row(["means".to_owned(), step.means.clone()]);
        let amount = format!("{} grains ({})", step.amount.grains, human_bytes(step.amount.bytes));
        table.row(["at most".to_owned(), amount]);
    }
    table
}

fn of_replica(plan: &Value) -> Table {
    let mut table = Table::pairs();
    if let Some(fields) = plan.as_object() {
        for (name, value) in fields {
            match value {
                Value::Array(lines) => {
                    for line in lines.iter().filter_map(Value::as_str) {
                        table.row([name.clone(), line.to_owned()]);
                    }
                }
                Value::String(text) => table.row([name.clone(), text.clone()]),
                Value::Null => table.row([name.replace('_', " "), "not known".to_owned()]),
                Value::Object(amount) => {
                    let number = |key: &str| amount.get(key).and_then(Value::as_u64).unwrap_or(0);
                    let bytes = human_bytes(number("bytes"));
                    let words = format!("{} grains ({bytes})", number("grains"));
                    table.row([name.replace('_', " "), words]);
                }
                other => table.row([name.clone(), other.to_string()]),
            }
        }
    }
    table
}
