//! The log: `tracing` to stderr, chosen by `--log` in the words of `RUST_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::{Error, Result};

/// The filter when none is given.
pub const DEFAULT_FILTER: &str = "warn";

/// Starts the log for this process: `filter` of `--log`, else the variable `GRAINHAUL_LOG`, else
/// `default` (for a daemon `info`). A second call changes nothing.
pub fn start(filter: Option<&str>, default: &str) -> Result<()> {
    let from_variable = std::env::var("GRAINHAUL_LOG").ok().filter(|text| !text.is_empty());
    let text = filter.map(str::to_owned).or(from_variable);
    let filter = parse(text.as_deref().unwrap_or(default))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // Only the first log of a process can be the global one; a second start is harmless.
    drop(log.try_init());
    Ok(())
}

fn parse(text: &str) -> Result<EnvFilter> {
    EnvFilter::builder()
        .parse(text)
        .map_err(|error| Error::LogFilter { filter: text.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        for good in ["info", "warn,disk=debug", "site::control=trace", DEFAULT_FILTER] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let error = parse("disk=loud").unwrap_err();
        assert_eq!(error.code(), "bad-log-filter");
        assert!(error.to_string().contains("disk=loud"));
    }
}
