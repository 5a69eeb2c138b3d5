//! [`Problem`]: an error as people read it.

use grain::ErrorClass;
use serde::{Deserialize, Serialize};

use super::Exit;

/// What happened, what is safe, what to do. Travels over the control socket, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// By which scripts tell problems apart, in words with dashes; stable.
    pub code: String,
    /// What happened, as a sentence without its full stop.
    pub what: String,
    /// What is safe: sentences. May be empty.
    #[serde(default)]
    pub safe: String,
    /// What to do: sentences. May be empty.
    #[serde(default)]
    pub todo: String,
    /// The exit code.
    pub exit: Exit,
}

impl Problem {
    /// A problem of which only the event is known yet.
    pub fn new(code: &str, what: impl Into<String>, exit: Exit) -> Problem {
        let (safe, todo) = (String::new(), String::new());
        Problem { code: code.to_owned(), what: what.into(), safe, todo, exit }
    }

    /// A problem that shows a bug.
    pub fn bug(what: impl Into<String>) -> Problem {
        Problem::new("bug", what, Exit::BUG)
            .safe("Stored state is written so that a stop at any moment loses nothing.")
            .todo("Please report this with the log.")
    }

    /// A problem with the exit code of an error class.
    pub fn of_class(code: &str, what: impl Into<String>, class: ErrorClass) -> Problem {
        Problem::new(code, what, Exit::of_class(class))
    }

    /// Says what is safe.
    pub fn safe(mut self, safe: impl Into<String>) -> Problem {
        self.safe = safe.into();
        self
    }

    /// Says what to do.
    pub fn todo(mut self, todo: impl Into<String>) -> Problem {
        self.todo = todo.into();
        self
    }

    /// The prose, in a form that does not change; `paint` colours the first word.
    pub fn render(&self, paint: impl Fn(&str) -> String) -> String {
        let mut text = format!("{} {} [{}]", paint("error:"), self.what, self.code);
        for (heading, part) in [("safe", &self.safe), ("to do", &self.todo)] {
            if !part.is_empty() {
                text.push_str(&format!("\n  {heading:<5}  {}", part.replace('\n', "\n         ")));
            }
        }
        text
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.render(str::to_owned))
    }
}
