//! How fast the background of a running source goes: as the operator said, by hours where there are some.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::tz::TimeZone;
use replication::PaceSettings;
use serde::Deserialize;
use serde_json::{Value, json};
use site::Problem;
use site::amount::human_rate;
use tokio::task::JoinHandle;

use super::SourceAgent;
use crate::hours::{self, Hours};
use crate::problem::refused;

/// How often the clock on the wall is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What `pace` is told; nothing to look only.
#[derive(Clone, Debug, Deserialize)]
pub struct PaceArguments {
    /// Bytes a second at most, 0 for no limit.
    pub rate_bytes: Option<u64>,
    /// Whether it gives way to applications.
    pub gives_way: Option<bool>,
    /// Hours with another rate, in the place of those that were.
    pub hours: Option<Vec<String>>,
}

/// What the operator said, and what holds of it now.
pub(super) struct PacePlan {
    outside: PaceSettings,
    hours: Vec<Hours>,
    in_force: Option<Hours>,
}

impl PacePlan {
    /// As the flags say.
    pub fn new(outside: PaceSettings, hours: Vec<Hours>) -> RefCell<PacePlan> {
        RefCell::new(PacePlan { outside, hours, in_force: None })
    }

    /// What holds at an instant.
    fn settings_at(&mut self, unix_ms: u64, zone: &TimeZone) -> PaceSettings {
        self.in_force = hours::at(&self.hours, unix_ms, zone).cloned();
        let rate = self.in_force.as_ref().map(|hours| hours.rate_bytes);
        PaceSettings { rate_bytes: rate.unwrap_or(self.outside.rate_bytes), ..self.outside }
    }

    fn words(&self, settings: PaceSettings) -> String {
        let mut words = match settings.rate_bytes {
            0 => "no limit".to_owned(),
            rate => format!("at most {}", human_rate(rate)),
        };
        if let Some(hours) = &self.in_force {
            words.push_str(&format!(" in the hours {hours}"));
        } else if !self.hours.is_empty() {
            words.push_str(" outside the hours ");
            let texts: Vec<String> = self.hours.iter().map(Hours::to_string).collect();
            words.push_str(&texts.join(", "));
        }
        if settings.gives_way {
            words.push_str(", gives way to applications");
        }
        words
    }
}

impl SourceAgent {
    /// Puts in force what holds now.
    pub(super) fn follow_hours(&self) {
        let pace = self.source.pace();
        let mut plan = self.pace.borrow_mut();
        let new = plan.settings_at(self.ctx.unix_ms(), &zone());
        if new != pace.shown().settings {
            pace.set(new);
            self.events.note(format!("pace: {}", plan.words(new)));
        }
    }

    /// Follows the hours until it is aborted.
    pub(super) fn spawn_pace(self: &Rc<Self>) -> JoinHandle<()> {
        let agent = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            while let Some(agent) = agent.upgrade() {
                agent.follow_hours();
                drop(agent);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }

    /// Sets or shows the pace. It lasts until the agent stops.
    pub(super) fn set_pace(&self, arguments: PaceArguments) -> Result<Value, Problem> {
        let hours = arguments.hours.map(|texts| texts.iter().map(|text| text.parse()).collect());
        let hours: Option<Result<Vec<Hours>, String>> = hours;
        let hours = hours.transpose().map_err(|e| refused("usage", e))?;
        if hours.as_ref().is_some_and(|hours| !hours.is_empty()) {
            check_zone()?;
        }
        {
            let mut plan = self.pace.borrow_mut();
            plan.outside.rate_bytes = arguments.rate_bytes.unwrap_or(plan.outside.rate_bytes);
            plan.outside.gives_way = arguments.gives_way.unwrap_or(plan.outside.gives_way);
            plan.hours = hours.unwrap_or_else(|| std::mem::take(&mut plan.hours));
        }
        self.follow_hours();
        let shown = self.source.pace().shown();
        let plan = self.pace.borrow();
        let texts: Vec<String> = plan.hours.iter().map(Hours::to_string).collect();
        Ok(json!({
            "rate_bytes_s": shown.settings.rate_bytes,
            "rate_outside_hours_bytes_s": plan.outside.rate_bytes,
            "hours": texts,
            "time_zone": zone_words(&zone()),
            "hours_in_force": plan.in_force.as_ref().map(Hours::to_string),
            "gives_way": shown.settings.gives_way,
            "words": plan.words(shown.settings),
            "allowed_bytes_s": shown.allowed_bytes_s,
            "calm_us": shown.calm_us,
            "request_us": shown.request_us,
        }))
    }
}

/// The zone of the machine, which may be changed while the agent runs; UTC where there is none.
fn zone() -> TimeZone {
    TimeZone::try_system().unwrap_or(TimeZone::UTC)
}

/// Hours are of use only where the zone is known.
pub(super) fn check_zone() -> Result<(), Problem> {
    let known = TimeZone::try_system().map(drop);
    known.map_err(|e| {
        refused("time-zone", format!("hours need the machine's time zone, which is not known: {e}"))
            .safe("Nothing was changed.")
            .todo("Set TZ to a zone that is installed (package tzdata), or to UTC0; or leave the hours out.")
    })
}

fn zone_words(zone: &TimeZone) -> String {
    zone.iana_name().map_or_else(|| "the machine's, without a name".to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_hours_their_rate_holds_and_after_them_the_other() {
        let outside = PaceSettings { rate_bytes: 5, gives_way: true };
        let plan = PacePlan::new(outside, vec!["08:00-18:00=1MiB/s".parse().unwrap()]);
        let mut plan = plan.into_inner();
        let midnight = 1_774_483_200_000; // 2026-03-26T00:00:00Z
        let night = plan.settings_at(midnight, &TimeZone::UTC);
        assert_eq!(night, outside);
        assert_eq!(
            plan.words(night),
            "at most 5 B/s outside the hours 08:00-18:00=1MiB/s, gives way to applications"
        );
        let day = plan.settings_at(midnight + 9 * 3_600_000, &TimeZone::UTC);
        assert_eq!(day, PaceSettings { rate_bytes: 1 << 20, gives_way: true });
        let words = plan.words(day);
        assert_eq!(
            words,
            "at most 1.0 MiB/s in the hours 08:00-18:00=1MiB/s, gives way to applications"
        );
    }
}
