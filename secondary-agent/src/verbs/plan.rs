//! `plan`: who would overwrite whom by which rule, and how much would move. Nothing moves.

use agent::reach;
use agent::replica::{ReplicaAgent, ReplicaOptions};
use serde_json::{Value, json};
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
        Some(client) => reach::verb(&client, "plan", &json!({})).await?,
        // Nobody follows: this process asks the primary itself, and lets go again.
        None => {
            let options = ReplicaOptions::default();
            let agent =
                ReplicaAgent::start(&verb.ctx, &verb.state, &arguments.name, options).await?;
            let asked = agent.ask().await;
            let plan = agent.plan();
            agent.stop().await?;
            asked?;
            plan
        }
    };
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
    verb.printer.table(&table, &plan);
    Ok(())
}
