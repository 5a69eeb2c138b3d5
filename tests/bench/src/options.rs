//! What the caller asked for.

use std::path::PathBuf;

/// Choices for one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    names: Vec<String>,
    /// How often each contender has its turn in each case.
    pub rounds: usize,
    /// How long one turn of a timed case takes, in seconds.
    pub turn_seconds: u64,
    /// Size of the volume for requests, dump and load, in MiB.
    pub volume_mib: u64,
    /// Size of the sparse volume of the catch-up, in GiB.
    pub sparse_gib: u64,
    /// How much data that volume holds, in MiB.
    pub sparse_data_mib: u64,
    /// How much of that volume is written between two catch-ups, in percent of its size.
    pub dirty_percent: f64,
    /// Where volumes and media are put; the system's temporary directory when not given.
    pub dir: Option<PathBuf>,
    /// Leave Grainhaul out: a test of the runner and of the peers.
    pub peers_only: bool,
    /// Print JSON instead of a table.
    pub json: bool,
    /// Keep the raw output in `docs/bench/`.
    pub save: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            rounds: 5,
            turn_seconds: 3,
            volume_mib: 2048,
            sparse_gib: 64,
            sparse_data_mib: 1024,
            dirty_percent: 1.0,
            dir: None,
            peers_only: false,
            json: false,
            save: false,
        }
    }
}

impl Options {
    /// Reads the command line; `None` when help was asked for.
    pub fn parse(arguments: &[String], known: &[&str]) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value =
                || arguments.next().map(String::as_str).ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = number(argument, value()?)?,
                "--turn-seconds" => options.turn_seconds = number(argument, value()?)?,
                "--volume-mib" => options.volume_mib = number(argument, value()?)?,
                "--sparse-gib" => options.sparse_gib = number(argument, value()?)?,
                "--sparse-data-mib" => options.sparse_data_mib = number(argument, value()?)?,
                "--dirty-percent" => options.dirty_percent = number(argument, value()?)?,
                "--dir" => options.dir = Some(value()?.into()),
                "--quick" => options.make_quick(),
                "--peers-only" => options.peers_only = true,
                "--json" => options.json = true,
                "--save" => options.save = true,
                "--help" | "-h" => return Ok(None),
                name if known.contains(&name) => options.names.push(name.to_owned()),
                other => {
                    return Err(format!(
                        "{other}: no such bench or option; there are {} (see --help)",
                        known.join(", ")
                    ));
                }
            }
        }
        options.check()?;
        Ok(Some(options))
    }

    /// Whether a bench was asked for; all are when none was named.
    pub fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }

    /// Bytes that are written between two catch-ups.
    pub fn dirty_bytes(&self) -> u64 {
        let volume = (self.sparse_gib << 30) as f64;
        (volume * self.dirty_percent / 100.0) as u64
    }

    /// The directory below which everything is put.
    pub fn base_dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// A fresh directory for one bench; removed when dropped.
    pub fn work_dir(&self) -> Result<tempfile::TempDir, String> {
        let base = self.base_dir();
        tempfile::Builder::new()
            .prefix("grainhaul-bench-")
            .tempdir_in(&base)
            .map_err(|e| format!("{}: {e}", base.display()))
    }

    fn make_quick(&mut self) {
        self.rounds = 2;
        self.turn_seconds = 1;
        self.volume_mib = 256;
        self.sparse_gib = 4;
        self.sparse_data_mib = 64;
    }

    fn check(&self) -> Result<(), String> {
        if self.rounds == 0 || self.turn_seconds == 0 || self.volume_mib == 0 {
            return Err("rounds, seconds and sizes are at least 1".to_owned());
        }
        if self.sparse_gib == 0 || self.sparse_data_mib > self.sparse_gib << 10 {
            return Err("the sparse volume is smaller than its data".to_owned());
        }
        if !(self.dirty_percent > 0.0 && self.dirty_percent <= 100.0) {
            return Err("--dirty-percent is above 0 and at most 100".to_owned());
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{flag} {text}: not a number"))
}

/// The words of `--help`, without the list of benches.
pub fn help() -> &'static str {
    "grainhaul-bench [NAME...] [options]

  --quick                small and short, to see that it runs
  --rounds N             turns of each contender in each case
  --turn-seconds N       length of a timed turn
  --volume-mib N         volume for requests, dump and load
  --sparse-gib N         sparse volume of the catch-up
  --sparse-data-mib N    data in it
  --dirty-percent P      share of it that is written between two catch-ups
  --dir DIR              where volumes and media are put
  --peers-only           leave Grainhaul out
  --json                 JSON instead of a table
  --save                 keep the raw output in docs/bench/

environment
  GRAINHAUL_BLOCKSYNC_FAST    a built blocksync-fast, to take part in the catch-up

benches
"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Option<Options>, String> {
        let arguments: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        Options::parse(&arguments, &["nbd", "dump"])
    }

    #[test]
    fn names_and_numbers_are_taken() {
        let options = parse("nbd --rounds 3 --dirty-percent 0.5 --sparse-gib 2").unwrap().unwrap();
        assert!(options.wants("nbd") && !options.wants("dump"));
        assert_eq!(options.rounds, 3);
        assert_eq!(options.dirty_bytes(), (2 << 30) / 200);
        assert!(parse("").unwrap().unwrap().wants("dump"));
        assert_eq!(parse("--help").unwrap(), None);
    }

    #[test]
    fn nonsense_is_named() {
        for (words, part) in [
            ("--rounds", "needs a value"),
            ("--rounds many", "not a number"),
            ("--rounds 0", "at least 1"),
            ("nothing", "there are nbd, dump"),
            ("--dirty-percent 0", "above 0"),
            ("--sparse-gib 1 --sparse-data-mib 2000", "smaller than its data"),
        ] {
            let told = parse(words).unwrap_err();
            assert!(told.contains(part), "{words}: {told}");
        }
    }
}
