//! Whether payloads are compressed on their way: never, always, or where that is worth its time.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Error;

/// Payloads below this size are not worth compressing.
const MIN_BYTES: usize = 512;
/// The zstd level of [`Compress::Auto`].
const AUTO_LEVEL: i32 = 3;
/// A link that takes a byte in less time is faster than zstd on one core: it is not even tried, in
/// nanoseconds.
const FAST_LINK_NS: f64 = 3.0;
/// One payload of so many is compressed to see whether it is worth it by now.
const TRY_EVERY: u32 = 32;
/// Writes of fewer bytes say more about the system call than about the link.
const MEASURED_BYTES: usize = 16 << 10;
/// Bytes over which an average forgets.
const MEMORY_BYTES: f64 = 2e6;

/// How the payloads of a link travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compress {
    /// As they are.
    #[default]
    Off,
    /// Compressed while the link takes longer for the bytes that this saves than zstd does for all.
    Auto,
    /// Compressed with this zstd level, 1 to 19.
    Level(i32),
}

impl FromStr for Compress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Compress::Off),
            "auto" => Ok(Compress::Auto),
            level => match level.parse() {
                Ok(level @ 1..=19) => Ok(Compress::Level(level)),
                _ => Err(format!("{text}: write off, auto, or a zstd level from 1 to 19")),
            },
        }
    }
}

impl fmt::Display for Compress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compress::Off => f.write_str("off"),
            Compress::Auto => f.write_str("auto"),
            Compress::Level(level) => level.fmt(f),
        }
    }
}

/// Time for a byte, averaged over the last few megabytes.
#[derive(Clone, Copy, Default)]
struct Pace(Option<f64>);

impl Pace {
    fn learn(&mut self, bytes: usize, value: f64) {
        let weight = bytes as f64 / (bytes as f64 + MEMORY_BYTES);
        self.0 = Some(self.0.map_or(value, |old| old + (value - old) * weight));
    }

    fn took(&mut self, bytes: usize, time: Duration) {
        self.learn(bytes, time.as_nanos() as f64 / bytes.max(1) as f64);
    }
}

/// Compresses payloads, or leaves them alone.
pub(super) struct Packer {
    choice: Compress,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    /// Nanoseconds that the link takes for a byte.
    link: Pace,
    /// Nanoseconds that zstd takes for a byte that goes in.
    packing: Pace,
    /// Bytes that come out for one that goes in.
    ratio: Pace,
    /// Payloads that were left alone since the last try.
    skipped: u32,
}

impl Packer {
    pub fn new(choice: Compress) -> Packer {
        let (link, packing, ratio) = (Pace::default(), Pace::default(), Pace::default());
        Packer { choice, zstd: None, link, packing, ratio, skipped: 0 }
    }

    /// The link has taken so many bytes in this time.
    pub fn link_took(&mut self, bytes: usize, time: Duration) {
        if bytes >= MEASURED_BYTES {
            self.link.took(bytes, time);
        }
    }

    fn is_worth_it(&mut self) -> bool {
        match self.choice {
            Compress::Off => return false,
            Compress::Level(_) => return true,
            Compress::Auto => {}
        }
        let Some(link) = self.link.0.filter(|ns| *ns > FAST_LINK_NS) else { return false };
        let pays = match (self.packing.0, self.ratio.0) {
            (Some(packing), Some(ratio)) => link * (1.0 - ratio) > packing,
            _ => true,
        };
        if !pays && self.skipped + 1 < TRY_EVERY {
            self.skipped += 1;
            return false;
        }
        self.skipped = 0;
        true
    }

    /// The payload as it travels, where that is to be smaller by at least 5 %.
    pub fn pack(&mut self, payload: &Bytes) -> Result<Option<Bytes>, Error> {
        let raw = payload.len();
        if raw < MIN_BYTES || !self.is_worth_it() {
            return Ok(None);
        }
        let level = if let Compress::Level(level) = self.choice { level } else { AUTO_LEVEL };
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(
                zstd::bulk::Compressor::new(level).map_err(|e| Error::io("starting zstd", e))?,
            ),
        };
        let begun = Instant::now();
        // A buffer 5 % smaller than the input: what does not fit is not worth sending compressed.
        let mut out = vec![0u8; raw - raw / 20];
        let packed = zstd.compress_to_buffer(&payload[..], &mut out[..]).ok().filter(|n| *n < raw);
        self.packing.took(raw, begun.elapsed());
        self.ratio.learn(raw, packed.map_or(1.0, |len| len as f64 / raw as f64));
        Ok(packed.map(|len| {
            out.truncate(len);
            out.shrink_to_fit();
            Bytes::from(out)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(len: usize) -> Bytes {
        b"what repeats itself is short. ".iter().copied().cycle().take(len).collect()
    }

    fn noise(len: usize) -> Bytes {
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn packs(packer: &mut Packer, payload: &Bytes, times: u32) -> u32 {
        (0..times).map(|_| u32::from(packer.pack(payload).unwrap().is_some())).sum()
    }

    #[test]
    fn a_choice_is_what_was_written() {
        for (text, choice) in
            [("off", Compress::Off), ("auto", Compress::Auto), ("19", Compress::Level(19))]
        {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        for wrong in ["0", "20", "-1", "on", ""] {
            let words = wrong.parse::<Compress>().unwrap_err();
            assert!(words.contains("off, auto"), "{words}");
        }
    }

    #[test]
    fn what_was_chosen_is_done_whatever_the_link_does() {
        let (mut never, mut always) = (Packer::new(Compress::Off), Packer::new(Compress::Level(1)));
        for packer in [&mut never, &mut always] {
            packer.link_took(1 << 20, Duration::from_secs(1));
        }
        assert_eq!(packs(&mut never, &text(65536), 100), 0);
        assert_eq!(packs(&mut always, &text(65536), 100), 100);
        assert_eq!(packs(&mut always, &text(511), 1), 0, "too short");
        assert_eq!(packs(&mut always, &noise(65536), 10), 0, "it does not shrink");
    }

    #[test]
    fn a_slow_link_gets_less_to_carry_and_a_fast_one_all() {
        let mut packer = Packer::new(Compress::Auto);
        assert_eq!(packs(&mut packer, &text(65536), 100), 0, "nothing is known of the link");
        packer.link_took(1 << 20, Duration::from_micros(500));
        assert_eq!(packs(&mut packer, &text(65536), 100), 0, "2 GB/s");
        for _ in 0..40 {
            // 1 MB/s: more than any machine needs to compress.
            packer.link_took(1 << 20, Duration::from_secs(1));
        }
        assert_eq!(packs(&mut packer, &text(65536), 100), 100);
        // What does not shrink is tried now and then.
        let tried = (0..3200).map(|_| {
            packer.pack(&noise(65536)).unwrap();
            u32::from(packer.skipped == 0)
        });
        let tried: u32 = tried.sum();
        assert!((100..1500).contains(&tried), "{tried}");
        // And noticed when it does again.
        assert!(packs(&mut packer, &text(65536), 3200) > 1000);
    }
}
