//! Facts about the machine that a reader of figures needs; nothing that names it.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The facts.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// Day of the run, `YYYY-MM-DD`, UTC.
    pub date: String,
    /// Model of the processor.
    pub cpu: String,
    /// Processors that this run may use.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// File system under the volumes.
    pub file_system: String,
    /// First line of `--version` of each peer that is there.
    pub peers: Vec<String>,
}

/// Programs whose version is told.
const PEERS: [&str; 6] = ["fio", "nbdkit", "qemu-nbd", "qemu-storage-daemon", "cp", "rsync"];

impl Facts {
    /// Looks at this machine; `dir` is where the volumes are.
    pub fn gather(dir: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            date: today(),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: field(&read("/proc/meminfo"), "MemTotal")
                .and_then(|value| value.split(' ').next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib / 1024),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(dir),
            peers: PEERS.iter().filter_map(|program| version(program)).collect(),
        }
    }

    /// The facts as lines of text.
    pub fn text(&self) -> String {
        let mut text = format!(
            "date: {}\nprocessor: {} x {}\nmemory: {} MiB\nkernel: {}\nfile system: {}\n",
            self.date, self.cpus, self.cpu, self.memory_mib, self.kernel, self.file_system
        );
        for peer in &self.peers {
            text.push_str(&format!("peer: {peer}\n"));
        }
        text
    }
}

/// The value of the first line `NAME : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then_some(value.trim())
    })
}

fn file_system(dir: &Path) -> String {
    first_line(Command::new("findmnt").args(["-n", "-o", "FSTYPE", "-T"]).arg(dir))
        .unwrap_or_else(|| "unknown".to_owned())
}

fn version(program: &str) -> Option<String> {
    first_line(Command::new(program).arg("--version"))
}

fn first_line(command: &mut Command) -> Option<String> {
    let out = command.output().ok().filter(|out| out.status.success())?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.lines().next().map(|line| line.trim().to_owned())
}

fn today() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = civil((seconds / 86_400) as i64);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a day counted from 1970-01-01 (Gregorian calendar, after 0000-03-01):
/// years are taken to begin in March, so that the leap day is the last of a year.
fn civil(days: i64) -> (i64, i64, i64) {
    let since_year_0 = days + 719_468;
    let era = since_year_0.div_euclid(146_097);
    let day_of_era = since_year_0.rem_euclid(146_097);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(19_723), (2024, 1, 1));
        assert_eq!(civil(20_088), (2024, 12, 31));
    }

    #[test]
    fn fields_are_found() {
        let text = "processor\t: 0\nmodel name\t: A B @ 2 GHz\nmodel name\t: C\n";
        assert_eq!(field(text, "model name"), Some("A B @ 2 GHz"));
        assert_eq!(field(text, "model"), None);
    }

    #[test]
    fn facts_name_no_directory() {
        let facts = Facts::gather(Path::new("/"));
        assert!(facts.cpus >= 1 && facts.memory_mib > 0);
        assert!(!facts.text().contains("/home") && !facts.text().contains("/tmp"));
    }
}
