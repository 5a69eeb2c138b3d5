//! `list`: what is on these disks, without a key.

use std::path::PathBuf;

use media::{Medium, MediumState};
use serde_json::json;
use site::printer::{Align, Table};
use site::{Exit, Problem};

use super::Context;

/// Flags of `list`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directories of the media
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

/// Lists.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let columns = ["directory", "medium", "state", "set", "relationship", "for"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    let mut all = Vec::new();
    let mut bad = 0;
    for dir in &arguments.dirs {
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        let opened = Medium::open(&verb.ctx, &absolute).await;
        let label = opened.as_ref().ok().and_then(|medium| medium.label.clone());
        match (opened, label) {
            (Ok(_), Some(label)) => {
                let state = match label.state {
                    MediumState::Finished => "finished",
                    MediumState::Writing => "not finished",
                };
                table.row([
                    dir.display().to_string(),
                    format!("{} of {}", label.medium, label.media),
                    state.to_owned(),
                    label.set.to_string(),
                    label.relationship_name.clone(),
                    format!("{} recipients", label.recipients.len()),
                ]);
                all.push(json!({ "dir": dir, "label": label }));
            }
            (Ok(medium), None) => {
                bad += 1;
                table.row([
                    dir.display().to_string(),
                    format!("{}", medium.number),
                    "label damaged".to_owned(),
                    medium.set.to_string(),
                    String::new(),
                    String::new(),
                ]);
                all.push(json!({ "dir": dir, "set": medium.set, "error": "label damaged" }));
            }
            (Err(e), _) => {
                bad += 1;
                verb.printer.warn(&e.to_string());
                all.push(json!({ "dir": dir, "error": e.to_string() }));
            }
        }
    }
    verb.printer.table(&table, &json!(all));
    if bad == arguments.dirs.len() {
        let what = "none of these directories is a whole medium";
        return Err(Problem::new("media", what, Exit::CORRUPT).safe("The media were only read."));
    }
    Ok(())
}
