//! What a run found, as a table and as JSON, and the copy that is kept.

use std::path::Path;

use serde::Serialize;

use crate::contest::{Case, OURS};
use crate::machine::Facts;
use crate::options::Options;

/// Everything about one run of one bench.
#[derive(Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    facts: Facts,
    rounds: usize,
    turn_seconds: u64,
    volume_mib: u64,
    sparse_gib: u64,
    cases: Vec<Case>,
}

impl Report {
    /// Puts a report together; looks at the machine now.
    pub fn new(bench: &'static str, options: &Options, cases: Vec<Case>) -> Self {
        Self {
            bench,
            facts: Facts::gather(&options.base_dir()),
            rounds: options.rounds,
            turn_seconds: options.turn_seconds,
            volume_mib: options.volume_mib,
            sparse_gib: options.sparse_gib,
            cases,
        }
    }

    /// The report as JSON on one line.
    pub fn json(&self) -> Result<String, String> {
        serde_json::to_string(self).map_err(|e| e.to_string())
    }

    /// The report for people, with the JSON as its last line.
    pub fn text(&self) -> Result<String, String> {
        let mut text = format!(
            "bench: {}\n{}rounds: {}, contenders interleaved; medians, range in brackets\n",
            self.bench,
            self.facts.text(),
            self.rounds
        );
        for case in &self.cases {
            text.push('\n');
            text.push_str(&table(case));
        }
        text.push_str(&format!("\nraw:\n{}\n", self.json()?));
        Ok(text)
    }

    /// Keeps the report in `docs/bench/DATE-NAME.txt`; the name of the file, from the top of the tree.
    pub fn save(&self) -> Result<String, String> {
        let name = format!("docs/bench/{}-{}.txt", self.facts.date, self.bench);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(&name);
        std::fs::write(&path, self.text()?).map_err(|e| format!("{name}: {e}"))?;
        Ok(name)
    }
}

fn table(case: &Case) -> String {
    let mut text = format!("{} [{}]\n", case.name, case.unit.words());
    for series in &case.series {
        let median = case.median(&series.name).unwrap_or_default();
        let low = series.figures.iter().copied().fold(f64::INFINITY, f64::min);
        let high = series.figures.iter().copied().fold(0.0, f64::max);
        let ratio = match case.ratio(&series.name) {
            Some(ratio) if series.name != OURS => format!("   we: {ratio:.2} x"),
            _ => String::new(),
        };
        let range = format!("({} .. {})", shown(low), shown(high));
        text.push_str(&format!("  {:<16}{:>12}  {range:<28}{ratio}\n", series.name, shown(median)));
    }
    for goal in &case.goals {
        if let Some(ratio) = case.ratio(&goal.peer) {
            let verdict = if ratio >= goal.at_least { "reached" } else { "not reached" };
            text.push_str(&format!(
                "  goal: {} x {}: {ratio:.2} x, {verdict}\n",
                goal.at_least, goal.peer
            ));
        }
    }
    for note in &case.notes {
        text.push_str(&format!("  {note}\n"));
    }
    text
}

/// Three digits that count, or all before the point.
fn shown(figure: f64) -> String {
    match figure {
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f => format!("{f:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Unit;

    #[test]
    fn a_table_shows_medians_ratios_and_goals() {
        let case =
            Case::new("writes", Unit::RequestsPerSecond, &[("a", 1.5), ("b", 2.0), ("c", 1.0)])
                .compete(&[OURS, "a", "b"], 3, |index, round| {
                    Ok([3000.0, 2000.0, 1000.0][index] + round as f64)
                })
                .unwrap();
        assert_eq!(
            table(&case),
            "writes [requests/s]\n  \
             grainhaul               3001  (3000 .. 3002)              \n  \
             a                       2001  (2000 .. 2002)                 we: 1.50 x\n  \
             b                       1001  (1000 .. 1002)                 we: 3.00 x\n  \
             goal: 1.5 x a: 1.50 x, not reached\n  \
             goal: 2 x b: 3.00 x, reached\n"
        );
    }

    #[test]
    fn the_raw_line_holds_every_figure() {
        let case = Case::new("x", Unit::Seconds, &[]).compete(&["a"], 2, |_, r| Ok(1.5 + r as f64));
        let report = Report::new("sample", &Options::default(), vec![case.unwrap()]);
        let text = report.text().unwrap();
        let raw: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(raw["cases"][0]["series"][0]["figures"], serde_json::json!([1.5, 2.5]));
        assert_eq!(raw["cases"][0]["unit"], "seconds");
    }
}
