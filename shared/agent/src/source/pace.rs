//! How fast the background of a running source goes.

use replication::PaceSettings;
use serde::Deserialize;
use serde_json::{Value, json};
use site::Problem;
use site::amount::human_rate;

use super::SourceAgent;

/// What `pace` is told; nothing to look only.
#[derive(Clone, Debug, Deserialize)]
pub struct PaceArguments {
    /// Bytes a second at most, 0 for no limit.
    pub rate_bytes: Option<u64>,
    /// Whether it gives way to applications.
    pub gives_way: Option<bool>,
}

impl SourceAgent {
    /// Sets or shows the pace. It lasts until the agent stops.
    pub(super) fn pace(&self, arguments: PaceArguments) -> Result<Value, Problem> {
        let pace = self.source.pace();
        let old = pace.shown().settings;
        let new = PaceSettings {
            rate_bytes: arguments.rate_bytes.unwrap_or(old.rate_bytes),
            gives_way: arguments.gives_way.unwrap_or(old.gives_way),
        };
        if new != old {
            pace.set(new);
            self.events.note(format!("pace: {}", words(new)));
        }
        let shown = pace.shown();
        Ok(json!({
            "rate_bytes_s": shown.settings.rate_bytes,
            "gives_way": shown.settings.gives_way,
            "words": words(shown.settings),
            "allowed_bytes_s": shown.allowed_bytes_s,
            "calm_us": shown.calm_us,
            "request_us": shown.request_us,
        }))
    }
}

fn words(settings: PaceSettings) -> String {
    let rate = match settings.rate_bytes {
        0 => "no limit".to_owned(),
        rate => format!("at most {}", human_rate(rate)),
    };
    match settings.gives_way {
        true => format!("{rate}, gives way to applications"),
        false => rate,
    }
}
