//! Progress of a job: a bar, lines, JSON lines, or nothing.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Figures, Meter, Stream, line};
use crate::amount::{human_bytes, human_duration, human_rate};

/// Where a job says how it gets on. Cheap to call often: what is shown is thinned out.
pub trait Progress {
    /// `done` of `total` bytes are done; `extra` are further figures as (name, value), shown as they
    /// are, e.g. `("preserved", "12 grains")`.
    fn update(&self, done: u64, total: Option<u64>, extra: &[(&str, String)]);

    /// The job ended; `word` says how, e.g. `done`.
    fn finish(&self, word: &str);
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _: u64, _: Option<u64>, _: &[(&str, String)]) {}
    fn finish(&self, _: &str) {}
}

/// A bar on stderr that moves.
pub fn bar(what: &str, total: Option<u64>) -> Box<dyn Progress> {
    // Templates are constants of ours; one that does not parse only costs the looks.
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    let known = "{prefix} [{bar:30}] {percent:>3}% {msg}";
    let style = style(if total.is_some() { known } else { "{prefix} {spinner} {msg}" });
    let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style).with_prefix(what.to_owned());
    Box::new(Bar { bar, start: Instant::now(), meter: RefCell::default() })
}

struct Bar {
    bar: ProgressBar,
    start: Instant,
    meter: RefCell<Meter>,
}

impl Progress for Bar {
    fn update(&self, done: u64, total: Option<u64>, extra: &[(&str, String)]) {
        let figures = self.meter.borrow_mut().sample(self.start.elapsed(), done, total);
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        self.bar.set_message(words(&figures, extra));
    }

    fn finish(&self, word: &str) {
        self.bar.abandon_with_message(word.to_owned());
    }
}

/// A line on a stream now and then, as text or as JSON.
pub(super) fn lines(
    what: &str,
    total: Option<u64>,
    every: Duration,
    json: bool,
    stream: Stream,
) -> Box<dyn Progress> {
    let state = LineState { meter: Meter::default(), shown: None, last: (0, total) };
    Box::new(Lines {
        what: what.to_owned(),
        every,
        json,
        stream,
        start: Instant::now(),
        state: RefCell::new(state),
    })
}

struct Lines {
    what: String,
    every: Duration,
    json: bool,
    stream: Stream,
    start: Instant,
    state: RefCell<LineState>,
}

struct LineState {
    meter: Meter,
    shown: Option<Instant>,
    last: (u64, Option<u64>),
}

impl Progress for Lines {
    fn update(&self, done: u64, total: Option<u64>, extra: &[(&str, String)]) {
        let mut state = self.state.borrow_mut();
        state.last = (done, total);
        if state.shown.is_some_and(|shown| shown.elapsed() < self.every) {
            return;
        }
        state.shown = Some(Instant::now());
        let figures = state.meter.sample(self.start.elapsed(), done, total);
        let text = match self.json {
            true => json!({ "progress": as_json(&self.what, &figures, extra) }).to_string(),
            false => format!("{}: {}", self.what, words(&figures, extra)),
        };
        line(&self.stream, &text);
    }

    fn finish(&self, word: &str) {
        let (done, total) = self.state.borrow().last;
        let time = self.start.elapsed();
        let text = match self.json {
            true => json!({ "progress": {
                "job": self.what, "ended": word, "bytes": done, "total_bytes": total,
                "seconds": time.as_secs_f64(),
            } })
            .to_string(),
            false => {
                let (bytes, time) = (human_bytes(done), human_duration(time));
                format!("{}: {word}, {bytes} in {time}", self.what)
            }
        };
        line(&self.stream, &text);
    }
}

fn words(figures: &Figures, extra: &[(&str, String)]) -> String {
    let mut text = human_bytes(figures.done);
    if let Some(total) = figures.total {
        text.push_str(&format!(" of {}", human_bytes(total)));
    }
    text.push_str(&format!(", {}", human_rate(figures.rate)));
    if let Some(left) = figures.left {
        text.push_str(&format!(", {} left", human_duration(left)));
    }
    for (name, value) in extra {
        text.push_str(&format!(", {name} {value}"));
    }
    text
}

fn as_json(what: &str, figures: &Figures, extra: &[(&str, String)]) -> serde_json::Value {
    let extra: serde_json::Map<_, _> =
        extra.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    json!({
        "job": what,
        "bytes": figures.done,
        "total_bytes": figures.total,
        "bytes_per_second": figures.rate,
        "seconds_left": figures.left.map(|left| left.as_secs()),
        "extra": extra,
    })
}
