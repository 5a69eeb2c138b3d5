//! Amounts as people type them: sizes (`64KiB`, `1G`), rates (`100MiB/s`, `100mbit`), durations
//! (`5m`, `1h30m`).
//!
//! `K`, `M`, `G`, `T`, `P` alone and with `iB` count in steps of 1024, with `B` in steps of 1000; `bit`
//! counts bits a second in steps of 1000, as links are sold. Upper and lower case are the same. A
//! fraction is allowed where it gives whole bytes.

use std::time::Duration;

use crate::{Error, Result};

const SIZE: &str = "a size such as 512, 64KiB, 1.5G";
const RATE: &str = "a rate such as 100MiB/s, 50M, 100mbit";
const DURATION: &str = "a duration such as 250ms, 30s, 5m, 1h30m, 2d";

/// The factor of a unit's prefix in steps of `step`, if it is one.
fn prefix(letter: &str, step: u64) -> Option<u64> {
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|unit| *unit == letter)?;
    step.checked_pow(power as u32)
}

/// Splits a text into its number and its unit in lower case.
fn split(text: &str) -> Option<(&str, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then(|| (number, unit.trim().to_ascii_lowercase()))
}

/// `number` (digits with at most one dot) times `factor`, where that is whole and fits.
fn times(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let whole = u128::from(whole) * u128::from(factor);
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let part = fraction * u128::from(factor);
    if part % scale != 0 {
        return None;
    }
    u64::try_from(whole + part / scale).ok()
}

/// Bytes of a size.
pub fn parse_size(text: &str) -> Result<u64> {
    let bytes = || {
        let (number, unit) = split(text)?;
        times(number, byte_unit(&unit)?)
    };
    bytes().ok_or_else(|| Error::Amount { text: text.to_owned(), wanted: SIZE })
}

fn byte_unit(unit: &str) -> Option<u64> {
    if unit == "b" {
        return Some(1);
    }
    if let Some(letter) = unit.strip_suffix("ib") {
        return if letter.is_empty() { None } else { prefix(letter, 1024) };
    }
    match unit.strip_suffix('b') {
        Some(letter) => prefix(letter, 1000),
        None => prefix(unit, 1024),
    }
}

/// Bytes a second of a rate.
pub fn parse_rate(text: &str) -> Result<u64> {
    let rate = || {
        let (number, unit) = split(text)?;
        let bits = ["bit/s", "bps", "bit"].iter().find_map(|end| unit.strip_suffix(end));
        if let Some(letter) = bits {
            return Some(times(number, prefix(letter, 1000)?)? / 8);
        }
        times(number, byte_unit(unit.strip_suffix("/s").unwrap_or(&unit))?)
    };
    let wrong = || Error::Amount { text: text.to_owned(), wanted: RATE };
    rate().filter(|rate| *rate > 0).ok_or_else(wrong)
}

/// A duration: numbers with the units `ms`, `s`, `m`, `h`, `d`, one after another.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || Error::Amount { text: text.to_owned(), wanted: DURATION };
    let mut rest = text.trim();
    let mut total_ms = 0u64;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, unit_on) = rest.split_at(digits);
        let letters = unit_on.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit_on.len());
        let (unit, after) = unit_on.split_at(letters);
        let factor_ms = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = times(number, factor_ms).ok_or_else(wrong)?;
        total_ms = total_ms.checked_add(part).ok_or_else(wrong)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// `1.5 GiB`: at most four digits, in steps of 1024.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// `1.5 MiB/s`.
pub fn human_rate(bytes_per_second: u64) -> String {
    format!("{}/s", human_bytes(bytes_per_second))
}

/// `350 ms`, `4.2 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..10 => format!("{}.{} s", seconds, duration.subsec_millis() / 100),
        10..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {:02} min", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A number of things in words: `1 peer`, `2 peers`.
pub fn counted(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read() {
        let good = [
            ("0", 0),
            ("512", 512),
            ("512b", 512),
            ("64KiB", 65_536),
            ("64k", 65_536),
            (" 1 G ", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("1GB", 1_000_000_000),
            ("0.5k", 512),
            ("16P", 16 << 50),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        let bad =
            ["", "k", "-1", "1x", "1iB", "1.0001", ".", "99999P", "1..5k", "1 k 2", "0x10", "1e3"];
        for text in bad {
            let error = parse_size(text).unwrap_err();
            assert!(error.to_string().contains("64KiB"), "{text}: {error}");
        }
    }

    #[test]
    fn rates_are_read() {
        let good =
            [("100MiB/s", 100 << 20), ("1M", 1 << 20), ("100mbit", 12_500_000), ("8kbit/s", 1_000)];
        for (text, rate) in good {
            assert_eq!(parse_rate(text).unwrap(), rate, "{text}");
        }
        for text in ["0", "1bit", "100MiB/h", "fast"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        let good = [
            ("250ms", 250),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("2d", 172_800_000),
        ];
        for (text, ms) in good {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "5", "5x", "m", "1h-5m", "999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_shown() {
        let bytes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (amount, text) in bytes {
            assert_eq!(human_bytes(amount), text);
        }
        let times = [
            (350, "350 ms"),
            (4_250, "4.2 s"),
            (59_900, "59 s"),
            (185_000, "3 min 05 s"),
            (7_620_000, "2 h 07 min"),
            (273_600_000, "3 d 04 h"),
        ];
        for (ms, text) in times {
            assert_eq!(human_duration(Duration::from_millis(ms)), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9.kKmMgGtTpPiIbB/shd ]{0,12}") {
            drop((parse_size(&text), parse_rate(&text), parse_duration(&text)));
        }

        #[test]
        fn whole_bytes_round_trip(bytes: u64) {
            prop_assert_eq!(parse_size(&bytes.to_string()).unwrap(), bytes);
        }
    }

    #[test]
    fn things_are_counted() {
        assert_eq!(counted(1, "peer"), "1 peer");
        assert_eq!([counted(0, "peer"), counted(2, "peer")], ["0 peers", "2 peers"]);
    }
}
