//! The past of a replica as people name and see it: when, which points, what came of a look.

use std::path::PathBuf;
use std::time::Duration;

use grain::CutId;
use jiff::civil::{DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use replication::replica::{At, PastPoint, Seen};
use serde::{Deserialize, Serialize};
use site::{Exit, Problem};

use crate::flags::duration;

/// The forms in which people say when.
pub const WHEN_FORMS: &str = "write latest, a time (2026-11-22 04:00, 04:00, 10m ago), a cut's id, or a bookmark's \
     name (label:NAME where it could be taken for something else)";

/// What to look at, as it travels to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Everything that counts now.
    Latest,
    /// The newest point at or before this time, in milliseconds since 1970.
    Time(u64),
    /// The point at this cut.
    Cut(String),
    /// The newest bookmark of this name.
    Label(String),
}

impl When {
    /// Reads what people write. `now` is the wall clock in milliseconds, `zone` that of the wall.
    pub fn parse(text: &str, now: u64, zone: &TimeZone) -> Result<When, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err(WHEN_FORMS.to_owned());
        }
        if let Some(label) = text.strip_prefix("label:") {
            return Ok(When::Label(label.to_owned()));
        }
        if text == "latest" {
            return Ok(When::Latest);
        }
        if let Some(ago) = text.strip_suffix(" ago") {
            let ago = duration(ago.trim()).map_err(|e| format!("{e}; {WHEN_FORMS}"))?;
            return Ok(When::Time(now.saturating_sub(ago.as_millis() as u64)));
        }
        if let Ok(cut) = text.parse::<CutId>() {
            return Ok(When::Cut(cut.to_string()));
        }
        if let Some(ms) = instant(text, now, zone) {
            return match u64::try_from(ms) {
                Ok(ms) if ms <= now => Ok(When::Time(ms)),
                Ok(_) => Err(format!("{text} has not come yet")),
                Err(_) => Err(format!("{text} is before 1970")),
            };
        }
        Ok(When::Label(text.to_owned()))
    }

    /// The same for a verb, by the clock on the wall here.
    pub(crate) fn read(text: &str, now: u64) -> Result<When, Problem> {
        When::parse(text, now, &TimeZone::system()).map_err(|e| {
            Problem::new("usage", e, Exit::USAGE).safe("Nothing was changed.").todo(WHEN_FORMS)
        })
    }

    pub(crate) fn at(&self) -> Result<At, String> {
        Ok(match self {
            When::Latest => At::Latest,
            When::Time(ms) => At::Time(*ms),
            When::Cut(cut) => At::Cut(cut.parse().map_err(|e| format!("{e}"))?),
            When::Label(label) => At::Label(label.clone()),
        })
    }
}

/// A time on the wall or of the world, in milliseconds since 1970.
fn instant(text: &str, now: u64, zone: &TimeZone) -> Option<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant.as_millisecond());
    }
    let of =
        |local: DateTime| Some(local.to_zoned(zone.clone()).ok()?.timestamp().as_millisecond());
    if text.contains('-')
        && let Ok(local) = text.parse::<DateTime>()
    {
        return of(local);
    }
    let time: Time = text.contains(':').then(|| text.parse().ok())??;
    let today = Timestamp::from_millisecond(i64::try_from(now).ok()?).ok()?;
    let today = today.to_zoned(zone.clone()).date();
    let found = of(today.to_datetime(time))?;
    // A time of the day that is still to come was yesterday's.
    match u64::try_from(found).is_ok_and(|ms| ms > now) {
        true => of(today.checked_sub(1.day()).ok()?.to_datetime(time)),
        false => Some(found),
    }
}

/// A point as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointShown {
    /// The cut.
    pub cut: String,
    /// When the source made it, milliseconds since 1970.
    pub unix_ms: u64,
    /// A bookmark's name.
    pub label: Option<String>,
}

impl From<PastPoint> for PointShown {
    fn from(point: PastPoint) -> PointShown {
        let (unix_ms, label) = (point.unix_ms, point.label);
        PointShown { cut: point.cut.to_string(), unix_ms, label }
    }
}

/// The answer to `points`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PointsAnswer {
    /// Oldest first; thinned for people unless all were asked for.
    pub points: Vec<PointShown>,
    /// How many there are.
    pub total: u64,
    /// The wall clock of the agent, in milliseconds.
    pub now_unix_ms: u64,
}

/// Of many points those that people want to read: every one of the last minutes, then one a minute, an hour, a
/// day; and every bookmark, the first and the last. Each stays something that one can go back to.
pub fn thinned(points: Vec<PastPoint>, now: u64) -> Vec<PastPoint> {
    const STEPS: [(u64, u64); 3] = [(5 * 60, 1), (60 * 60, 60), (24 * 60 * 60, 60 * 60)];
    let last = points.len().saturating_sub(1);
    let slot = |point: &PastPoint| {
        let age_s = now.saturating_sub(point.unix_ms) / 1000;
        let step =
            STEPS.iter().find(|(up_to, _)| age_s <= *up_to).map_or(86_400, |(_, step)| *step);
        (step, point.unix_ms / 1000 / step)
    };
    let next: Vec<_> = points.iter().skip(1).map(slot).collect();
    let wanted = |i: usize, point: &PastPoint| {
        // The newest of each slot.
        point.label.is_some() || i == 0 || i == last || next.get(i) != Some(&slot(point))
    };
    let points = points.into_iter().enumerate();
    points.filter(|(i, point)| wanted(*i, point)).map(|(_, point)| point).collect()
}

/// What `export` asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExportArguments {
    /// What to look at.
    pub at: When,
    /// Whether it can be written; what is written is thrown away.
    pub writable: bool,
    /// The Unix socket of the NBD exports.
    pub socket: PathBuf,
    /// What the writes of it may take.
    pub overlay_bytes: u64,
    /// It stays until it is ended; else it ends when nobody has asked for it for a while.
    pub background: bool,
}

/// A view, as the agent tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewStatus {
    /// Its number.
    pub id: u32,
    /// The cut that it shows, or after which it was opened.
    pub cut: String,
    /// When that was made, milliseconds since 1970.
    pub cut_unix_ms: u64,
    /// The bookmark's name.
    pub label: Option<String>,
    /// Shows everything that counted when it was opened, not only that cut.
    pub latest: bool,
    /// Where the exports are.
    pub socket: String,
    /// The names of the exports.
    pub exports: Vec<String>,
    /// Whether it can be written.
    pub writable: bool,
    /// When it was asked for.
    pub opened_unix_ms: u64,
    /// From then to the socket being open, in microseconds.
    pub ready_us: u64,
    /// Requests answered.
    pub reads: u64,
    /// Their bytes.
    pub read_bytes: u64,
    /// Writes, trims and zeroes answered.
    pub writes: u64,
    /// Their bytes.
    pub written_bytes: u64,
    /// Bytes that they take.
    pub overlay_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Why it can be read no more.
    pub ended: Option<String>,
    /// When it was ended.
    pub ended_unix_ms: Option<u64>,
}

impl ViewStatus {
    pub(crate) fn show(&mut self, seen: &Seen) {
        let (point, latest) = match seen {
            Seen::Latest { after } => (after, true),
            Seen::Point(point) => (point, false),
        };
        self.cut = point.cut.to_string();
        (self.cut_unix_ms, self.label, self.latest) = (point.unix_ms, point.label.clone(), latest);
    }
}

/// What status says of the history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastStatus {
    /// Points that one can go back to.
    pub points: u64,
    /// When the oldest of them was.
    pub oldest_unix_ms: Option<u64>,
    /// Bytes that the history takes.
    pub bytes: u64,
    /// Why there is none.
    pub ended: Option<String>,
    /// Views that are open.
    pub views: Vec<ViewStatus>,
}

/// An instant by the clock on the wall.
pub fn wall_clock(unix_ms: u64) -> String {
    let instant = i64::try_from(unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let local = instant.map(|instant| instant.to_zoned(TimeZone::system()));
    local.map_or_else(String::new, |local| local.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A view of which nobody asked for so long is ended, unless it is in the background.
pub const LEASE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 04:00:00 UTC.
    const NOW: u64 = 1_795_320_000_000;

    #[test]
    fn people_say_when_in_many_ways() {
        let when = |text: &str| When::parse(text, NOW, &TimeZone::UTC);
        let cut = CutId::from_bytes([7; 16]).to_string();
        assert_eq!(when("latest"), Ok(When::Latest));
        assert_eq!(when("10m ago"), Ok(When::Time(NOW - 600_000)));
        assert_eq!(when("2026-11-22 03:00"), Ok(When::Time(NOW - 3_600_000)));
        assert_eq!(when("2026-11-22T04:30:00+01:00"), Ok(When::Time(NOW - 1_800_000)));
        assert_eq!(when("03:59"), Ok(When::Time(NOW - 60_000)));
        assert_eq!(when("23:00"), Ok(When::Time(NOW - 5 * 3_600_000)), "yesterday");
        assert_eq!(when(&cut), Ok(When::Cut(cut)));
        assert_eq!(when("before-upgrade"), Ok(When::Label("before-upgrade".into())));
        assert_eq!(when("label:latest"), Ok(When::Label("latest".into())));
        assert!(when("2026-11-23 00:00").is_err_and(|e| e.contains("not come yet")));
        for wrong in ["", "soon ago"] {
            assert!(when(wrong).is_err_and(|e| e.contains("write latest")), "{wrong}");
        }
    }

    #[test]
    fn points_are_thinned_by_age_and_bookmarks_stay() {
        let point = |age_s: u64| PastPoint {
            cut: CutId::from_bytes([0; 16]),
            unix_ms: NOW - age_s * 1000,
            label: (age_s == 50_009).then(|| "kept".to_owned()),
        };
        let points: Vec<_> = (0..60_000).rev().step_by(10).map(point).collect();
        let (all, shown) = (points.len(), thinned(points.clone(), NOW));
        let young = shown.iter().filter(|p| p.unix_ms >= NOW - 300_000).count();
        assert_eq!(young, 30, "each of the last five minutes");
        assert!(shown.len() < 30 + 60 + 24 && shown.len() < all, "{}", shown.len());
        assert!(shown.iter().any(|p| p.label.is_some()));
        assert_eq!((shown.first(), shown.last()), (points.first(), points.last()));
        assert!(shown.windows(2).all(|pair| pair[0].unix_ms < pair[1].unix_ms));
    }
}
