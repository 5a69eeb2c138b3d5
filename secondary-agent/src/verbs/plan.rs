//! `plan`: the last verdict, and what this side lacks.

use agent::reach;
use serde_json::{Value, json};
use site::Problem;
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
        None => {
            let status = reach::status(&verb.ctx, &verb.state, &arguments.name).await?;
            json!({ "state": status.state, "damaged": status.damaged, "verdict": Value::Null })
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
                Value::Null => table.row([name.clone(), "not attached yet".to_owned()]),
                other => table.row([name.clone(), other.to_string()]),
            }
        }
    }
    verb.printer.table(&table, &plan);
    Ok(())
}
