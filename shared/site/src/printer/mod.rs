//! One door to the terminal.
//!
//! Data (what a command was asked for) goes to stdout, everything else to stderr, so that a pipe sees
//! data only. With `--json` data is JSON, one value a line, and so are problems and progress, on
//! stderr. With `--quiet` notes and progress are left out; data, warnings and problems are not.

mod exit;
mod meter;
mod problem;
mod progress;
mod table;

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

pub use exit::Exit;
pub use meter::{Figures, Meter};
pub use problem::Problem;
pub use progress::{Progress, Silent};
pub use table::{Align, Table};

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Data as JSON.
    pub json: bool,
    /// No notes, no progress.
    pub quiet: bool,
    /// Escape codes for colour on stderr.
    pub colour: bool,
    /// stderr is a terminal: a bar that moves instead of lines.
    pub tty: bool,
}

type Stream = Rc<RefCell<Box<dyn Write>>>;

/// The printer, see the module. Clones print to the same place.
#[derive(Clone)]
pub struct Printer {
    style: Style,
    out: Stream,
    err: Stream,
}

impl Printer {
    /// A printer on stdout and stderr.
    pub fn new(style: Style) -> Printer {
        Printer::to(style, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// A printer on other streams.
    pub fn to(style: Style, out: Box<dyn Write>, err: Box<dyn Write>) -> Printer {
        Printer { style, out: Rc::new(RefCell::new(out)), err: Rc::new(RefCell::new(err)) }
    }

    /// How it prints.
    pub fn style(&self) -> Style {
        self.style
    }

    /// Data: `json` with `--json`, else the text, as it is and with a line end.
    pub fn data(&self, text: &str, json: &serde_json::Value) {
        if self.style.json {
            line(&self.out, &json.to_string());
        } else {
            line(&self.out, text.trim_end_matches('\n'));
        }
    }

    /// Data as a table; with `--json` the value instead.
    pub fn table(&self, table: &Table, json: &serde_json::Value) {
        self.data(&table.to_string(), json);
    }

    /// A remark for people, left out with `--quiet` and `--json`.
    pub fn note(&self, text: &str) {
        if !self.style.quiet && !self.style.json {
            line(&self.err, text);
        }
    }

    /// Something that is not as it should be, though the command goes on.
    pub fn warn(&self, text: &str) {
        if self.style.json {
            line(&self.err, &serde_json::json!({ "warning": text }).to_string());
        } else {
            line(&self.err, &format!("{} {text}", self.paint("33", "warning:")));
        }
    }

    /// Prints a problem and hands back its exit code.
    pub fn problem(&self, problem: &Problem) -> Exit {
        if self.style.json {
            line(&self.err, &serde_json::json!({ "problem": problem }).to_string());
        } else {
            line(&self.err, &problem.render(|word| self.paint("31;1", word)));
        }
        problem.exit
    }

    /// Shows how a job gets on. `what` is a noun, as in `dump`; `total` in bytes where it is known.
    pub fn progress(&self, what: &str, total: Option<u64>) -> Box<dyn Progress> {
        match self.style {
            Style { json: true, quiet: false, .. } => {
                progress::lines(what, total, Duration::from_secs(1), true, self.err.clone())
            }
            Style { quiet: true, .. } => Box::new(Silent),
            Style { tty: true, .. } => progress::bar(what, total),
            _ => progress::lines(what, total, Duration::from_secs(5), false, self.err.clone()),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A line to a stream. One that is gone (a closed pipe) is no reason to stop the work.
fn line(stream: &Stream, text: &str) {
    let mut stream = stream.borrow_mut();
    drop(writeln!(stream, "{text}").and_then(|()| stream.flush()));
}

#[cfg(test)]
mod tests;
