//! `pace`: how fast dumps, catch-ups and verifications read at the source.

use serde_json::json;
use site::Problem;
use site::amount::human_rate;
use site::location::Name;

use super::Context;
use super::switchover::not_running;
use crate::flags::rate_or_off;
use crate::hours::Hours;
use crate::reach;

/// Flags of `pace`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the relationship
    name: Name,
    /// What they may read a second together, or `off`
    #[arg(long, value_name = "RATE", value_parser = rate_or_off)]
    rate: Option<u64>,
    /// The same in some hours, by the source's local clock: 08:00-18:00=20MiB/s, 'mon-fri 22:00-06:00=off'; `none`
    /// for no such hours any more. May be given several times, the first that covers the hour holds
    #[arg(long, value_name = "HOURS=RATE", value_parser = hours_or_none)]
    hours: Vec<Option<Hours>>,
    /// Whether they go slower while requests of applications take twice as long as alone
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    give_way: Option<bool>,
}

fn hours_or_none(text: &str) -> Result<Option<Hours>, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        other => Err(format!("{other}: write on or off")),
    }
}

/// Asks the running source.
pub async fn run(verb: Context, arguments: Arguments) -> Result<(), Problem> {
    let Some(client) = reach::running(&verb.state, &arguments.name).await? else {
        return Err(not_running(&arguments.name));
    };
    // `none` by itself: an empty list, in the place of what was.
    let hours: Vec<String> = arguments.hours.iter().flatten().map(Hours::to_string).collect();
    let body = json!({
        "rate_bytes": arguments.rate,
        "gives_way": arguments.give_way,
        "hours": (!arguments.hours.is_empty()).then_some(hours),
    });
    let answer = reach::verb(&client, "pace", &body).await?;
    let mut words = answer["words"].as_str().unwrap_or_default().to_owned();
    if let Some(allowed) = answer["allowed_bytes_s"].as_u64() {
        words.push_str(&format!("; {} now", human_rate(allowed)));
    }
    if let (Some(alone), Some(now)) = (answer["calm_us"].as_u64(), answer["request_us"].as_u64()) {
        words.push_str(&format!("; a request takes {now} us, {alone} us alone"));
    }
    verb.printer.data(&words, &answer);
    Ok(())
}
