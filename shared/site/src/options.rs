//! The options that every command of every binary has.

use std::io::IsTerminal;
use std::path::PathBuf;

use crate::location::StateDir;
use crate::printer::{Printer, Style};
use crate::{Result, logging};

/// Flattened into the arguments of a binary: `#[command(flatten)] global: GlobalOptions`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalOptions {
    /// Where state lives [default: /var/lib/grainhaul for root, else the XDG state directory]
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "DIR", env = crate::location::STATE_VARIABLE)]
    pub state_dir: Option<PathBuf>,

    /// Answer in JSON, one value a line
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,

    /// Print results and problems only
    #[arg(long, short, global = true, help_heading = "Everywhere")]
    pub quiet: bool,

    /// When to use colour
    #[arg(
        long,
        global = true,
        help_heading = "Everywhere",
        value_enum,
        default_value_t,
        value_name = "WHEN"
    )]
    pub color: Colour,

    /// What to log to stderr: error, warn, info, debug, trace, or per module as in `warn,disk=debug`
    #[arg(long, global = true, help_heading = "Everywhere", value_name = "FILTER")]
    pub log: Option<String>,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl GlobalOptions {
    /// The state directory that they choose. Makes nothing.
    pub fn state_dir(&self) -> Result<StateDir> {
        StateDir::choose(self.state_dir.as_deref())
    }

    /// The printer that they ask for.
    pub fn printer(&self) -> Printer {
        let is_terminal = std::io::stderr().is_terminal();
        // https://no-color.org: set and not empty.
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => is_terminal && !unwanted,
        };
        Printer::new(Style { json: self.json, quiet: self.quiet, colour, tty: is_terminal })
    }

    /// Starts the log; `default` is the filter when none is asked for.
    pub fn start_log(&self, default: &str) -> Result<()> {
        logging::start(self.log.as_deref(), default)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Sample {
        #[command(flatten)]
        global: GlobalOptions,
    }

    #[test]
    fn options_parse() {
        let line = ["x", "--state-dir", "/s", "--json", "-q", "--color", "never", "--log", "info"];
        let sample = Sample::parse_from(line);
        assert_eq!(sample.global.state_dir().unwrap().root(), "/s");
        let style = sample.global.printer().style();
        assert!(style.json && style.quiet && !style.colour);
        assert!(Sample::try_parse_from(["x", "--color", "green"]).is_err());
    }
}
