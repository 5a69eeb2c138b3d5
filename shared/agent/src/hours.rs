//! Hours of the week in which another rate holds: `08:00-18:00=20MiB/s`, `mon-fri 22:00-06:00=off`.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::flags::rate_or_off;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// Minutes.
const DAY: u16 = 24 * 60;
const HOURS_FORM: &str = "write HOURS=RATE, e.g. 08:00-18:00=20MiB/s or mon-fri 22:00-06:00=off";

/// Some hours of some days, and the rate in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    text: String,
    /// From Monday; those on which the hours begin.
    days: [bool; 7],
    /// Minutes of the day. Where `to` is not above `from` they end on the next day.
    from: u16,
    to: u16,
    /// Bytes a second, 0 for no limit.
    pub rate_bytes: u64,
}

impl Hours {
    /// Whether they cover a minute of a day (0 is Monday).
    fn cover(&self, day: usize, minute: u16) -> bool {
        let yesterday = self.days[(day + 6) % 7];
        if self.from < self.to {
            return self.days[day] && (self.from..self.to).contains(&minute);
        }
        (self.days[day] && minute >= self.from) || (yesterday && minute < self.to)
    }
}

/// The first of `hours` that covers an instant, by the clock on the wall.
pub fn at<'a>(hours: &'a [Hours], unix_ms: u64, zone: &TimeZone) -> Option<&'a Hours> {
    let instant = Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    let local = instant.to_zoned(zone.clone());
    let day = usize::try_from(local.weekday().to_monday_zero_offset()).ok()?;
    let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).ok()?;
    hours.iter().find(|hours| hours.cover(day, minute))
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Hours {
    type Err = String;

    fn from_str(text: &str) -> Result<Hours, String> {
        let wrong = |what: &str| format!("{text}: {what}; {HOURS_FORM}");
        let (when, rate) = text.split_once('=').ok_or_else(|| wrong("there is no rate"))?;
        let when = when.trim().replace(" - ", "-");
        let (days, times) = match when.rsplit_once(' ') {
            Some((days, times)) => {
                (days_of(days.trim()).ok_or_else(|| wrong("which days?"))?, times)
            }
            None => ([true; 7], when.as_str()),
        };
        let (from, to) = times.split_once('-').ok_or_else(|| wrong("there is no end"))?;
        let time = |text| minute_of(text).ok_or_else(|| wrong("a time has the form 08:00"));
        let (from, to) = (time(from)?, time(to)?);
        if from == DAY {
            return Err(wrong("hours do not begin at 24:00"));
        }
        if from == to % DAY && (from, to) != (0, DAY) {
            return Err(wrong("begin and end are the same"));
        }
        let rate = rate.trim();
        let rate_bytes = rate_or_off(rate).map_err(|e| wrong(&e))?;
        Ok(Hours { text: format!("{when}={rate}"), days, from, to: to % DAY, rate_bytes })
    }
}

/// `08:00`; `24:00` is the end of the day.
fn minute_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let digits =
        |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hour) || minute.len() != 2 || !digits(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let total = hour * 60 + minute;
    (minute < 60 && total <= DAY).then_some(total)
}

/// `mon-fri`, `sat,sun`, `fri-mon`.
fn days_of(text: &str) -> Option<[bool; 7]> {
    let day = |text: &str| DAYS.iter().position(|name| name.eq_ignore_ascii_case(text.trim()));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for offset in 0..=(last + 7 - first) % 7 {
            days[(first + offset) % 7] = true;
        }
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 is a Monday.
    fn covered(text: &str, at_utc: &str) -> bool {
        let hours: Hours = text.parse().unwrap();
        let at_utc: Timestamp = at_utc.parse().unwrap();
        at(&[hours], at_utc.as_millisecond() as u64, &TimeZone::UTC).is_some()
    }

    #[test]
    fn hours_cover_what_they_say() {
        for (text, at_utc, expected) in [
            ("08:00-18:00=1MiB/s", "2026-11-23T08:00:00Z", true),
            ("08:00 - 18:00=1MiB/s", "2026-11-23T17:59:59Z", true),
            ("08:00-18:00=1MiB/s", "2026-11-23T18:00:00Z", false),
            ("mon-fri 08:00-18:00=1MiB/s", "2026-11-22T12:00:00Z", false),
            ("mon-fri 08:00-18:00=1MiB/s", "2026-11-27T12:00:00Z", true),
            // Over midnight: the day is that of the beginning.
            ("fri 22:00-06:00=off", "2026-11-27T23:00:00Z", true),
            ("fri 22:00-06:00=off", "2026-11-28T05:59:00Z", true),
            ("fri 22:00-06:00=off", "2026-11-27T05:00:00Z", false),
            ("sun 22:00-06:00=off", "2026-11-23T05:00:00Z", true),
            ("00:00-24:00=off", "2026-11-23T23:59:59Z", true),
            ("sat 00:00-24:00=off", "2026-11-29T00:00:00Z", false),
            ("sat,sun 0:00-24:00=off", "2026-11-29T00:00:00Z", true),
            ("fri-mon 9:00-10:00=off", "2026-11-23T09:30:00Z", true),
            ("fri-mon 9:00-10:00=off", "2026-11-24T09:30:00Z", false),
        ] {
            assert_eq!(covered(text, at_utc), expected, "{text} at {at_utc}");
        }
    }

    #[test]
    fn the_first_that_covers_holds_and_the_wall_clock_counts() {
        let hours: Vec<Hours> =
            ["12:00-13:00=2MiB/s", "08:00-18:00=1MiB/s"].map(|text| text.parse().unwrap()).to_vec();
        let noon: Timestamp = "2026-07-01T10:30:00Z".parse().unwrap();
        let unix_ms = noon.as_millisecond() as u64;
        let in_berlin = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(at(&hours, unix_ms, &in_berlin).unwrap().rate_bytes, 2 << 20);
        assert_eq!(at(&hours, unix_ms, &TimeZone::UTC).unwrap().rate_bytes, 1 << 20);
    }

    #[test]
    fn nonsense_is_named_with_the_form_to_write() {
        for (text, part) in [
            ("08:00-18:00", "no rate"),
            ("08:00=1MiB/s", "no end"),
            ("8-18=1MiB/s", "the form 08:00"),
            ("08:00-24:01=1MiB/s", "the form 08:00"),
            ("08:60-18:00=1MiB/s", "the form 08:00"),
            ("08:00-08:00=off", "the same"),
            ("00:00-00:00=off", "the same"),
            ("24:00-06:00=off", "do not begin"),
            ("someday 08:00-18:00=off", "which days"),
            ("mon- 08:00-18:00=off", "which days"),
            ("08:00-18:00=fast", "fast"),
        ] {
            let told = text.parse::<Hours>().unwrap_err();
            assert!(told.contains(part) && told.contains("write HOURS=RATE"), "{text}: {told}");
        }
        let hours: Hours = " sat,Sun 08:00-18:00 = off".parse().unwrap();
        assert_eq!(hours.to_string(), "sat,Sun 08:00-18:00=off");
    }
}
