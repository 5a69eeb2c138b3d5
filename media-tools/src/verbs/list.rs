//! `list`: what is on these disks, without a key; set by set, with what is missing of each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use grain::SetId;
use media::{Medium, MediumState};
use serde_json::{Value, json};
use site::amount::counted;
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

/// What is here of one set.
#[derive(Default)]
struct OfSet {
    media: Vec<(PathBuf, Medium)>,
}

impl OfSet {
    /// How many media it has, if any label or directory says so.
    fn total(&self) -> Option<u16> {
        self.media.iter().find_map(|(_, medium)| {
            let label = medium.label.as_ref().map(|label| label.media);
            label.or_else(|| medium.directory.as_ref().map(|d| d.manifest.media))
        })
    }

    fn missing(&self) -> Vec<u16> {
        let here: BTreeSet<u16> = self.media.iter().map(|(_, medium)| medium.number).collect();
        (1..=self.total().unwrap_or(0)).filter(|number| !here.contains(number)).collect()
    }

    fn rows(&self, set: SetId, table: &mut Table) {
        let of = self.total().map_or(String::new(), |total| format!(" of {total}"));
        for (dir, medium) in &self.media {
            let (name, recipients) = match &medium.label {
                Some(label) => {
                    let recipients = counted(label.recipients.len(), "recipient");
                    (label.relationship_name.clone(), recipients)
                }
                None => Default::default(),
            };
            table.row([
                set.to_string(),
                format!("{}{of}", medium.number),
                dir.display().to_string(),
                state(medium).to_owned(),
                name,
                recipients,
            ]);
        }
        for number in self.missing() {
            let empty = String::new;
            let row = [set.to_string(), format!("{number}{of}"), empty()];
            let [set, number, dir] = row;
            table.row([set, number, dir, "not here".to_owned(), empty(), empty()]);
        }
    }

    fn json(&self, set: SetId) -> Value {
        let one = |(dir, medium): &(PathBuf, Medium)| {
            json!({
                "dir": dir, "medium": medium.number, "state": state(medium), "label": medium.label,
            })
        };
        json!({
            "set": set,
            "media": self.total(),
            "here": self.media.iter().map(one).collect::<Vec<_>>(),
            "missing": self.missing(),
        })
    }
}

fn state(medium: &Medium) -> &'static str {
    match medium.label.as_ref().map(|label| label.state) {
        Some(MediumState::Finished) => "finished",
        Some(MediumState::Writing) => "not finished",
        None => "label damaged",
    }
}

/// Lists.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let mut sets: BTreeMap<SetId, OfSet> = BTreeMap::new();
    let mut errors = Vec::new();
    for dir in &arguments.dirs {
        let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        match Medium::open(&verb.ctx, &absolute).await {
            Ok(medium) => sets.entry(medium.set).or_default().media.push((dir.clone(), medium)),
            Err(e) => {
                verb.printer.warn(&e.to_string());
                errors.push(json!({ "dir": dir, "error": e.to_string() }));
            }
        }
    }
    let columns = ["set", "medium", "directory", "state", "relationship", "for"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    for (set, found) in &mut sets {
        found.media.sort_by_key(|(_, medium)| medium.number);
        found.rows(*set, &mut table);
    }
    let all: Vec<_> = sets.iter().map(|(set, found)| found.json(*set)).collect();
    verb.printer.table(&table, &json!({ "sets": all, "errors": errors }));
    for (set, found) in &sets {
        let missing = found.missing();
        if !missing.is_empty() {
            let total = found.total().unwrap_or(0);
            let numbers = missing.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            verb.printer.note(&format!("of set {set} are not here: {numbers} of {total} media"));
        }
    }
    let whole = |found: &OfSet| found.media.iter().any(|(_, medium)| medium.label.is_some());
    if !sets.values().any(whole) {
        let what = "none of these directories is a whole medium";
        return Err(Problem::new("media", what, Exit::CORRUPT).safe("The media were only read."));
    }
    Ok(())
}
