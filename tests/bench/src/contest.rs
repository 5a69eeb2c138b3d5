//! Turns, medians and ratios.

use serde::Serialize;

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Requests a second; more is better.
    RequestsPerSecond,
    /// Megabytes (10^6 bytes) a second; more is better.
    MegabytesPerSecond,
    /// Seconds; less is better.
    Seconds,
    /// Microseconds; less is better.
    Microseconds,
}

impl Unit {
    /// The unit as printed.
    pub fn words(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests/s",
            Self::MegabytesPerSecond => "MB/s",
            Self::Seconds => "s, less is better",
            Self::Microseconds => "us, less is better",
        }
    }

    /// How much better `ours` is than `theirs`; 1 is equal.
    pub fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::RequestsPerSecond | Self::MegabytesPerSecond => ours / theirs,
            Self::Seconds | Self::Microseconds => theirs / ours,
        }
    }
}

/// The figures of one contender in one case.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// Who.
    pub name: String,
    /// One figure a round, in order.
    pub figures: Vec<f64>,
}

/// A ratio that we want to reach.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// The contender to compare with.
    pub peer: String,
    /// At least so many times as good.
    pub at_least: f64,
}

/// One thing measured on all contenders.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// What was measured.
    pub name: String,
    /// The unit of all figures.
    pub unit: Unit,
    /// One a contender.
    pub series: Vec<Series>,
    /// What we want.
    pub goals: Vec<Goal>,
    /// What else there is to say, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The name under which our own side takes part.
pub const OURS: &str = "grainhaul";

impl Case {
    /// A case without figures yet.
    pub fn new(name: impl Into<String>, unit: Unit, goals: &[(&str, f64)]) -> Self {
        let goals = goals
            .iter()
            .map(|(peer, at_least)| Goal { peer: (*peer).to_owned(), at_least: *at_least })
            .collect();
        Self { name: name.into(), unit, series: Vec::new(), goals, notes: Vec::new() }
    }

    /// Lets every contender have its turn in every round. `turn` gets the contender's index and the
    /// round and returns the figure.
    pub fn compete(
        mut self,
        contenders: &[&str],
        rounds: usize,
        mut turn: impl FnMut(usize, usize) -> Result<f64, String>,
    ) -> Result<Self, String> {
        self.series = contenders
            .iter()
            .map(|name| Series { name: (*name).to_owned(), figures: Vec::new() })
            .collect();
        for round in 0..rounds {
            for place in 0..contenders.len() {
                let index = (place + round) % contenders.len();
                let name = contenders[index];
                let figure =
                    turn(index, round).map_err(|e| format!("{}, {name}: {e}", self.name))?;
                if !figure.is_finite() || figure <= 0.0 {
                    return Err(format!("{}, {name}: {figure} is no measurement", self.name));
                }
                eprintln!(
                    "{}, round {}, {name}: {figure:.1} {}",
                    self.name,
                    round + 1,
                    self.unit.words()
                );
                self.series[index].figures.push(figure);
            }
        }
        Ok(self)
    }

    /// The median of one contender.
    pub fn median(&self, name: &str) -> Option<f64> {
        let series = self.series.iter().find(|series| series.name == name)?;
        median(&series.figures)
    }

    /// How much better we are than `peer`; `None` when one of the two did not take part.
    pub fn ratio(&self, peer: &str) -> Option<f64> {
        Some(self.unit.ratio(self.median(OURS)?, self.median(peer)?))
    }
}

/// The middle figure; of an even number the mean of the two in the middle.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        len if len % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn contenders_take_turns_and_the_order_turns() {
        let mut order = Vec::new();
        let case = Case::new("x", Unit::Seconds, &[])
            .compete(&[OURS, "peer"], 3, |index, round| {
                order.push((round, index));
                Ok(if index == 0 { 2.0 } else { 6.0 + round as f64 })
            })
            .unwrap();
        assert_eq!(order, [(0, 0), (0, 1), (1, 1), (1, 0), (2, 0), (2, 1)]);
        assert_eq!(case.series[1].figures, [6.0, 7.0, 8.0]);
        assert_eq!(case.ratio("peer"), Some(3.5));
        assert_eq!(case.ratio("nobody"), None);
    }

    #[test]
    fn a_rate_counts_the_other_way_round() {
        assert_eq!(Unit::RequestsPerSecond.ratio(3.0, 2.0), 1.5);
        assert_eq!(Unit::Seconds.ratio(2.0, 3.0), 1.5);
    }

    #[test]
    fn a_failed_or_empty_turn_ends_the_case_and_is_named() {
        let failed =
            Case::new("x", Unit::Seconds, &[]).compete(&["peer"], 1, |_, _| Err("gone".into()));
        assert_eq!(failed.unwrap_err(), "x, peer: gone");
        let empty = Case::new("x", Unit::Seconds, &[]).compete(&["peer"], 1, |_, _| Ok(0.0));
        assert!(empty.unwrap_err().contains("no measurement"));
    }
}
